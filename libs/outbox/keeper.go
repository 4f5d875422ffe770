package outbox

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/pg"
)

const (
	// keep is how long published rows stay, for replay.
	keep = 72 * time.Hour
	// ahead is how many hours have a partition in advance: a night without a relay ends in the default partition.
	ahead       = 3
	keepEvery   = 5 * time.Minute
	gaugesEvery = 5 * time.Second
	// oldestLook is how far back reads always look: created_at is when a transaction began, and none lasts ten minutes.
	oldestLook = 10 * time.Minute
	// hourLayout names a partition by the hour that it begins with, in UTC.
	hourLayout = "outbox_p2006010215"
)

// keeper makes and drops partitions and measures the table, in the process that relays.
type keeper struct {
	*Outbox
	since atomic.Pointer[time.Time]
}

// low is the earliest created_at that an unpublished row may have. Before the first look at the partitions, and after an
// error, that is any time.
func (k *keeper) low() time.Time {
	if t := k.since.Load(); t != nil {
		return *t
	}
	return time.Unix(0, 0)
}

func (k *keeper) run(ctx context.Context) {
	defer func() { // the next relay's replica measures
		k.metrics.rows.Set(0)
		k.metrics.events.Set(0)
		k.metrics.oldest.Set(0)
	}()
	for next := time.Now(); ; {
		if !time.Now().Before(next) {
			next = time.Now().Add(keepEvery)
			if err := k.tidy(ctx); err != nil && ctx.Err() == nil {
				next = time.Now() // at the next gauge
				k.Log.Warn("partitions not kept", zap.Error(err))
			}
		}
		if err := k.gauge(ctx); err != nil && ctx.Err() == nil {
			k.Log.Warn("outbox not measured", zap.Error(err))
		}
		if !sleep(ctx, gaugesEvery) {
			return
		}
	}
}

// tidy makes the partitions of the next hours, drops those whose time is over and finds the oldest one with work.
func (k *keeper) tidy(ctx context.Context) error {
	return k.Pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		var now time.Time
		var names []string
		err := c.QueryRow(ctx, `SELECT now(), coalesce((SELECT array_agg(c.relname::text ORDER BY c.relname) FROM pg_inherits i
			JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'outbox'::regclass AND c.relname LIKE 'outbox\_p%'), '{}')`).Scan(&now, &names)
		if err != nil {
			return fmt.Errorf("list partitions: %w", err)
		}
		have := map[string]bool{}
		for _, name := range names {
			have[name] = true
		}
		hour := now.UTC().Truncate(time.Hour)
		for h := hour; !h.After(hour.Add(ahead * time.Hour)); h = h.Add(time.Hour) {
			if name := h.Format(hourLayout); !have[name] {
				if err := create(ctx, c.Conn(), name, h); err != nil {
					return err
				}
			}
		}
		since := now.Add(-oldestLook)
		for _, name := range names {
			h, err := time.Parse(hourLayout, name)
			if err != nil {
				continue // not one of ours
			}
			var work bool
			if err := c.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+name+` WHERE published_at IS NULL)`).Scan(&work); err != nil {
				return fmt.Errorf("look into %s: %w", name, err)
			}
			switch {
			case work && h.Before(since):
				since = h
			case !work && h.Add(time.Hour+keep).Before(now):
				if err := alter(ctx, c.Conn(), `DROP TABLE `+name); err != nil {
					return fmt.Errorf("drop %s: %w", name, err)
				}
			}
		}
		var stray *time.Time
		err = c.QueryRow(ctx, `WITH gone AS (DELETE FROM outbox_default WHERE published_at IS NOT NULL AND created_at < now() - $1::interval)
			SELECT min(created_at) FROM outbox_default WHERE published_at IS NULL`, keep).Scan(&stray)
		if err != nil {
			return fmt.Errorf("look into the default partition: %w", err)
		}
		if stray != nil && stray.Before(since) {
			since = *stray
		}
		k.since.Store(&since)
		return nil
	})
}

// create makes a partition. Where rows of the hour lie in the default partition already it cannot be, and need not.
func create(ctx context.Context, c *pgx.Conn, name string, from time.Time) error {
	err := alter(ctx, c, strings.NewReplacer("$name", name, "$from", from.Format(time.RFC3339), "$to", from.Add(time.Hour).Format(time.RFC3339)).Replace(`
		CREATE TABLE $name PARTITION OF outbox FOR VALUES FROM ('$from') TO ('$to')
		WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0)`))
	if err != nil && !pg.Permanent(err) {
		return fmt.Errorf("create %s: %w", name, err)
	}
	return nil
}

// alter changes the set of partitions. Nobody writes to the table meanwhile: attaching a partition would lock less, but has
// writers on their way to the default partition fail. It gives way after half a second, for writers queue behind it.
func alter(ctx context.Context, c *pgx.Conn, sql string) error {
	_, err := c.Exec(ctx, `SET LOCAL lock_timeout = '500ms'; `+sql, pgx.QueryExecModeSimpleProtocol) // one transaction
	return err
}

// gauge measures what waits. The limit keeps a long backlog from being counted row by row each time.
func (k *keeper) gauge(ctx context.Context) error {
	var rows, events int64
	var age float64
	err := k.Pool.QueryRow(ctx, `SELECT count(*), coalesce(sum(events), 0), coalesce(extract(epoch FROM now() - min(created_at)), 0)
		FROM (SELECT events, created_at FROM outbox WHERE published_at IS NULL AND created_at >= $1 ORDER BY id LIMIT 50000) AS waiting`,
		k.low()).Scan(&rows, &events, &age)
	if err != nil {
		return err
	}
	k.metrics.rows.Set(float64(rows))
	k.metrics.events.Set(float64(events))
	k.metrics.oldest.Set(age)
	return nil
}
