package pg

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed migrations/*.sql
var files embed.FS

// own is what Guard needs in every database.
var own = func() Migrations {
	root, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err)
	}
	return Migrations{Name: "pg", FS: root}
}()

// maxRuns bounds how often Do runs a unit that lost against another. Five losses in a row are not bad luck.
const maxRuns = 5

// errRolledBack is what COMMIT answers in a transaction that has failed before.
var errRolledBack = errors.New("transaction had failed and was rolled back")

// Unit is one unit of work: a transaction that is read in one round trip and written, with COMMIT, in another. It serves
// one goroutine and ends with the function that Do gave it to.
type Unit struct {
	conn   *pgx.Conn
	begun  bool
	reads  pgx.Batch
	writes pgx.Batch
	before []func(ctx context.Context) error
	after  []func()
	values map[any]any
}

// Do runs f as one unit of work and commits what it queued. Where the unit loses against another one (40001, 40P01;
// a 23505 raised by a concurrent insert is left to the caller) it runs again, up to five times with a short jittered pause,
// so f must be repeatable: it starts from nothing on each run. An error of f rolls everything back and is returned as
// it is. An error while committing may mean that the commit happened; every unit of the platform finds that out on its
// next run, by its inbox rows or keys.
func Do(ctx context.Context, pool *pgxpool.Pool, f func(ctx context.Context, u *Unit) error) error {
	for run := 1; ; run++ {
		err := once(ctx, pool, f)
		if err == nil || run == maxRuns || !conflict(err) {
			return err
		}
		select {
		case <-time.After(time.Duration(1+rand.IntN(5*run)) * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

func once(ctx context.Context, pool *pgxpool.Pool, f func(ctx context.Context, u *Unit) error) error {
	pooled, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("acquire connection: %w", err)
	}
	defer pooled.Release() // a connection that is still inside a transaction is closed, not reused
	u := &Unit{conn: pooled.Conn()}
	committed := false
	defer func() {
		if committed || !u.begun || u.conn.IsClosed() {
			return
		}
		// The request may be gone; its transaction must go too, or the connection is lost to the pool.
		rollback, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if _, err := u.conn.Exec(rollback, "ROLLBACK"); err != nil {
			_ = u.conn.Close(rollback)
		}
	}()
	if err := f(ctx, u); err != nil {
		return err
	}
	if err := u.commit(ctx); err != nil {
		return err
	}
	committed = true
	for _, f := range u.after {
		f()
	}
	return nil
}

// Read queues a lock or a read for the next Fetch. Use the result's Query, QueryRow or Exec to receive the rows: the
// callback runs inside Fetch.
func (u *Unit) Read(sql string, args ...any) *pgx.QueuedQuery { return u.reads.Queue(sql, args...) }

// Survey lets the unit's reads go over whole tables, for as long as limit each: it takes back what connections are denied for the
// sake of look-ups by key. A sum over a ledger that inherited that was made anew for each row beside it.
func (u *Unit) Survey(limit time.Duration) {
	u.Read(`SELECT set_config(name, 'on', true) FROM unnest($1::text[]) AS denied(name)`, denied)
	u.Read(`SELECT set_config('statement_timeout', $1, true)`, strconv.FormatInt(limit.Milliseconds(), 10))
}

// Fetch sends what Read has queued in one round trip, the first time together with BEGIN.
func (u *Unit) Fetch(ctx context.Context) error {
	if u.reads.Len() == 0 {
		return nil
	}
	return u.send(ctx, &u.reads, "read")
}

// Write queues a change. It goes out with COMMIT, or with the next Flush.
func (u *Unit) Write(sql string, args ...any) *pgx.QueuedQuery { return u.writes.Queue(sql, args...) }

// Guard queues a change that must touch exactly n rows; any other number fails the unit with 40001 and Do runs it again.
// The statement is an INSERT, UPDATE or DELETE without RETURNING.
func (u *Unit) Guard(n int, sql string, args ...any) {
	u.writes.Queue(`WITH changed AS (`+sql+` RETURNING 1) SELECT waybill_guard(count(*), `+strconv.Itoa(n)+`) FROM changed`, args...)
}

// Flush sends the queued changes now, for those whose RETURNING values decide what comes next.
func (u *Unit) Flush(ctx context.Context) error {
	if u.writes.Len() == 0 {
		return nil
	}
	return u.send(ctx, &u.writes, "write")
}

// BeforeCommit registers a function that runs when the unit's own function has returned; it may queue more writes.
func (u *Unit) BeforeCommit(f func(ctx context.Context) error) { u.before = append(u.before, f) }

// Value is what a package keeps with this unit under key; make makes it at first use.
func (u *Unit) Value(key any, make func() any) any {
	v, ok := u.values[key]
	if !ok {
		v = make()
		if u.values == nil {
			u.values = map[any]any{}
		}
		u.values[key] = v
	}
	return v
}

// AfterCommit registers a function that runs once the commit is known to have happened. It must not block.
func (u *Unit) AfterCommit(f func()) { u.after = append(u.after, f) }

func (u *Unit) commit(ctx context.Context) error {
	for i := 0; i < len(u.before); i++ { // a hook may register another
		if err := u.before[i](ctx); err != nil {
			return err
		}
	}
	if !u.begun && u.writes.Len() == 0 {
		return nil // nothing was asked of the database
	}
	u.writes.Queue("COMMIT").Exec(func(tag pgconn.CommandTag) error {
		if tag.String() != "COMMIT" { // f went on after an error of Fetch or Flush
			return errRolledBack
		}
		return nil
	})
	return u.send(ctx, &u.writes, "commit")
}

// send runs b in one round trip and empties it.
func (u *Unit) send(ctx context.Context, b *pgx.Batch, what string) error {
	batch := b
	if !u.begun {
		batch = &pgx.Batch{}
		batch.Queue("BEGIN")
		batch.QueuedQueries = append(batch.QueuedQueries, b.QueuedQueries...)
		u.begun = true
	}
	err := u.conn.SendBatch(ctx, batch).Close()
	*b = pgx.Batch{}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
