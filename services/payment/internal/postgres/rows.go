package postgres

import (
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/payment/internal/payment"
)

// The types here gather rows column by column, the shape that unnest takes them in.

type orderRows struct {
	ids, customers, currencies []string
	tenants, amounts           []int64
	closed, writtenOff         []bool
}

func (x *orderRows) add(o *payment.Order) {
	x.ids = append(x.ids, o.ID)
	x.tenants = append(x.tenants, o.Tenant)
	x.customers = append(x.customers, o.Customer)
	x.amounts = append(x.amounts, o.Amount)
	x.currencies = append(x.currencies, o.Currency)
	x.closed = append(x.closed, o.Closed)
	x.writtenOff = append(x.writtenOff, o.WrittenOff)
}

func (x *orderRows) insert(u *pg.Unit) {
	if len(x.ids) == 0 {
		return
	}
	u.Write(`INSERT INTO known_orders (order_id, tenant_id, customer, amount, currency, closed_at, written_off)
		SELECT n.id, n.tenant, n.customer, n.amount, n.currency, CASE WHEN n.closed THEN now() END, n.written_off
		FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::bool[], $7::bool[])
			AS n(id, tenant, customer, amount, currency, closed, written_off)`,
		x.ids, x.tenants, x.customers, x.amounts, x.currencies, x.closed, x.writtenOff)
}

func (x *orderRows) close(u *pg.Unit) {
	if len(x.ids) == 0 {
		return
	}
	u.Write(`UPDATE known_orders k SET closed_at = COALESCE(k.closed_at, now()), written_off = n.written_off
		FROM unnest($1::text[], $2::bool[]) AS n(id, written_off) WHERE k.order_id = n.id`, x.ids, x.writtenOff)
}

type paymentRows struct {
	ids, customers, currencies, methods, statuses, refs, reasons, traces []string
	tenants, amounts, seqs, refunded                                     []int64
	attempts, asks                                                       []int32
	sent, closed, writtenOff, keep                                       []bool
	due                                                                  []*float64
}

func (x *paymentRows) add(p *payment.Payment, d due) {
	x.ids = append(x.ids, p.OrderID)
	x.tenants = append(x.tenants, p.Tenant)
	x.customers = append(x.customers, p.Customer)
	x.amounts = append(x.amounts, p.Amount)
	x.currencies = append(x.currencies, p.Currency)
	x.methods = append(x.methods, p.Method)
	x.statuses = append(x.statuses, string(p.Status))
	x.seqs = append(x.seqs, p.Seq)
	x.attempts = append(x.attempts, int32(p.Attempts))
	x.asks = append(x.asks, int32(p.Asks))
	x.sent = append(x.sent, p.Sent)
	x.refs = append(x.refs, p.ProviderRef)
	x.reasons = append(x.reasons, p.Reason)
	x.closed = append(x.closed, p.Closed)
	x.writtenOff = append(x.writtenOff, p.WrittenOff)
	x.refunded = append(x.refunded, p.Refunded)
	x.traces = append(x.traces, p.Traceparent)
	x.keep = append(x.keep, d.keep)
	x.due = append(x.due, d.seconds)
}

func (x *paymentRows) insert(u *pg.Unit) {
	if len(x.ids) == 0 {
		return
	}
	u.Write(`INSERT INTO payments (order_id, tenant_id, customer, amount, currency, method, status, event_seq, attempts, sent, reason,
			closed, written_off, traceparent, due_at, finished_at)
		SELECT n.id, n.tenant, n.customer, n.amount, n.currency, n.method, n.status, n.seq, n.attempts, n.sent, n.reason,
			n.closed, n.written_off, n.trace, clock_timestamp() + make_interval(secs => n.due),
			CASE WHEN n.status NOT IN ('initiated', 'unknown') THEN now() END
		FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::int[],
			$10::bool[], $11::text[], $12::bool[], $13::bool[], $14::text[], $15::float8[])
			AS n(id, tenant, customer, amount, currency, method, status, seq, attempts, sent, reason, closed, written_off, trace, due)`,
		x.ids, x.tenants, x.customers, x.amounts, x.currencies, x.methods, x.statuses, x.seqs, x.attempts,
		x.sent, x.reasons, x.closed, x.writtenOff, x.traces, x.due)
}

func (x *paymentRows) update(u *pg.Unit) {
	if len(x.ids) == 0 {
		return
	}
	u.Write(`UPDATE payments p SET status = n.status, event_seq = n.seq, attempts = n.attempts, asks = n.asks, sent = n.sent,
			provider_ref = n.ref, reason = n.reason, closed = n.closed, written_off = n.written_off, refunded = n.refunded,
			due_at = CASE WHEN n.keep THEN p.due_at ELSE clock_timestamp() + make_interval(secs => n.due) END,
			finished_at = CASE WHEN n.status IN ('initiated', 'unknown') THEN NULL ELSE COALESCE(p.finished_at, now()) END
		FROM unnest($1::text[], $2::text[], $3::bigint[], $4::int[], $5::int[], $6::bool[], $7::text[], $8::text[],
			$9::bool[], $10::bool[], $11::bigint[], $12::bool[], $13::float8[])
			AS n(id, status, seq, attempts, asks, sent, ref, reason, closed, written_off, refunded, keep, due)
		WHERE p.order_id = n.id`,
		x.ids, x.statuses, x.seqs, x.attempts, x.asks, x.sent, x.refs, x.reasons, x.closed, x.writtenOff, x.refunded, x.keep, x.due)
}

type refundRows struct {
	ids, statuses, refs, reasons []string
	attempts, tries              []int32
	sent, keep                   []bool
	due                          []*float64
}

func (x *refundRows) add(r *payment.Refund, d due) {
	x.ids = append(x.ids, r.OrderID)
	x.attempts = append(x.attempts, int32(r.Attempt))
	x.statuses = append(x.statuses, string(r.Status))
	x.tries = append(x.tries, int32(r.Tries))
	x.sent = append(x.sent, r.Sent)
	x.refs = append(x.refs, r.ProviderRef)
	x.reasons = append(x.reasons, r.Reason)
	x.keep = append(x.keep, d.keep)
	x.due = append(x.due, d.seconds)
}

func (x *refundRows) insert(u *pg.Unit) {
	if len(x.ids) == 0 {
		return
	}
	u.Write(`INSERT INTO refunds (order_id, attempt, status, sent, reason, due_at, finished_at)
		SELECT n.id, n.attempt, n.status, n.sent, n.reason, clock_timestamp() + make_interval(secs => n.due),
			CASE WHEN n.status NOT IN ('requested', 'unknown') THEN now() END
		FROM unnest($1::text[], $2::int[], $3::text[], $4::bool[], $5::text[], $6::float8[]) AS n(id, attempt, status, sent, reason, due)`,
		x.ids, x.attempts, x.statuses, x.sent, x.reasons, x.due)
}

func (x *refundRows) update(u *pg.Unit) {
	if len(x.ids) == 0 {
		return
	}
	u.Write(`UPDATE refunds r SET status = n.status, tries = n.tries, sent = r.sent OR n.sent, provider_ref = n.ref, reason = n.reason,
			due_at = CASE WHEN n.keep THEN r.due_at ELSE clock_timestamp() + make_interval(secs => n.due) END,
			finished_at = CASE WHEN n.status IN ('requested', 'unknown') THEN NULL ELSE COALESCE(r.finished_at, now()) END
		FROM unnest($1::text[], $2::int[], $3::text[], $4::int[], $5::bool[], $6::text[], $7::text[], $8::bool[], $9::float8[])
			AS n(id, attempt, status, tries, sent, ref, reason, keep, due)
		WHERE r.order_id = n.id AND r.attempt = n.attempt`,
		x.ids, x.attempts, x.statuses, x.tries, x.sent, x.refs, x.reasons, x.keep, x.due)
}

type ledgerRows struct {
	ids, kinds, accounts, currencies, keys, refs []string
	tenants, debits, credits                     []int64
	attempts                                     []int32
}

func (x *ledgerRows) add(p *payment.Payment, b payment.Booking) {
	switch b.Kind {
	case payment.BookCapture:
		x.pair(p, b, "capture", payment.ChargeKey(p.OrderID), "provider", "orders")
	case payment.BookRefund:
		x.pair(p, b, "refund", payment.RefundKey(p.OrderID, b.Attempt), "orders", "provider")
	case payment.BookWriteOff:
		x.pair(p, b, "write_off", "", "orders", "outside")
	}
}

func (x *ledgerRows) pair(p *payment.Payment, b payment.Booking, kind, key, debit, credit string) {
	for i, account := range []string{debit, credit} {
		x.ids = append(x.ids, p.OrderID)
		x.tenants = append(x.tenants, p.Tenant)
		x.kinds = append(x.kinds, kind)
		x.attempts = append(x.attempts, int32(b.Attempt))
		x.accounts = append(x.accounts, account)
		x.debits = append(x.debits, p.Amount*int64(1-i))
		x.credits = append(x.credits, p.Amount*int64(i))
		x.currencies = append(x.currencies, p.Currency)
		x.keys = append(x.keys, key)
		x.refs = append(x.refs, b.Ref)
	}
}

func (x *ledgerRows) insert(u *pg.Unit) {
	if len(x.ids) == 0 {
		return
	}
	u.Write(`INSERT INTO ledger_entries (order_id, tenant_id, kind, attempt, account, debit, credit, currency, provider_key, provider_ref)
		SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::int[], $5::text[], $6::bigint[], $7::bigint[], $8::text[],
			$9::text[], $10::text[])`,
		x.ids, x.tenants, x.kinds, x.attempts, x.accounts, x.debits, x.credits, x.currencies, x.keys, x.refs)
}
