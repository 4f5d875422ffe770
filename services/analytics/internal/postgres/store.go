// Package postgres keeps the events of the tenants, in a table that is partitioned by month.
package postgres

import (
	"context"
	"embed"
	"encoding/json"
	"io/fs"
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
