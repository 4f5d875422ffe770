package oracle

import (
	"fmt"
	"slices"
	"strings"
)

// invariants are all that is checked, in the order of the report. The names are those of docs/verify.md.
var invariants = []struct{ name, says string }{
	{"I-PAY-1", "provider's captures minus refunds are the amount where an order is paid, and nothing where it is undone"},
	{"I-PAY-2", "no order is captured twice at the provider"},
	{"I-PAY-3", "no payment of an undone order is left captured"},
	{"I-PAY-4", "our ledger and the provider's agree booking by booking"},
	{"I-PAY-5", "every booking has a debit and a credit of the same sum, and nobody can change it"},
	{"I-PAY-6", "no charge and no refund is left without an outcome"},
	{"I-STOCK-1", "what was booked in and out is what is on hand, and 0 ≤ reserved ≤ on hand"},
	{"I-STOCK-2", "what is reserved is what held and pinned reservations say"},
	{"I-STOCK-3", "what was sold is what confirmed reservations and paid orders say"},
	{"I-STOCK-4", "each movement of stock is booked once, and the balances add up"},
	{"I-STOCK-5", "no hold is overdue, and nothing is pinned for an order that has ended"},
	{"I-SAGA-1", "every order has ended, and payment, stock and shipment are where its end wants them"},
	{"I-SAGA-2", "every order went ways that the transition table has"},
	{"I-SAGA-3", "what a client was promised is there, and what it was refused is not"},
	{"I-SAGA-4", "no order exists that nobody asked for"},
	{"I-SAGA-5", "no reader saw an order go back in time"},
	{"I-ADDR", "a shipment has an order with an address, and a parcel is sent once"},
	{"I-EVT-1", "outbox: all published; sequences without gap or double, up to what the aggregate's row says"},
	{"I-EVT-2", "outbox and topics hold the same events"},
	{"I-EVT-3", "topics: each aggregate in one partition, in the order of its sequence"},
	{"I-EVT-4", "every consumer has applied every event, but for what is parked"},
	{"I-EVT-6", "no consumer has committed more than there is, or less"},
	{"I-EVT-7", "a record that comes again is the same record"},
	{"I-IDEM-1", "an idempotency key has one effect and one answer"},
	{"I-IDEM-2", "only definite answers are kept under idempotency keys"},
	{"I-DLQ-1", "what waits for a person waits in order, and each decision is on record"},
	{"I-AN-1", "analytics has each event once, under its tenant and day"},
	{"I-NOT-1", "each message to a customer is there once, and was told"},
}

// findings collects what is checked and what is wrong.
type findings struct {
	byName map[string]*Finding
}

func newFindings() *findings {
	f := &findings{byName: map[string]*Finding{}}
	for _, i := range invariants {
		f.byName[i.name] = &Finding{Name: i.name, Says: i.says}
	}
	return f
}

// shown is how many violations of an invariant a report names; told how many of those with a timeline.
const shown, told = 20, 5

// looked counts things that an invariant was checked on.
func (f *findings) looked(name string, n int64) { f.byName[name].Checked += n }

// broken notes a violation.
func (f *findings) broken(name, order, format string, args ...any) {
	x := f.byName[name]
	x.Violated++
	if len(x.Violations) < shown {
		x.Violations = append(x.Violations, Violation{Order: order, Detail: fmt.Sprintf(format, args...)})
	}
}

// expect counts a check and notes a violation where ok is false.
func (f *findings) expect(ok bool, name, order, format string, args ...any) {
	f.byName[name].Checked++
	if !ok {
		f.broken(name, order, format, args...)
	}
}

func (f *findings) list() (out []Finding, clean bool) {
	clean = true
	for _, i := range invariants {
		x := f.byName[i.name]
		clean = clean && x.Violated == 0
		out = append(out, *x)
	}
	return out, clean
}

// orders are those that violations name and that get a timeline.
func (f *findings) orders() []string {
	var ids []string
	for _, i := range invariants {
		n := 0
		for _, v := range f.byName[i.name].Violations {
			if v.Order == "" || strings.HasPrefix(v.Order, "stock:") || n >= told {
				continue
			}
			n++
			if !slices.Contains(ids, v.Order) {
				ids = append(ids, v.Order)
			}
		}
	}
	return ids
}
