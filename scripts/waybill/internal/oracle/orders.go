package oracle

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/history"
)

// The rows that concern an order, of every service.
type (
	orderRow struct {
		ID                      string
		Tenant                  int64
		Customer                string
		Amount                  int64
		Currency, Method, Email string
		Products                []string
		Quantities              []int32
		Addressed               bool
		Status, Reason, Goods   string
		Shipment, Refund        int32
		CreatedAt               time.Time
		Key                     *string
	}
	historyRow struct {
		ID                    string
		At                    time.Time
		Event, Status, Detail string
	}
	knownRow struct {
		ID         string
		Tenant     int64
		Amount     int64
		Currency   string
		Closed     bool
		WrittenOff bool
	}
	paymentRow struct {
		ID                    string
		Tenant, Amount        int64
		Currency, Status, Ref string
		Attempts              int32
		Refunded              int64
		Closed                bool
	}
	refundRow struct {
		ID      string
		Attempt int32
		Status  string
	}
	bookingRow struct {
		ID                 string
		Kind               string
		Attempt            int32
		Account            string
		Debit, Credit      int64
		Currency, Key, Ref string
	}
	reservationRow struct {
		ID         string
		Tenant     int64
		State      string
		Products   []string
		Quantities []int64
		Reason     string
		Overdue    bool
	}
	moveRow struct {
		ID, Product, Op string
		Delta           int64
	}
	shippedRow struct {
		ID     string
		Tenant int64
		Paid   bool
	}
	shipmentRow struct {
		ID      string
		Attempt int32
		Status  string
	}
)

// dossier is all that is known about one order.
type dossier struct {
	id          string
	order       *orderRow
	history     []historyRow
	known       *knownRow
	payment     *paymentRow
	refunds     []refundRow
	bookings    []bookingRow
	reservation *reservationRow
	moves       []moveRow
	shipped     *shippedRow
	shipments   []shipmentRow
	books       booked
	asked       *asked // by the load process, where there was one
}

// lane is a query whose rows come by order id.
type lane interface {
	// next is the id of the next row; ok is false after the last.
	next(context.Context) (id string, ok bool, err error)
	// take adds every row of an order to its dossier.
	take(context.Context, *dossier) error
}

type rows[T any] struct {
	*cursor[T]
	id  func(*T) string
	add func(*dossier, *T)
}

func (r rows[T]) next(ctx context.Context) (string, bool, error) {
	row, err := r.head(ctx)
	if err != nil || row == nil {
		return "", false, err
	}
	return r.id(row), true, nil
}

func (r rows[T]) take(ctx context.Context, d *dossier) error {
	for {
		row, err := r.head(ctx)
		if err != nil || row == nil || r.id(row) != d.id {
			return err
		}
		r.add(d, row)
		r.skip()
	}
}

func open[T any](ctx context.Context, d *database, sql string, id func(*T) string, add func(*dossier, *T)) (lane, error) {
	c, err := declare[T](ctx, d, sql)
	return rows[T]{c, id, add}, err
}

const ordersSQL = `SELECT order_id, tenant, customer, amount, currency, method, email, product_ids, quantities, address IS NOT NULL,
		status, reason, goods, shipment, refund, created_at, key FROM orders ORDER BY order_id COLLATE "C"`

// lanes are all stores that know something by order id. COLLATE "C" sorts as Go compares.
func (c *check) lanes(ctx context.Context) ([]lane, error) {
	var ls []lane
	var failed error
	add := func(l lane, err error) {
		ls = append(ls, l)
		if failed == nil {
			failed = err
		}
	}
	add(open(ctx, c.db[orderDB], ordersSQL,
		func(r *orderRow) string { return r.ID }, func(d *dossier, r *orderRow) { d.order = r }))
	add(open(ctx, c.db[orderDB], `SELECT order_id, at, event, status, detail FROM order_history ORDER BY order_id COLLATE "C", id`,
		func(r *historyRow) string { return r.ID }, func(d *dossier, r *historyRow) { d.history = append(d.history, *r) }))
	add(open(ctx, c.db[paymentDB], `SELECT order_id, tenant_id, amount, currency, closed_at IS NOT NULL, written_off FROM known_orders ORDER BY order_id COLLATE "C"`,
		func(r *knownRow) string { return r.ID }, func(d *dossier, r *knownRow) { d.known = r }))
	add(open(ctx, c.db[paymentDB], `SELECT order_id, tenant_id, amount, currency, status, provider_ref, attempts, refunded, closed FROM payments ORDER BY order_id COLLATE "C"`,
		func(r *paymentRow) string { return r.ID }, func(d *dossier, r *paymentRow) { d.payment = r }))
	add(open(ctx, c.db[paymentDB], `SELECT order_id, attempt, status FROM refunds ORDER BY order_id COLLATE "C", attempt`,
		func(r *refundRow) string { return r.ID }, func(d *dossier, r *refundRow) { d.refunds = append(d.refunds, *r) }))
	add(open(ctx, c.db[paymentDB], `SELECT order_id, kind, attempt, account, debit, credit, currency, provider_key, provider_ref FROM ledger_entries ORDER BY order_id COLLATE "C", id`,
		func(r *bookingRow) string { return r.ID }, func(d *dossier, r *bookingRow) { d.bookings = append(d.bookings, *r) }))
	add(open(ctx, c.db[inventoryDB], `SELECT order_id, tenant, state, product_ids, quantities, reason, coalesce(due_at < now() - interval '30 s', false) FROM reservations ORDER BY order_id COLLATE "C"`,
		func(r *reservationRow) string { return r.ID }, func(d *dossier, r *reservationRow) { d.reservation = r }))
	add(open(ctx, c.db[inventoryDB], `SELECT order_id, product_id, op, delta FROM stock_ledger WHERE order_id IS NOT NULL ORDER BY order_id COLLATE "C", id`,
		func(r *moveRow) string { return r.ID }, func(d *dossier, r *moveRow) { d.moves = append(d.moves, *r) }))
	add(open(ctx, c.db[shippingDB], `SELECT order_id, tenant, paid_at IS NOT NULL FROM orders ORDER BY order_id COLLATE "C"`,
		func(r *shippedRow) string { return r.ID }, func(d *dossier, r *shippedRow) { d.shipped = r }))
	add(open(ctx, c.db[shippingDB], `SELECT order_id, attempt, status FROM shipments ORDER BY order_id COLLATE "C", attempt`,
		func(r *shipmentRow) string { return r.ID }, func(d *dossier, r *shipmentRow) { d.shipments = append(d.shipments, *r) }))
	return ls, failed
}

// readOrders goes through all orders once, in the order of their ids, with what every store knows about each.
func (c *check) readOrders(ctx context.Context) error {
	ls, err := c.lanes(ctx)
	if err != nil {
		return err
	}
	for n := int64(1); ; n++ {
		var d dossier
		found := false
		for _, l := range ls {
			id, ok, err := l.next(ctx)
			if err != nil {
				return err
			}
			if ok && (!found || id < d.id) {
				d.id, found = id, true
			}
		}
		if !found {
			break
		}
		for _, l := range ls {
			if err := l.take(ctx, &d); err != nil {
				return err
			}
		}
		if b := c.books[d.id]; b != nil {
			b.seen = true
			d.books = *b
		}
		if d.asked = c.asked[d.id]; d.asked != nil {
			d.asked.seen = true
		}
		c.judge(&d)
		if n%10_000 == 0 {
			c.say("%d orders compared", n)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.books)) {
		if b := c.books[id]; !b.seen {
			c.judge(&dossier{id: id, books: *b}) // provider or carrier know an order that nobody else does
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.asked)) {
		if a := c.asked[id]; !a.seen {
			c.promises(&dossier{id: id, asked: a})
		}
	}
	return nil
}

// judge checks one order.
func (c *check) judge(d *dossier) {
	if o := d.order; o != nil {
		c.counts["orders"]++
		c.counts["orders."+o.Status]++
		if o.Reason != "" {
			c.counts["orders."+o.Status+"."+o.Reason]++
		}
	}
	c.money(d)
	c.goods(d)
	c.parcels(d)
	c.saga(d)
	c.promises(d)
}

// saga checks the order's own row and timeline, and that everything else is where its status wants it.
func (c *check) saga(d *dossier) {
	o := d.order
	if o == nil {
		c.found.expect(len(d.history) == 0, "I-SAGA-2", d.id, "there is a timeline of %d lines and no order", len(d.history))
		return
	}
	c.found.expect(final(o.Status), "I-SAGA-1", d.id, "it is still %s", o.Status)
	want := map[ticket]bool{}
	if o.Status == "attention" {
		want[ticket{orderDB, o.Reason, d.id}] = true
	}
	for _, kind := range []string{"shipping_failed", "refund_failed"} {
		t := ticket{orderDB, kind, d.id}
		status := c.tickets[t]
		switch {
		case want[t]:
			// One that somebody discarded is closed, and the order waits all the same.
			c.found.expect(status == "open" || status == "discarded", "I-SAGA-1", d.id, "it is in attention (%s) and no ticket of that kind is open", o.Reason)
		case status == "open":
			c.found.broken("I-SAGA-1", d.id, "it is %s and a ticket %s is open", o.Status, kind)
		}
	}
	c.path(d)
}

// path checks that the timeline is one that the table allows, and ends where the order is.
func (c *check) path(d *dossier) {
	at := ""
	created := 0
	for i, l := range d.history {
		if l.Event == "order.created" {
			created++
		}
		switch {
		case i == 0:
			c.found.expect(l.Event == "order.created" && l.Status == "pending", "I-SAGA-2", d.id, "its timeline begins with %s, %s", l.Event, l.Status)
		case !allowed(at, l.Event, l.Status):
			c.found.broken("I-SAGA-2", d.id, "it went from %s to %s at %s, which the table does not have", at, l.Status, l.Event)
		}
		at = l.Status
	}
	c.found.expect(at == d.order.Status, "I-SAGA-2", d.id, "its timeline ends %q and it is %s", at, d.order.Status)
	c.found.expect(created == 1, "I-SAGA-2", d.id, "it was created %d times", created)
}

// asks is what the order's row says was asked for.
func (o *orderRow) asks() history.Order {
	items := map[string]int64{}
	for i, p := range o.Products {
		items[p] = int64(o.Quantities[i])
	}
	return history.Order{ID: o.ID, Amount: o.Amount, Currency: o.Currency, Method: o.Method, Email: o.Email, Items: items}
}
