package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

const (
	settleEvery = time.Second      // how late an overdue gap is noticed at most
	gaugeEvery  = 15 * time.Second // Prometheus scrapes no more often
	purgeEvery  = 24 * time.Hour
	// retention is how long an answer is replayed. RELIABILITY.md D asks for a day at least; three cover a weekend.
	retention = 72 * time.Hour
	// purgeRows keeps each deletion, and the locks and WAL it makes, short.
	purgeRows = 5000
)

// Run settles what waits: it parks keys whose gap has lasted too long, redrives those whose predecessor came, keeps the
// gauge of open interventions, and once a day deletes old idempotency keys. Several replicas may run it. It returns when
// ctx ends; what fails is logged and tried again.
func (i *Inbox) Run(ctx context.Context) error {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	var gauged, purged time.Time
	for {
		err := i.settle(ctx)
		if now := time.Now(); err == nil && now.Sub(gauged) >= gaugeEvery {
			err, gauged = i.gauge(ctx), now
		}
		if now := time.Now(); err == nil && now.Sub(purged) >= purgeEvery {
			err, purged = i.purge(ctx), now
		}
		if err != nil && ctx.Err() == nil {
			i.o.Log.Warn("settling the inbox failed, trying again", zap.Error(err))
		}
		select {
		case <-tick.C:
		case <-i.nudge:
		case <-ctx.Done():
			return nil
		}
	}
}

// settle looks once at whatever waits for its predecessor. One key in trouble does not hold up the others.
func (i *Inbox) settle(ctx context.Context) error {
	type early struct {
		key
		overdue bool
	}
	rows, _ := i.o.Pool.Query(ctx, `SELECT source, subject, overdue FROM (
			SELECT source, subject, min(seq) AS next, min(queued_at) < now() - $2::interval AS overdue,
				(SELECT last_seq FROM inbox i WHERE i.grp = $1 AND i.source = e.source AND i.subject = e.subject) AS last
			FROM early_events e WHERE grp = $1 GROUP BY source, subject) waiting
		WHERE overdue OR next <= coalesce(last, 0) + 1 LIMIT 1000`, i.o.Group, patience)
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e early, err error) {
		return e, row.Scan(&e.source, &e.subject, &e.overdue)
	})
	if err != nil {
		return fmt.Errorf("look for early events: %w", err)
	}
	var failed []error
	for _, k := range keys {
		if _, err := i.drain(ctx, k.key, "early_events", act{}); err != nil {
			failed = append(failed, err)
		} else if k.overdue {
			failed = append(failed, i.parkGap(ctx, k.key))
		}
	}
	return errors.Join(append(failed, i.settleGaps(ctx))...)
}

// settleGaps redrives keys that were parked for a gap and have the missing sequence now.
func (i *Inbox) settleGaps(ctx context.Context) error {
	type parked struct {
		key
		id uuid.UUID
	}
	rows, _ := i.o.Pool.Query(ctx, `SELECT id, source, subject FROM parked_keys k WHERE grp = $1 AND kind = 'gap' AND closed_at IS NULL
		AND EXISTS (SELECT FROM parked_events e WHERE e.grp = k.grp AND e.source = k.source AND e.subject = k.subject AND e.seq <= 1 +
			coalesce((SELECT last_seq FROM inbox i WHERE i.grp = k.grp AND i.source = k.source AND i.subject = k.subject), 0))
		LIMIT 1000`, i.o.Group)
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p parked, err error) {
		return p, row.Scan(&p.id, &p.source, &p.subject)
	})
	if err != nil {
		return fmt.Errorf("look for healed gaps: %w", err)
	}
	var failed []error
	for _, k := range keys {
		a := act{id: k.id, action: "redrive", actor: i.o.Group, reason: "the missing sequence came"}
		_, err := i.drain(ctx, k.key, "parked_events", a)
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// gauge counts what waits for a person.
func (i *Inbox) gauge(ctx context.Context) error {
	rows, _ := i.o.Pool.Query(ctx, `SELECT kind, count(*) FROM interventions WHERE grp = $1 AND closed_at IS NULL GROUP BY kind`, i.o.Group)
	i.metrics.open.Reset()
	var kind string
	var n float64
	_, err := pgx.ForEachRow(rows, []any{&kind, &n}, func() error {
		i.metrics.open.WithLabelValues(kind).Set(n)
		return nil
	})
	if err != nil {
		return fmt.Errorf("count interventions: %w", err)
	}
	return nil
}

// purge deletes idempotency keys that are past their retention.
func (i *Inbox) purge(ctx context.Context) error {
	for {
		tag, err := i.o.Pool.Exec(ctx, `DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
			SELECT ctid FROM idempotency_keys WHERE stored_at < now() - $1::interval LIMIT $2))`, retention, purgeRows)
		if err != nil {
			return fmt.Errorf("delete old idempotency keys: %w", err)
		}
		if tag.RowsAffected() < purgeRows {
			return nil
		}
	}
}
