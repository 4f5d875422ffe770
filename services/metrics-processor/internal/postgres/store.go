// Package postgres keeps window snapshots and, in the same transaction, the offsets up to which the topics are in them.
package postgres

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations is the schema of the metrics processor.
var Migrations = func() pg.Migrations {
	root, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err)
	}
	return pg.Migrations{Name: "metrics", FS: root}
}()

// Store keeps the state of one instance.
type Store struct {
	pool     *pgxpool.Pool
	instance string
	id       uuid.UUID
	cursor   aggregate.Cursor
}

// New makes a store. The name of an instance is the same after a restart, and no other replica's.
func New(pool *pgxpool.Pool, instance string) *Store { return &Store{pool: pool, instance: instance} }

// Partition is a part of a topic.
type Partition struct {
	Topic  string
	Number int32
}

// Load has an empty aggregator go on from the last snapshot, if there is one. survived is asked for what the instance left.
func (s *Store) Load(ctx context.Context, a *aggregate.Aggregator, survived func(id uuid.UUID) *aggregate.Survivor) error {
	var totals, books []byte
	var forgotten aggregate.Forgotten
	err := s.pool.QueryRow(ctx, `SELECT id, totals, books, forgotten_series, forgotten_samples FROM instances WHERE name = $1`, s.instance).
		Scan(&s.id, &totals, &books, &forgotten.Series, &forgotten.Samples)
	if err == pgx.ErrNoRows {
		s.id = uuid.New()
		return nil
	}
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	rows, err := s.pool.Query(ctx, `SELECT number, born, identity FROM series WHERE instance = $1 ORDER BY number`, s.instance)
	if err != nil {
		return fmt.Errorf("read series: %w", err)
	}
	var series []aggregate.Numbered
	var one aggregate.Numbered
	var identity []byte
	if _, err := pgx.ForEachRow(rows, []any{&one.Number, &one.Born, &identity}, func() error {
		one.Identity = aggregate.Identity{}
		series = append(series, one)
		return json.Unmarshal(identity, &series[len(series)-1].Identity)
	}); err != nil {
		return fmt.Errorf("read series: %w", err)
	}
	rows, err = s.pool.Query(ctx, `SELECT closed, data FROM panes WHERE instance = $1 ORDER BY pane`, s.instance)
	if err != nil {
		return fmt.Errorf("read panes: %w", err)
	}
	var closed, open [][]byte
	var isClosed bool
	var data []byte
	if _, err := pgx.ForEachRow(rows, []any{&isClosed, &data}, func() error {
		if isClosed {
			closed = append(closed, append([]byte(nil), data...))
		} else {
			open = append(open, append([]byte(nil), data...))
		}
		return nil
	}); err != nil {
		return fmt.Errorf("read panes: %w", err)
	}
	s.cursor, err = a.Restore(series, closed, open, totals, books, forgotten, survived(s.id))
	return err
}

// ID names the instance's books.
func (s *Store) ID() uuid.UUID { return s.id }

// Next reads where a partition goes on; ok is false where nothing was read yet.
func (s *Store) Next(ctx context.Context, p Partition) (next int64, ok bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT next FROM offsets WHERE topic = $1 AND partition = $2`, p.Topic, p.Number).Scan(&next)
	if err == pgx.ErrNoRows {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read offset: %w", err)
	}
	return next, true, nil
}

// Move is how far a partition was read: from what the database says, to the next record.
type Move struct{ From, To int64 }

// Save writes what the aggregator has and the offsets that belong to it, or nothing. It fails when another replica has moved
// one of the offsets.
func (s *Store) Save(ctx context.Context, a *aggregate.Aggregator, moves map[Partition]Move) error {
	snapshot, cursor := a.Snapshot(s.cursor)
	numbers, born, identities := make([]int32, len(snapshot.Series)), make([]int64, len(snapshot.Series)), make([]string, len(snapshot.Series))
	for i, n := range snapshot.Series {
		text, err := json.Marshal(n.Identity)
		if err != nil {
			return fmt.Errorf("encode series: %w", err)
		}
		numbers[i], born[i], identities[i] = int32(n.Number), n.Born, string(text)
	}
	gone := make([]int32, len(snapshot.Gone))
	for i, n := range snapshot.Gone {
		gone[i] = int32(n)
	}
	var panes []int64
	var closed []bool
	var data [][]byte
	for pane, b := range snapshot.Closed {
		panes, closed, data = append(panes, pane), append(closed, true), append(data, b)
	}
	for pane, b := range snapshot.Open {
		panes, closed, data = append(panes, pane), append(closed, false), append(data, b)
	}
	totals := append([]byte{}, snapshot.Totals...)
	err := pg.Do(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		u.Write(`INSERT INTO instances (name, id, totals, books, saved_at, forgotten_series, forgotten_samples) VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (name) DO UPDATE SET totals = excluded.totals, books = excluded.books, saved_at = excluded.saved_at,
				forgotten_series = excluded.forgotten_series, forgotten_samples = excluded.forgotten_samples`,
			s.instance, s.id, totals, snapshot.Books, time.Now(), int64(snapshot.Forgotten.Series), int64(snapshot.Forgotten.Samples))
		if len(gone) > 0 {
			u.Write(`DELETE FROM series WHERE instance = $1 AND number = ANY($2::int[])`, s.instance, gone)
		}
		if len(numbers) > 0 {
			u.Write(`INSERT INTO series (instance, number, born, identity) SELECT $1, n, b, i::jsonb FROM unnest($2::int[], $3::bigint[], $4::text[]) AS x(n, b, i)
				ON CONFLICT (instance, number) DO UPDATE SET born = excluded.born, identity = excluded.identity`, s.instance, numbers, born, identities)
		}
		u.Write(`DELETE FROM panes WHERE instance = $1 AND pane < $2`, s.instance, snapshot.Oldest)
		if len(panes) > 0 {
			u.Write(`INSERT INTO panes (instance, pane, closed, data) SELECT $1, p, c, d FROM unnest($2::bigint[], $3::boolean[], $4::bytea[]) AS x(p, c, d)
				ON CONFLICT (instance, pane) DO UPDATE SET closed = excluded.closed, data = excluded.data`, s.instance, panes, closed, data)
		}
		for p, m := range moves {
			u.Guard(1, `INSERT INTO offsets AS o (topic, partition, next) VALUES ($1, $2, $4)
				ON CONFLICT (topic, partition) DO UPDATE SET next = excluded.next WHERE o.next = $3`, p.Topic, p.Number, m.From, m.To)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	s.cursor = cursor
	return nil
}
