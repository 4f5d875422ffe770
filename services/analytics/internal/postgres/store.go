// Package postgres keeps the events of the tenants, in a table that is partitioned by month.
package postgres

import (
	"context"
	"embed"
	"encoding/json"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/waybill-dev/waybill/libs/pg"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations is the schema of the analytics service.
var Migrations = func() pg.Migrations {
	root, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err)
	}
	return pg.Migrations{Name: "analytics", FS: root}
}()

// Event is one thing that happened to a tenant.
type Event struct {
	Tenant  int64
	At      time.Time
	ID      uuid.UUID
	Seconds *float64 // processing time
	Payload json.RawMessage
}

// Store reads and writes events.
type Store struct {
	pool *pgxpool.Pool
	keep int // months
}

// New makes a store that keeps events for so many months.
func New(pool *pgxpool.Pool, keep int) *Store { return &Store{pool: pool, keep: max(keep, 1)} }

// Pool is the database of the store.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// Seed adds the tenants of the development profile.
func (s *Store) Seed(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, `INSERT INTO tenants (id, name, plan) VALUES (1, 'acme', 'enterprise'), (2, 'globex', 'basic') ON CONFLICT DO NOTHING`)
	return err
}

// Insert queues events. One that is there already stays as it was.
func Insert(u *pg.Unit, events []Event) {
	if len(events) == 0 {
		return
	}
	var tenants []int64
	var at []time.Time
	var ids []uuid.UUID
	var seconds []*float64
	var payloads []string
	for _, e := range events {
		tenants, at, ids = append(tenants, e.Tenant), append(at, e.At), append(ids, e.ID)
		seconds, payloads = append(seconds, e.Seconds), append(payloads, string(e.Payload))
	}
	u.Write(`INSERT INTO events (tenant_id, created_at, event_id, processing_time, payload)
		SELECT n.tenant, n.at, n.id, n.seconds, n.payload::jsonb
		FROM unnest($1::bigint[], $2::timestamptz[], $3::uuid[], $4::float8[], $5::text[]) AS n(tenant, at, id, seconds, payload)
		ORDER BY n.tenant, n.at, n.id ON CONFLICT DO NOTHING`, tenants, at, ids, seconds, payloads)
}

// remembered is how many times of a subject are kept. An order has some twelve events.
const remembered = 32

// Subject names what events are about.
type Subject struct {
	Tenant int64
	ID     string
}

// Times are when things happened to subjects.
type Times map[Subject][]time.Time

// LoadTimes locks and reads the times of subjects.
func LoadTimes(ctx context.Context, u *pg.Unit, subjects []Subject) (Times, error) {
	times := Times{}
	var ids []string
	for _, s := range subjects {
		times[s] = nil
		ids = append(ids, s.ID)
	}
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	u.Read(`SELECT tenant_id, subject, times FROM subject_times WHERE subject = ANY($1) ORDER BY subject, tenant_id FOR UPDATE`, ids).
		Query(func(rows pgx.Rows) error {
			var s Subject
			var at []time.Time
			_, err := pgx.ForEachRow(rows, []any{&s.Tenant, &s.ID, &at}, func() error {
				times[s] = slices.Clone(at)
				return nil
			})
			return err
		})
	return times, u.Fetch(ctx)
}

// Since is how long before at the last thing happened to the subject, in seconds; nil where nothing is known. It notes at.
func (t Times) Since(s Subject, at time.Time) *float64 {
	at = at.Truncate(time.Microsecond) // what the database keeps
	i, found := slices.BinarySearchFunc(t[s], at, time.Time.Compare)
	if !found {
		t[s] = slices.Insert(t[s], i, at)
		if over := len(t[s]) - remembered; over > 0 {
			t[s] = t[s][over:]
			i -= over
		}
	}
	if i <= 0 {
		return nil
	}
	seconds := at.Sub(t[s][i-1]).Seconds()
	return &seconds
}

// Save queues the times.
func (t Times) Save(u *pg.Unit) {
	subjects := make([]Subject, 0, len(t))
	for s := range t {
		subjects = append(subjects, s)
	}
	slices.SortFunc(subjects, func(a, b Subject) int { // upserts go by sorted key
		if c := strings.Compare(a.ID, b.ID); c != 0 {
			return c
		}
		return int(a.Tenant - b.Tenant)
	})
	var tenants []int64
	var ids, times []string
	for _, s := range subjects {
		var b strings.Builder
		for i, at := range t[s] {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(at.UTC().Format(time.RFC3339Nano))
		}
		// An array of arrays must be rectangular, so each travels as its text.
		tenants, ids, times = append(tenants, s.Tenant), append(ids, s.ID), append(times, "{"+b.String()+"}")
	}
	if len(ids) == 0 {
		return
	}
	u.Write(`INSERT INTO subject_times (tenant_id, subject, times)
		SELECT n.tenant, n.id, n.times::timestamptz[] FROM unnest($1::bigint[], $2::text[], $3::text[]) AS n(tenant, id, times)
		ON CONFLICT (subject, tenant_id) DO UPDATE SET times = EXCLUDED.times, changed_at = now()`, tenants, ids, times)
}

// Day is one tenant's day, in UTC.
type Day struct {
	Tenant  int64
	Date    time.Time
	Events  int64
	Seconds *float64 // mean processing time; nil where no event has one
}

// Enterprise reports the days of the tenants whose plan is enterprise, the newest first.
func (s *Store) Enterprise(ctx context.Context, days int) ([]Day, error) {
	var out []Day
	err := pg.Do(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		u.Read(`SET LOCAL TIME ZONE 'UTC'`)
		u.Read(`SELECT e.tenant_id, DATE(e.created_at) AS date, COUNT(*) AS events, AVG(e.processing_time) AS avg_time
			FROM events e JOIN tenants t ON e.tenant_id = t.id
			WHERE e.created_at >= CURRENT_DATE - make_interval(days => $1) AND t.plan = 'enterprise'
			GROUP BY e.tenant_id, DATE(e.created_at) ORDER BY date DESC, e.tenant_id`, days).
			Query(func(rows pgx.Rows) (err error) {
				out, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Day])
				return err
			})
		return u.Fetch(ctx)
	})
	return out, err
}

// Stats counts one day of one tenant.
func (s *Store) Stats(ctx context.Context, tenant int64, date time.Time) (Day, error) {
	d := Day{Tenant: tenant, Date: date}
	err := s.pool.QueryRow(ctx, `SELECT count(*), avg(processing_time) FROM events WHERE tenant_id = $1 AND created_at >= $2 AND created_at < $3`,
		tenant, date, date.AddDate(0, 0, 1)).Scan(&d.Events, &d.Seconds)
	return d, err
}
