package chaos

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/plan"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/workload"
)

// Gate is a path that a run must have taken for its verdict to mean something.
type Gate struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
}

// Missed lists the gates that were not reached.
func Missed(gates []Gate) []string {
	var names []string
	for _, g := range gates {
		if g.Count == 0 {
			names = append(names, g.Name)
		}
	}
	return names
}

// underWay are the statuses in which something is still to happen by itself.
var underWay = []string{"pending", "paying", "paid", "shipping", "cancelling"}

// gates counts how often each rare path was taken, from the databases, the counters and what
// clients were told. A gap in a key's sequence is not among them: relays send each key's
// events in order, so in a platform that works there is none; libs/inbox tests make them.
func gates(ctx context.Context, s plan.Settings, p *probe, kills []time.Time, counts workload.Counts) ([]Gate, error) {
	hit, stories, err := histories(ctx, s, kills)
	if err != nil {
		return nil, err
	}
	var redriven int64
	for _, name := range workload.Consumers {
		var n int64
		if err := queryRow(ctx, s.Database(name), `SELECT count(*) FROM parked_keys WHERE status = 'redriven'`, &n); err != nil {
			return nil, fmt.Errorf("count parked keys of %s: %w", name, err)
		}
		redriven += n
	}
	var all []Gate
	for _, status := range underWay {
		all = append(all, Gate{"a kill while an order is " + status, hit[status]})
	}
	takeovers := p.total("waybill_outbox_relay_takeovers_total")
	return append(all,
		Gate{"a late reservation refused", max(stories["stock.closed"], p.total("waybill_inventory_reservations_total", `reason="reservation_expired"`))},
		Gate{"a late capture refunded", stories["late capture"]},
		Gate{"an order out of stock", stories["out of stock"]},
		// Each service's first relay is not a take-over.
		Gate{"a relay taken over", max(takeovers-relays, 0)},
		Gate{"a paused relay evicted", p.total("waybill_outbox_relay_evictions_total")},
		Gate{"a duplicate delivery ignored", p.total("waybill_inbox_events_total", `outcome="duplicate"`)},
		Gate{"422: another body under a key", counts.Ops["create 422"]},
		Gate{"409: another order under an id", counts.Ops["create 409"]},
		Gate{"a request replayed", counts.Replayed},
		Gate{"a key parked and redriven", redriven},
	), nil
}

// relays is how many services publish events.
const relays = 4

func queryRow(ctx context.Context, url, sql string, out ...any) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return conn.QueryRow(ctx, sql).Scan(out...)
}

// histories reads the orders' timelines: how many orders stood in each status when a process
// was killed, and how often some stories were told.
func histories(ctx context.Context, s plan.Settings, kills []time.Time) (hit, stories map[string]int64, err error) {
	conn, err := pgx.Connect(ctx, s.Database("order"))
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	kills = slices.Clone(kills)
	slices.SortFunc(kills, time.Time.Compare)
	hit, stories = map[string]int64{}, map[string]int64{}
	rows, err := conn.Query(ctx, `SELECT order_id, at, event, status FROM order_history ORDER BY order_id, id`)
	if err != nil {
		return nil, nil, fmt.Errorf("read the orders' timelines: %w", err)
	}
	defer rows.Close()
	var last struct {
		order, status string
		at            time.Time
	}
	for rows.Next() {
		var order, event, status string
		var at time.Time
		if err := rows.Scan(&order, &at, &event, &status); err != nil {
			return nil, nil, err
		}
		if order == last.order && slices.Contains(underWay, last.status) {
			from, _ := slices.BinarySearchFunc(kills, last.at, time.Time.Compare)
			to, _ := slices.BinarySearchFunc(kills, at, time.Time.Compare)
			hit[last.status] += int64(to - from)
		}
		switch {
		case event == "stock.closed":
			stories["stock.closed"]++
		case event == "payment.processed" && status == "cancelling":
			stories["late capture"]++
		case event == "stock.refused":
			stories["out of stock"]++
		}
		last.order, last.status, last.at = order, status, at
	}
	return hit, stories, rows.Err()
}
