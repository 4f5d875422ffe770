package oracle

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// stories are where the timelines of orders come from. None shows personal data.
var stories = []struct{ database, from, sql string }{
	{orderDB, "order", `SELECT order_id, at, event, status, detail FROM order_history WHERE order_id = ANY($1) ORDER BY id LIMIT 2000`},
	{paymentDB, "payment", `SELECT order_id, booked_at, 'booked ' || kind, '', debit || ' ' || currency || ' ' || provider_key FROM ledger_entries WHERE order_id = ANY($1) AND debit > 0 ORDER BY id`},
	{inventoryDB, "inventory", `SELECT order_id, at, 'booked ' || op, '', delta || ' of ' || product_id FROM stock_ledger WHERE order_id = ANY($1) ORDER BY id`},
	{inventoryDB, "inventory", `SELECT order_id, coalesce(closed_at, confirmed_at, created_at), 'reservation', state, reason FROM reservations WHERE order_id = ANY($1)`},
	{shippingDB, "shipping", `SELECT order_id, updated_at, 'shipment ' || attempt, status, reason FROM shipments WHERE order_id = ANY($1) ORDER BY attempt`},
	{notificationDB, "notification", `SELECT order_id, coalesce(finished_at, created_at), 'message ' || kind, status, last_error FROM notices WHERE order_id = ANY($1) ORDER BY seq`},
}

// timelines gives each order that a violation names what every store says of it.
func (c *check) timelines(ctx context.Context) error {
	ids := c.found.orders()
	if len(ids) == 0 {
		return nil
	}
	lines := map[string][]Line{}
	for _, s := range stories {
		rows, err := c.db[s.database].tx.Query(ctx, s.sql, ids)
		if err != nil {
			return fmt.Errorf("read database %s: %w", s.database, err)
		}
		var id string
		var at time.Time
		var l Line
		_, err = pgx.ForEachRow(rows, []any{&id, &at, &l.Event, &l.Status, &l.Detail}, func() error {
			l.At, l.From = at.UTC(), s.from
			lines[id] = append(lines[id], l)
			return nil
		})
		if err != nil {
			return fmt.Errorf("read database %s: %w", s.database, err)
		}
	}
	for _, id := range ids {
		if b := c.books[id]; b != nil {
			for _, e := range slices.Concat(b.money, b.parcels) {
				l := Line{At: e.At.UTC(), From: "outside", Event: e.Kind, Detail: e.Key}
				if e.Amount != 0 {
					l.Detail = fmt.Sprintf("%d %s %s", e.Amount, e.Currency, e.Key)
				}
				lines[id] = append(lines[id], l)
			}
		}
		slices.SortStableFunc(lines[id], func(a, b Line) int { return a.At.Compare(b.At) })
	}
	for _, f := range c.found.byName {
		for i := range f.Violations {
			f.Violations[i].Timeline = lines[f.Violations[i].Order]
		}
	}
	return nil
}
