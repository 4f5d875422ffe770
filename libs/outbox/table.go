package outbox

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	// The advisory lock, "wayb" and "outb". It is per database, so a service has one relay.
	lockSpace, lockName = 0x77617962, 0x6f757462
	// A standby looks this often for a lock that is free, or held by a relay unseen for unseenLimit.
	lockEvery   = 500 * time.Millisecond
	unseenLimit = "5 s"
	// askLimit ends an exchange with a server that does not answer; below unseenLimit, or it would look like a pause.
	askLimit = 4 * time.Second
)

// session is the relay's connection: direct, because the lock lives with it.
type session struct {
	conn   *pgx.Conn
	holder string
}

// connect opens the session without the lock.
func (o *Outbox) connect(ctx context.Context) (*session, error) {
	config, err := pgx.ParseConfig(o.DatabaseURL)
	if err != nil {
		return nil, fmt.Errorf("parse database url: %w", errDatabaseURL) // the cause may show the password
	}
	config.ConnectTimeout = askLimit
	for k, v := range map[string]string{
		"application_name": "outbox relay", "timezone": "UTC", "statement_timeout": "3s", "lock_timeout": "2s", "enable_seqscan": "off",
		// Partitions are pruned while planning; a generic plan would lock all of them at each read.
		"plan_cache_mode": "force_custom_plan",
		// A mark that is lost in a crash is an event that is published twice.
		"synchronous_commit": "off",
	} {
		config.RuntimeParams[k] = v
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect relay: %w", err)
	}
	host, _ := os.Hostname()
	return &session{conn, fmt.Sprintf("%s/%d/%s", host, os.Getpid(), uuid.NewString())}, nil
}

// lock tries to become the relay. Lock and row come from one statement: a process that is paused in between is seen.
func (s *session) lock(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	tag, err := s.conn.Exec(ctx, `INSERT INTO relays (name, holder, backend_pid, seen_at)
		SELECT 'outbox', $1, pg_backend_pid(), clock_timestamp() WHERE pg_try_advisory_lock($2, $3)
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, backend_pid = excluded.backend_pid, seen_at = excluded.seen_at`,
		s.holder, lockSpace, lockName)
	return tag.RowsAffected() == 1, err
}

// evict terminates the backend of a relay that holds the lock and was not seen for 5 s: its process is stopped, and the
// lock would be its own until it goes on.
func (s *session) evict(ctx context.Context) (evicted bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	err = s.conn.QueryRow(ctx, `SELECT coalesce(bool_or(pg_terminate_backend(r.backend_pid, 1000)), false) FROM relays r
		WHERE r.name = 'outbox' AND r.seen_at < clock_timestamp() - interval '`+unseenLimit+`' AND EXISTS (
			SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
			WHERE l.locktype = 'advisory' AND l.pid = r.backend_pid AND l.granted
				AND l.classid::bigint = $1 AND l.objid::bigint = $2 AND l.objsubid = 2)`, lockSpace, lockName).Scan(&evicted)
	return evicted, err
}

// request is one exchange with the table: marks, then a heartbeat, then a read, in one round trip.
type request struct {
	marks []int64
	beat  bool
	read  int64 // its number; 0: none
	known []int64
	low   time.Time
	limit int
}

type answer struct {
	request
	found []*row
	err   error
}

// ask does what request says.
func (s *session) ask(ctx context.Context, q request) answer {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	a := answer{request: q}
	b := &pgx.Batch{}
	if len(q.marks) > 0 {
		b.Queue(`UPDATE outbox SET published_at = now() WHERE id = ANY($1) AND created_at >= $2 AND published_at IS NULL`, q.marks, q.low)
	}
	if q.beat {
		b.Queue(`UPDATE relays SET seen_at = clock_timestamp() WHERE name = 'outbox' AND holder = $1`, s.holder)
	}
	if q.read > 0 {
		b.Queue(`SELECT id, body FROM outbox WHERE published_at IS NULL AND created_at >= $1 AND id <> ALL($2) ORDER BY id LIMIT $3`,
			q.low, q.known, q.limit).Query(func(rows pgx.Rows) error {
			for rows.Next() {
				r := &row{}
				var body []byte
				err := rows.Scan(&r.id, &body)
				if err == nil {
					r.events, err = Unpack(body)
				}
				if err != nil {
					return fmt.Errorf("row %d: %w", r.id, err)
				}
				a.found = append(a.found, r)
			}
			return rows.Err()
		})
	}
	if err := s.conn.SendBatch(ctx, b).Close(); err != nil {
		a.err = fmt.Errorf("ask the table: %w", err)
	}
	return a
}

// close gives the lock back.
func (s *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx)
}
