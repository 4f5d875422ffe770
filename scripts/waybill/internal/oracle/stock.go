package oracle

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// goods checks what was set aside, sold and returned for one order.
func (c *check) goods(d *dossier) {
	o, r := d.order, d.reservation
	if r != nil {
		c.counts["reservations."+r.State]++
	}
	// The ledger has a line for each item of a confirmed reservation, and one back for each of a returned one.
	out, back := map[string]int64{}, map[string]int64{}
	for _, m := range d.moves {
		switch m.Op {
		case "confirmed":
			out[m.Product] -= m.Delta
		case "returned":
			back[m.Product] += m.Delta
		}
	}
	items := map[string]int64{}
	if r != nil && (r.State == "CONFIRMED" || r.State == "RETURNED") {
		for i, p := range r.Products {
			items[p] += r.Quantities[i]
		}
	}
	if r != nil || len(d.moves) > 0 {
		c.found.expect(maps.Equal(out, items), "I-STOCK-3", d.id, "the reservation is %s with %s, and %s were booked out", state(r), said(items), said(out))
		if r == nil || r.State != "RETURNED" {
			items = map[string]int64{}
		}
		c.found.expect(maps.Equal(back, items), "I-STOCK-3", d.id, "the reservation is %s, and %s were booked back", state(r), said(back))
	}
	if r != nil && (r.State == "HELD" || r.State == "PINNED") {
		c.found.expect(r.State != "HELD" || !r.Overdue, "I-STOCK-5", d.id, "its hold is overdue")
		// An order whose refund failed for good before anything was sent keeps its pin until a person has decided.
		undecided := o != nil && (!final(o.Status) || o.Status == "attention")
		c.found.expect(r.State != "PINNED" || undecided, "I-STOCK-5", d.id, "stock is pinned for it, and it %s", whereabouts(o))
	}
	if o == nil {
		return
	}
	if len(o.Products) == 0 {
		c.found.expect(len(d.moves) == 0, "I-STOCK-3", d.id, "it has no items, and %s were booked out", said(out))
		return
	}
	owed := c.tickets[ticket{inventoryDB, "stock_short", d.id}] != "" // a person sees to it
	ok := true
	switch o.Status {
	case "completed":
		ok = state(r) == "CONFIRMED" || owed
	case "paid", "shipping":
		ok = state(r) == "CONFIRMED" || state(r) == "PINNED" || owed
	case "attention":
		if o.Reason == "shipping_failed" || o.Shipment > 0 {
			ok = state(r) == "CONFIRMED" || owed
		} else {
			ok = state(r) == "RELEASED" || state(r) == "EXPIRED" || state(r) == "PINNED" || state(r) == "HELD" || r == nil
		}
	case "failed":
		ok = state(r) == "RELEASED" || state(r) == "EXPIRED" || r == nil
	case "cancelled":
		switch {
		case o.Goods == "returned":
			ok = state(r) == "RETURNED" || owed
		case o.Goods == "lost":
			ok = state(r) == "CONFIRMED" || owed // the loss is booked
		default:
			ok = state(r) == "RELEASED" || state(r) == "EXPIRED" || r == nil
		}
	}
	// A reservation of another tenant under the same id is none of the order's.
	foreign := r != nil && r.Tenant != o.Tenant
	c.found.expect(ok || foreign, "I-SAGA-1", d.id, "it is %s %s, and its reservation is %s", o.Status, o.Reason, state(r))
	if len(out) > 0 && !foreign {
		asked := o.asks().Items
		c.found.expect(maps.Equal(out, asked), "I-STOCK-3", d.id, "%s were ordered and %s booked out", said(asked), said(out))
	}
	if o.Status == "failed" && o.Reason == "reservation_expired" {
		c.counts["reservations.late_refused"]++
	}
}

func state(r *reservationRow) string {
	if r == nil {
		return "missing"
	}
	return r.State
}

func whereabouts(o *orderRow) string {
	if o == nil {
		return "does not exist"
	}
	return "is " + o.Status
}

// said words items.
func said(items map[string]int64) string {
	if len(items) == 0 {
		return "none"
	}
	text := ""
	for _, p := range slices.Sorted(maps.Keys(items)) {
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf("%d of %s", items[p], p)
	}
	return text
}

// parcels checks what was sent for one order, in shipping's table and at the carrier.
func (c *check) parcels(d *dossier) {
	o := d.order
	sent, delivered, lost := map[int]int{}, map[int]int{}, map[int]int{}
	for _, e := range d.books.parcels {
		switch e.Kind {
		case "ship":
			sent[e.Attempt]++
		case "deliver":
			delivered[e.Attempt]++
		case "ship_failed":
			lost[e.Attempt]++
		}
	}
	for attempt, n := range sent {
		c.found.expect(n == 1, "I-ADDR", d.id, "the carrier took parcel %d %d times", attempt, n)
		known := slices.ContainsFunc(d.shipments, func(s shipmentRow) bool { return int(s.Attempt) == attempt })
		c.found.expect(known, "I-ADDR", d.id, "the carrier has parcel %d, and there is no such shipment", attempt)
	}
	for _, s := range d.shipments {
		c.counts["shipments."+s.Status]++
		c.found.expect(o != nil && (o.Addressed || o.Shipment == 0), "I-ADDR", d.id, "shipment %d has no order with an address", s.Attempt)
		n := int(s.Attempt)
		c.found.expect((s.Status == "delivered") == (delivered[n] == 1) && delivered[n] <= 1, "I-ADDR", d.id,
			"shipment %d is %s, and the carrier delivered it %d times", s.Attempt, s.Status, delivered[n])
		c.found.expect(s.Status == "delivered" || s.Status == "failed", "I-SAGA-1", d.id, "shipment %d is still %s", s.Attempt, s.Status)
		c.found.expect(o == nil || s.Attempt <= max(o.Shipment, 1), "I-ADDR", d.id, "shipment %d was never asked for", s.Attempt)
	}
	if o == nil || len(o.Products) == 0 {
		return
	}
	c.found.expect(o.Addressed, "I-ADDR", d.id, "it has items and no address")
	current := ""
	for _, s := range d.shipments {
		if s.Attempt == o.Shipment {
			current = s.Status
		}
	}
	switch {
	case o.Status == "completed":
		c.found.expect(current == "delivered", "I-SAGA-1", d.id, "it is completed, and its shipment is %q", current)
	case o.Status == "attention" && o.Reason == "shipping_failed":
		c.found.expect(current == "failed", "I-SAGA-1", d.id, "it needs attention for its shipment, which is %q", current)
	case o.Status == "failed", o.Status == "cancelled" && o.Shipment == 0:
		c.found.expect(len(d.shipments) == 0 && len(sent) == 0, "I-ADDR", d.id, "it is %s and was sent", o.Status)
	}
}

// readStock checks the stock of each product: its row, the ledger and the reservations.
func (c *check) readStock(ctx context.Context) error {
	type product struct {
		Tenant                               int64
		ID                                   string
		OnHand, Reserved                     int64
		Booked, Last, Promised, Sold, Bought int64
	}
	d := c.db[inventoryDB]
	err := each(ctx, d, func(p *product) error {
		c.counts["products"]++
		name := fmt.Sprintf("stock:%d:%s", p.Tenant, p.ID)
		c.found.expect(p.OnHand == p.Booked, "I-STOCK-1", name, "%d are on hand, and the ledger adds up to %d", p.OnHand, p.Booked)
		c.found.expect(0 <= p.Reserved && p.Reserved <= p.OnHand, "I-STOCK-1", name, "%d are on hand and %d reserved", p.OnHand, p.Reserved)
		c.found.expect(p.Reserved == p.Promised, "I-STOCK-2", name, "%d are reserved, and reservations say %d", p.Reserved, p.Promised)
		c.found.expect(p.Sold == p.Bought, "I-STOCK-3", name, "%d were booked out for orders and not back, and confirmed reservations have %d", p.Sold, p.Bought)
		c.found.expect(p.Last == p.OnHand, "I-STOCK-4", name, "the ledger's last balance is %d, and %d are on hand", p.Last, p.OnHand)
		return nil
	}, `SELECT p.tenant, p.product_id, p.on_hand, p.reserved, coalesce(l.sum, 0)::bigint, coalesce(l.last, 0)::bigint, coalesce(r.promised, 0)::bigint,
			coalesce(l.sold, 0)::bigint, coalesce(r.bought, 0)::bigint
		FROM products p
		LEFT JOIN (SELECT tenant, product_id, sum(delta), (array_agg(balance ORDER BY id DESC))[1] AS last,
				sum(-delta) FILTER (WHERE op IN ('confirmed', 'returned')) AS sold
			FROM stock_ledger GROUP BY tenant, product_id) l USING (tenant, product_id)
		LEFT JOIN (SELECT o.tenant, i.product_id, sum(i.quantity) FILTER (WHERE o.state IN ('HELD', 'PINNED')) AS promised,
				sum(i.quantity) FILTER (WHERE o.state = 'CONFIRMED') AS bought
			FROM reservations o, unnest(o.product_ids, o.quantities) AS i(product_id, quantity)
			WHERE o.state IN ('HELD', 'PINNED', 'CONFIRMED') GROUP BY o.tenant, i.product_id) r USING (tenant, product_id)`)
	if err != nil {
		return err
	}
	type movement struct {
		ID, Tenant     int64
		Product        string
		Order          *string
		Op             string
		Delta, Balance int64
		Should         int64
		Times          int64
		Stocked        bool
	}
	var lines int64
	if err := d.tx.QueryRow(ctx, `SELECT count(*) FROM stock_ledger`).Scan(&lines); err != nil {
		return err
	}
	c.found.looked("I-STOCK-4", lines)
	c.counts["stock.movements"] = lines
	err = each(ctx, d, func(m *movement) error {
		name := fmt.Sprintf("stock:%d:%s", m.Tenant, m.Product)
		if m.Order != nil {
			name = *m.Order
		}
		switch {
		case !m.Stocked:
			c.found.broken("I-STOCK-4", name, "line %d of the ledger moves %s, which does not exist", m.ID, m.Product)
		case m.Times > 1:
			c.found.broken("I-STOCK-4", name, "%s of %s was booked %d times", m.Op, m.Product, m.Times)
		default:
			c.found.broken("I-STOCK-4", name, "line %d of the ledger (%s of %s, %d) leaves %d, and the lines so far add up to %d", m.ID, m.Op, m.Product, m.Delta, m.Balance, m.Should)
		}
		return nil
	}, `SELECT l.id, l.tenant, l.product_id, l.order_id, l.op, l.delta, l.balance, l.should, l.times, p.tenant IS NOT NULL FROM (
			SELECT id, tenant, product_id, order_id, op, delta, balance, (sum(delta) OVER (PARTITION BY tenant, product_id ORDER BY id))::bigint AS should,
				count(*) OVER (PARTITION BY product_id, tenant, coalesce(order_id, document), order_id IS NULL, op) AS times
			FROM stock_ledger) l
		LEFT JOIN products p USING (tenant, product_id)
		WHERE l.balance <> l.should OR l.times > 1 OR p.tenant IS NULL`)
	if err != nil {
		return err
	}
	return c.appendOnly(ctx, d, "I-STOCK-4", "stock_ledger")
}
