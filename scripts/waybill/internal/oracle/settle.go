package oracle

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
)

// look is the time between two looks at whether the platform rests.
const look = 500 * time.Millisecond

// works is what each service still has to do. What is not needed for rest is waited for all the same, and becomes a
// violation of its own where it does not end: a charge without an outcome, a message that was not sent.
var works = []struct {
	database, what, sql string
	needed              bool
}{
	{orderDB, "orders that are not final", `SELECT count(*), coalesce(array_agg(order_id || ' (' || status || ')'), '{}') FROM (
		SELECT order_id, status, count(*) OVER () AS n FROM orders WHERE status NOT IN ('completed', 'failed', 'cancelled', 'attention') ORDER BY created_at LIMIT 1000) o`, true},
	{paymentDB, "charges without an outcome", `SELECT count(*), '{}'::text[] FROM payments WHERE due_at IS NOT NULL`, false},
	{paymentDB, "refunds without an outcome", `SELECT count(*), '{}'::text[] FROM refunds WHERE status IN ('requested', 'unknown')`, false},
	{shippingDB, "parcels on their way", `SELECT count(*), '{}'::text[] FROM shipments WHERE due_at IS NOT NULL`, false},
	{notificationDB, "messages to be sent", `SELECT count(*), '{}'::text[] FROM notices WHERE due_at IS NOT NULL`, false},
	{inventoryDB, "holds past their time", `SELECT count(*), '{}'::text[] FROM reservations WHERE state = 'HELD' AND due_at <= now()`, false},
}

// settle waits until nothing moves any more.
func settle(ctx context.Context, t Target, adm *kadm.Client, begin time.Time, say func(string, ...any)) error {
	conns := map[string]*pgx.Conn{}
	defer func() {
		for _, conn := range conns {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for _, name := range databaseNames {
		conn, err := connect(ctx, t.Postgres, name, true)
		if err != nil {
			return err
		}
		conns[name] = conn
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	said := ""
	for {
		needed, wanted, open, err := unrest(ctx, conns, adm)
		if err != nil {
			return err
		}
		if len(needed) == 0 && len(wanted) == 0 {
			return nil
		}
		if time.Since(begin) > t.Wait {
			if len(needed) == 0 {
				return nil // whatever does not end is a violation
			}
			return &Unsettled{Waited: t.Wait, Why: append(needed, wanted...), Open: open}
		}
		if now := fmt.Sprint(append(needed, wanted...)); now != said {
			said = now
			say("waiting for %s", now[1:len(now)-1])
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// unrest says what still moves.
func unrest(ctx context.Context, conns map[string]*pgx.Conn, adm *kadm.Client) (needed, wanted, open []string, err error) {
	for _, w := range works {
		var n int64
		var names []string
		if err := conns[w.database].QueryRow(ctx, w.sql).Scan(&n, &names); err != nil {
			return nil, nil, nil, fmt.Errorf("read database %s: %w", w.database, err)
		}
		switch {
		case n == 0:
		case w.needed:
			needed = append(needed, fmt.Sprintf("%d %s", n, w.what))
			open = names[:min(len(names), shown)]
		default:
			wanted = append(wanted, fmt.Sprintf("%d %s", n, w.what))
		}
	}
	for _, name := range databaseNames {
		var publishes bool
		var rows, early int64
		err := conns[name].QueryRow(ctx, `SELECT to_regclass('outbox') IS NOT NULL, (SELECT count(*) FROM early_events)`).Scan(&publishes, &early)
		if err == nil && publishes {
			err = conns[name].QueryRow(ctx, `SELECT count(*) FROM outbox WHERE published_at IS NULL`).Scan(&rows)
		}
		if err != nil {
			return nil, nil, nil, fmt.Errorf("read database %s: %w", name, err)
		}
		if rows > 0 {
			needed = append(needed, fmt.Sprintf("%d unpublished rows of %s", rows, name))
		}
		if early > 0 {
			wanted = append(wanted, fmt.Sprintf("%d early events in %s", early, name))
		}
	}
	spans, err := bounds(ctx, adm)
	if err != nil {
		return nil, nil, nil, err
	}
	behind, err := lag(ctx, adm, spans)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, what := range slices.Sorted(maps.Keys(behind)) {
		needed = append(needed, fmt.Sprintf("%s: %d records", what, behind[what]))
	}
	return needed, wanted, open, nil
}
