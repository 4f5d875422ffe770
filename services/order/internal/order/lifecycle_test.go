package order

import (
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill/libs/event"
)

var update = flag.Bool("update", false, "write docs/order-lifecycle.md anew")

func TestTableIsDeterministic(t *testing.T) {
	seen := map[pair]bool{}
	for _, r := range lifecycle {
		p := pair{r.from, r.event}
		if seen[p] {
			t.Errorf("%s with %s stands in the table twice", r.from, r.event)
		}
		seen[p] = true
	}
	for _, s := range stale {
		for _, in := range s.in {
			if seen[pair{in, s.event}] {
				t.Errorf("%s with %s is in two lists", in, s.event)
			}
			seen[pair{in, s.event}] = true
		}
	}
}

func TestFinalStatusesHaveNoWayOut(t *testing.T) {
	for _, r := range lifecycle {
		if r.from.Final() {
			t.Errorf("%s is final, and %s leads to %s", r.from, r.event, r.to)
		}
	}
}

func TestEveryStatusIsReachedAndReachesAnEnd(t *testing.T) {
	reach := func(from Status) map[Status]bool {
		seen := map[Status]bool{from: true}
		for grown := true; grown; {
			grown = false
			for _, r := range lifecycle {
				if seen[r.from] && !seen[r.to] {
					seen[r.to], grown = true, true
				}
			}
		}
		return seen
	}
	fromStart := reach(Pending)
	for _, s := range Statuses() {
		if !fromStart[s] {
			t.Errorf("%s cannot be reached", s)
		}
		ends := false
		for to := range reach(s) {
			ends = ends || to.Final()
		}
		if !ends {
			t.Errorf("%s has no way to a final status", s)
		}
	}
}

func TestEveryEventIsKnownSomewhere(t *testing.T) {
	for _, e := range Events() {
		known := false
		for _, s := range Statuses() {
			_, _, o := Next(s, e)
			known = known || o != Unknown
		}
		if !known {
			t.Errorf("%s is in no list", e)
		}
	}
	for _, typ := range event.Types() {
		if typ.Topic() != event.Orders && !slices.Contains(Events(), Event(typ)) {
			t.Errorf("the table does not know %s", typ)
		}
	}
}

// What cannot happen, written out: with the two lists of the table these are all pairs of status and event. Adding a status or
// an event means deciding about each.
var impossible = map[Event][]Status{
	StockReserved: nil, StockMismatch: nil, StockRefused: nil, StockClosed: nil,
	// Applied with the creation, under no other eyes.
	ChargeOnly: {Paying, Paid, Shipping, Cancelling, Completed, Failed, Cancelled, Attention},
	Cancel:     nil, Deadline: nil,
	InventoryReserved: nil, InventoryReleased: nil,
	// Stock is booked after order.payment_processed or order.cancelled.
	InventoryUpdated: {Pending, Paying, Failed},
	// The outcome comes after it, in one sequence.
	PaymentInitiated: {Paid, Shipping, Completed, Attention},
	PaymentProcessed: nil,
	// An order without items does not wait for stock and has no shipment.
	PaymentSufficed: {Pending, Paid, Shipping, Failed, Attention},
	PaymentRepeated: {Pending, Paying, Paid, Shipping, Completed, Failed},
	// A payment that was captured does not fail.
	PaymentFailed: {Paid, Shipping, Completed, Attention},
	// Nobody asked for a refund.
	PaymentRefunded:     {Pending, Paying, Paid, Shipping, Completed},
	PaymentRefundFailed: {Pending, Paying, Paid, Shipping, Completed},
	// Nobody asked for a shipment.
	ShippingRequested: {Pending, Paying, Failed},
	ShippingProgress:  {Pending, Paying, Failed},
	ShippingCompleted: {Pending, Paying, Failed},
	ShippingFailed:    {Pending, Paying, Failed},
	Outdated:          {Pending, Paying, Failed},
	PersonResend:      nil, PersonRefund: nil, PersonWriteOff: nil,
}

func TestMatrix(t *testing.T) {
	for _, e := range Events() {
		never, listed := impossible[e]
		if !listed {
			t.Errorf("nobody has said where %s cannot happen", e)
		}
		for _, s := range Statuses() {
			to, effects, outcome := Next(s, e)
			if (outcome == Unknown) != slices.Contains(never, s) {
				t.Errorf("%s in %s is %s, against the list of what cannot happen", e, s, outcome)
			}
			if outcome != Moved && (to != s || len(effects) > 0) {
				t.Errorf("%s in %s is %s, yet goes to %s and sends %v", e, s, outcome, to, effects)
			}
		}
	}
}

// Each final status is announced exactly when it is entered.
func TestEndsAreAnnounced(t *testing.T) {
	announce := map[Status]event.Type{Completed: event.OrderCompleted, Failed: event.OrderFailed, Cancelled: event.OrderCancelled, Attention: event.OrderAttention}
	for _, r := range lifecycle {
		for status, typ := range announce {
			if want, got := r.to == status, slices.Contains(r.effects, typ); want != got {
				t.Errorf("%s with %s goes to %s and sends %v", r.from, r.event, r.to, r.effects)
			}
		}
	}
}

func TestDiagram(t *testing.T) {
	const path = "../../../../docs/order-lifecycle.md"
	if *update {
		if err := os.WriteFile(path, []byte(Document()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(got), Document()); diff != "" {
		t.Errorf("docs/order-lifecycle.md is not the table's (run with -update): file - table +\n%s", diff)
	}
}
