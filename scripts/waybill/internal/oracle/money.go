package oracle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
)

// money checks what was charged and given back for one order: at the provider, in our ledger, and in the payment's row.
func (c *check) money(d *dossier) {
	o, p := d.order, d.payment
	var captured, refunded int64
	captures := 0
	for _, e := range d.books.money {
		if e.Kind == "capture" {
			captured += e.Amount
			captures++
		} else {
			refunded += e.Amount
		}
		if o != nil {
			c.found.expect(e.Currency == o.Currency, "I-PAY-1", d.id, "the provider moved %s, the order is in %s", e.Currency, o.Currency)
		}
	}
	if captures > 0 {
		c.found.expect(captures == 1, "I-PAY-2", d.id, "the provider captured %d times", captures)
	}
	var outside int64
	for _, b := range d.bookings {
		if b.Kind == "write_off" && b.Account == "outside" {
			outside += b.Credit
		}
	}
	if outside > 0 {
		c.counts["payments.write_offs"]++
	}
	if o == nil {
		c.found.expect(captured == refunded, "I-PAY-1", d.id, "the provider holds %d for an order that does not exist", captured-refunded)
	} else {
		want := o.Amount
		refundable := false
		switch {
		case o.Status == "failed" || o.Status == "cancelled":
			want = 0
			// A refund that failed for good on a closed order is an intervention of the payment service.
			refundable = c.tickets[ticket{paymentDB, "refund_failed", d.id}] != ""
		case o.Status == "pending" || o.Status == "paying" || o.Status == "cancelling":
			want = captured - refunded - outside // not decided yet; I-SAGA-1 says so
		}
		net := captured - refunded - outside
		c.found.expect(net == want || refundable && net == o.Amount, "I-PAY-1", d.id,
			"it is %s over %d %s; the provider captured %d and refunded %d, and %d were returned outside", o.Status, o.Amount, o.Currency, captured, refunded, outside)
		if want == 0 && captured > 0 && refunded > 0 {
			c.counts["payments.refunded"]++
			if o.Refund == 0 {
				c.counts["payments.late_refunds"]++ // nobody asked: the capture landed on a closed order
			}
		}
	}
	c.ledger(d)
	if p == nil {
		c.found.expect(o == nil || o.Status != "completed" && o.Status != "paid" && o.Status != "shipping", "I-PAY-1", d.id, "it is %s and has no payment", status(o))
		return
	}
	c.counts["payments."+p.Status]++
	c.found.expect(o == nil || o.Amount == p.Amount && o.Currency == p.Currency && o.Tenant == p.Tenant, "I-PAY-4", d.id,
		"the payment is over %d %s, the order over %d %s", p.Amount, p.Currency, amount(o), currency(o))
	if o != nil && (o.Status == "cancelled" || o.Status == "failed") {
		open := p.Status == "captured" && c.tickets[ticket{paymentDB, "refund_failed", d.id}] == ""
		c.found.expect(!open, "I-PAY-3", d.id, "it is %s and its payment is still captured", o.Status)
	}
	if o != nil && (o.Status == "completed" || o.Status == "paid" || o.Status == "shipping") {
		c.found.expect(p.Status == "captured", "I-PAY-1", d.id, "it is %s and its payment is %s", o.Status, p.Status)
	}
	c.found.expect(p.Status != "initiated" && p.Status != "unknown", "I-PAY-6", d.id, "its payment is still %s", p.Status)
	for _, r := range d.refunds {
		c.found.expect(r.Status != "requested" && r.Status != "unknown", "I-PAY-6", d.id, "refund %d is still %s", r.Attempt, r.Status)
	}
	if p.Attempts > 1 {
		c.counts["payments.retried"]++
	}
}

func status(o *orderRow) string {
	if o == nil {
		return ""
	}
	return o.Status
}

func amount(o *orderRow) int64 {
	if o == nil {
		return 0
	}
	return o.Amount
}

func currency(o *orderRow) string {
	if o == nil {
		return ""
	}
	return o.Currency
}

// ledger compares our bookings with the provider's facts, both ways, and each with itself.
func (c *check) ledger(d *dossier) {
	theirs := map[string]Entry{}
	for _, e := range d.books.money {
		theirs[e.Kind+" "+e.Key] = e
	}
	sides := map[string][]bookingRow{}
	for _, b := range d.bookings {
		name := fmt.Sprintf("%s %d", b.Kind, b.Attempt)
		sides[name] = append(sides[name], b)
		if d.payment == nil {
			c.found.broken("I-PAY-4", d.id, "our ledger has a %s and there is no payment", b.Kind)
		}
		if b.Account != "provider" {
			continue
		}
		e, ok := theirs[b.Kind+" "+b.Key]
		delete(theirs, b.Kind+" "+b.Key)
		switch {
		case !ok:
			c.found.broken("I-PAY-4", d.id, "our ledger has a %s of %d under %s, the provider has none", b.Kind, b.Debit+b.Credit, b.Key)
		case e.Amount != b.Debit+b.Credit || e.Currency != b.Currency:
			c.found.broken("I-PAY-4", d.id, "our ledger has a %s of %d %s under %s, the provider's is of %d %s", b.Kind, b.Debit+b.Credit, b.Currency, b.Key, e.Amount, e.Currency)
		case b.Ref != reference(e):
			c.found.broken("I-PAY-4", d.id, "our ledger names the provider's %s %s %q, it is %q", b.Kind, b.Key, b.Ref, reference(e))
		default:
			c.found.looked("I-PAY-4", 1)
		}
	}
	for _, e := range theirs {
		c.found.broken("I-PAY-4", d.id, "the provider has a %s of %d %s under %s, our ledger has none", e.Kind, e.Amount, e.Currency, e.Key)
	}
	for name, pair := range sides {
		var debit, credit int64
		accounts := []string{}
		for _, b := range pair {
			debit, credit = debit+b.Debit, credit+b.Credit
			accounts = append(accounts, b.Account)
		}
		slices.Sort(accounts)
		c.found.expect(debit == credit && debit > 0 && len(slices.Compact(accounts)) == 2 && len(pair) == 2, "I-PAY-5", d.id,
			"booking %s has %d sides, %d debit and %d credit", name, len(pair), debit, credit)
	}
}

// reference is the name that the provider gives to a charge or a refund; of a charge its ledger has the key only, from
// which the name is derived.
func reference(e Entry) string {
	if e.ID != "" {
		return e.ID
	}
	sum := sha256.Sum256([]byte(e.Key))
	return "ch_" + hex.EncodeToString(sum[:10])
}

// readLedger checks our ledger as a whole.
func (c *check) readLedger(ctx context.Context) error {
	type total struct {
		Currency      string
		Debit, Credit int64
	}
	totals, err := all[total](ctx, c.db[paymentDB], `SELECT currency, sum(debit)::bigint, sum(credit)::bigint FROM ledger_entries GROUP BY currency`)
	if err != nil {
		return err
	}
	for _, t := range totals {
		c.found.expect(t.Debit == t.Credit, "I-PAY-5", "", "in %s %d were debited and %d credited", t.Currency, t.Debit, t.Credit)
	}
	return c.appendOnly(ctx, c.db[paymentDB], "I-PAY-5", "ledger_entries")
}
