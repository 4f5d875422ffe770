package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// ahead is how many months are created before they begin: a service that was down for one still finds its partition.
	ahead = 2
	// partitionsLock keeps replicas from creating the same partition at once. The number is "partitions" in letters' places.
	partitionsLock = 0x7061727469
)

// partition is the name of the partition of a month.
func partition(month time.Time) string { return "events_" + month.Format("200601") }

func monthOf(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}

// Maintain creates the partitions from the oldest month that is kept until two months ahead, each with its index, and
// detaches older ones. Detached tables stay, for whoever archives or drops them.
func (s *Store) Maintain(ctx context.Context, now time.Time) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// Making an index on an empty partition takes milliseconds, waiting for the lock may take longer.
		if _, err := tx.Exec(ctx, `SELECT set_config('TimeZone', 'UTC', true), pg_advisory_xact_lock($1)`, int64(partitionsLock)); err != nil {
			return fmt.Errorf("lock partitions: %w", err)
		}
		rows, _ := tx.Query(ctx, `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'events'::regclass`)
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("list partitions: %w", err)
		}
		attached := map[string]bool{}
		for _, n := range names {
			attached[n] = true
		}
		oldest := monthOf(now).AddDate(0, -s.keep, 0)
		for m, last := oldest, monthOf(now).AddDate(0, ahead, 0); !m.After(last); m = m.AddDate(0, 1, 0) {
			name := partition(m)
			if attached[name] {
				continue
			}
			// A month that was detached once and is wanted again (a longer retention) keeps its rows.
			for _, sql := range []string{
				fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s (LIKE events INCLUDING ALL)`, name),
				fmt.Sprintf(`CREATE INDEX IF NOT EXISTS idx_events_tenant_created_at_%s ON %s (tenant_id, created_at)`, m.Format("200601"), name),
				fmt.Sprintf(`ALTER TABLE events ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')`, name,
					m.Format(time.DateOnly), m.AddDate(0, 1, 0).Format(time.DateOnly)),
			} {
				if _, err := tx.Exec(ctx, sql); err != nil {
					return fmt.Errorf("create partition %s: %w", name, err)
				}
			}
		}
		for _, name := range names {
			m, err := time.Parse("events_200601", name)
			if err != nil || !m.Before(oldest) {
				continue
			}
			if _, err := tx.Exec(ctx, fmt.Sprintf(`ALTER TABLE events DETACH PARTITION %s`, name)); err != nil {
				return fmt.Errorf("detach partition %s: %w", name, err)
			}
		}
		return nil
	})
}

// Window is when an event may have happened to find a partition, with a day's margin at the end for clocks.
func (s *Store) Window(now time.Time) (from, to time.Time) {
	return monthOf(now).AddDate(0, -s.keep, 0), now.Add(24 * time.Hour)
}
