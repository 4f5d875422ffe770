package postgres

import (
	"context"
	"time"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

const (
	// Items of all orders travel in two flat arrays, of which each order has the slice [lo:hi]: rows of arrays of
	// different length cannot be unnested.
	insertReservations = `
INSERT INTO reservations (order_id, tenant, state, product_ids, quantities, total, currency, reason, event_seq, due_at, confirmed_at, closed_at)
SELECT o.order_id, o.tenant, o.state, ($11::text[])[o.lo:o.hi], ($12::bigint[])[o.lo:o.hi], o.total, o.currency, o.reason, o.event_seq, o.due_at,
       CASE WHEN o.state IN ('CONFIRMED', 'RETURNED') THEN now() END,
       CASE WHEN o.state IN ('RELEASED', 'EXPIRED', 'RETURNED') THEN now() END
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::int[], $5::int[], $6::bigint[], $7::text[], $8::text[], $9::bigint[], $10::timestamptz[])
  AS o(order_id, tenant, state, lo, hi, total, currency, reason, event_seq, due_at)
ON CONFLICT DO NOTHING`

	updateReservations = `
UPDATE reservations r
SET state = o.state, product_ids = ($11::text[])[o.lo:o.hi], quantities = ($12::bigint[])[o.lo:o.hi], total = o.total, currency = o.currency,
    reason = o.reason, event_seq = o.event_seq, due_at = o.due_at,
    confirmed_at = CASE WHEN o.state IN ('CONFIRMED', 'RETURNED') THEN COALESCE(r.confirmed_at, now()) END,
    closed_at = CASE WHEN o.state IN ('RELEASED', 'EXPIRED', 'RETURNED') THEN COALESCE(r.closed_at, now()) END
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::int[], $5::int[], $6::bigint[], $7::text[], $8::text[], $9::bigint[], $10::timestamptz[], $13::text[])
  AS o(order_id, tenant, state, lo, hi, total, currency, reason, event_seq, due_at, was)
WHERE r.order_id = o.order_id AND r.tenant = o.tenant AND r.state = o.was`

	updateProducts = `
UPDATE products p
SET on_hand = p.on_hand + c.on_hand, reserved = p.reserved + c.reserved, event_seq = c.event_seq, updated_at = now()
FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) AS c(tenant, product_id, on_hand, reserved, event_seq)
WHERE p.tenant = c.tenant AND p.product_id = c.product_id`

	insertMoves = `
INSERT INTO stock_ledger (tenant, product_id, order_id, document, op, delta, balance, reason, actor)
SELECT m.tenant, m.product_id, NULLIF(m.order_id, ''), NULLIF(m.document, ''), m.op, m.delta, m.balance, m.reason, m.actor
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::text[], $9::text[])
  WITH ORDINALITY AS m(tenant, product_id, order_id, document, op, delta, balance, reason, actor, n)
ORDER BY m.n`
)

// save queues what the book has changed and the events that tell of it.
func (s *Store) save(ctx context.Context, u *pg.Unit, b *stock.Book) {
	var fresh, known reservationRows
	for _, c := range b.Reservations() {
		if c.Was == stock.None {
			fresh.add(c)
		} else {
			known.add(c)
		}
	}
	if n := len(fresh.order); n > 0 {
		// Fewer rows than sent: another replica made one of them since the lock. The unit runs again and sees it.
		u.Guard(n, insertReservations, fresh.args()...)
	}
	if n := len(known.order); n > 0 {
		u.Guard(n, updateReservations, append(known.args(), known.was)...)
	}
	if changes := b.Products(); len(changes) > 0 {
		var tenant, onHand, reserved, seq []int64
		var product []string
		for _, c := range changes {
			tenant, product = append(tenant, c.Tenant), append(product, c.Product)
			onHand, reserved, seq = append(onHand, c.OnHand), append(reserved, c.Reserved), append(seq, c.EventSeq)
		}
		u.Guard(len(changes), updateProducts, tenant, product, onHand, reserved, seq)
	}
	if moves := b.Moves(); len(moves) > 0 {
		writeMoves(u, moves)
	}
	s.out.Add(u, events(ctx, b.Notes())...)
}

func writeMoves(u *pg.Unit, moves []stock.Move) {
	n := len(moves)
	tenant, delta, balance := make([]int64, n), make([]int64, n), make([]int64, n)
	product, order, document, op, reason, actor := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	for i, m := range moves {
		tenant[i], product[i], order[i], document[i], op[i] = m.Tenant, m.Product, m.OrderID, m.Document, string(m.Op)
		delta[i], balance[i], reason[i], actor[i] = m.Delta, m.Balance, m.Reason, m.Actor
	}
	u.Write(insertMoves, tenant, product, order, document, op, delta, balance, reason, actor)
}

// reservationRows are reservations as columns, for unnest.
type reservationRows struct {
	order, state, currency, reason, was []string
	tenant, total, seq                  []int64
	lo, hi                              []int32 // from 1
	due                                 []*time.Time
	products                            []string
	quantities                          []int64
}

func (r *reservationRows) add(c stock.ReservationChange) {
	r.order, r.state, r.was = append(r.order, c.OrderID), append(r.state, string(c.State)), append(r.was, string(c.Was))
	r.tenant, r.total, r.currency = append(r.tenant, c.Tenant), append(r.total, c.Total), append(r.currency, c.Currency)
	r.reason, r.seq = append(r.reason, c.Reason), append(r.seq, c.EventSeq)
	var due *time.Time
	if !c.Due.IsZero() {
		due = &c.Due
	}
	r.due = append(r.due, due)
	r.lo = append(r.lo, int32(len(r.products)+1))
	for _, it := range c.Items {
		r.products, r.quantities = append(r.products, it.Product), append(r.quantities, it.Quantity)
	}
	r.hi = append(r.hi, int32(len(r.products)))
}

func (r *reservationRows) args() []any {
	// An empty slice, not nil: a slice of a NULL array is NULL.
	if r.products == nil {
		r.products, r.quantities = []string{}, []int64{}
	}
	return []any{r.order, r.tenant, r.state, r.lo, r.hi, r.total, r.currency, r.reason, r.seq, r.due, r.products, r.quantities}
}
