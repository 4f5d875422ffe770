package order

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/libs/event"
)

// world plays the other services for one order: it answers what the order sends, in one queue per topic. Within a queue order
// is kept; between queues, and against what people and clocks do, anything goes.
type world struct {
	o     *Order
	plan  plan
	sent  []event.Type
	queue map[string][]Fact

	captured, refunded, released, goodsBack, shipped int
	shipments, failures                              int // asked for; shipments and refunds that failed for good
	refundsAsked                                     int
}

// plan is what the services will decide, so that only the interleaving is left to chance.
type plan struct {
	items        bool
	stock        Event // the answer to the reservation
	payment      Event // PaymentProcessed or PaymentFailed
	declined     bool
	refundFails  int // attempts that fail for good
	shipmentsBad int // shipments that fail
	paidEarly    bool
}

func newWorld(p plan) *world {
	o := &Order{ID: "o-1", Tenant: 1, Amount: 5990, Currency: "EUR", Status: Pending, Method: "card"}
	if p.items {
		o.Items = []Item{{"sku-1", 2}, {"sku-2", 1}}
		o.Address = &Address{City: "Berlin"}
	}
	w := &world{o: o, plan: p, queue: map[string][]Fact{}}
	if p.items {
		w.push("http", w.answer())
		if p.stock == StockReserved {
			w.push("inventory", Fact{Event: InventoryReserved, Pinned: true, Amount: o.Amount, Currency: "EUR", Items: []Item{{"sku-2", 1}, {"sku-1", 2}}})
		}
	} else {
		w.apply(Fact{Event: ChargeOnly})
	}
	if p.paidEarly { // the customer calls POST /payments while the order is pending
		w.pay()
	}
	return w
}

func (w *world) answer() Fact {
	f := Fact{Event: w.plan.stock, Amount: w.o.Amount, Currency: "EUR"}
	switch w.plan.stock {
	case StockMismatch:
		f.Reason = AmountMismatch
	case StockRefused:
		f.Reason = OutOfStock
	case StockClosed:
		f.Reason = ReservationExpired
	}
	return f
}

func (w *world) push(q string, f Fact) { w.queue[q] = append(w.queue[q], f) }

// pay charges once, and tells the outcome each time it is asked.
func (w *world) pay() {
	f := Fact{Event: w.plan.payment, Amount: w.o.Amount, Currency: "EUR", Reason: PaymentFailedReason}
	if w.plan.declined {
		f.Reason = PaymentDeclinedReason
	}
	if w.plan.payment == PaymentProcessed {
		w.captured = 1
	}
	w.push("payments", f)
}

func (w *world) apply(f Fact) Change {
	c := w.o.Apply(f, time.Unix(0, 0))
	for _, typ := range c.Sends {
		w.sent = append(w.sent, typ)
		w.react(typ)
	}
	return c
}

// react is the rest of the platform.
func (w *world) react(typ event.Type) {
	switch typ {
	case event.OrderPaymentRequested:
		if w.captured == 0 && len(w.queue["payments"]) == 0 {
			w.push("payments", Fact{Event: PaymentInitiated, Amount: w.o.Amount, Currency: "EUR"})
		}
		w.pay()
	case event.OrderPaymentProcessed:
		if w.plan.items {
			w.push("inventory", Fact{Event: InventoryUpdated})
			w.ship(1)
		}
	case event.OrderShippingRequested:
		w.ship(w.o.Shipment)
	case event.OrderRefundRequested:
		w.refundsAsked++
		w.refund(w.o.Refund)
	case event.OrderFailed, event.OrderCancelled:
		w.released++
		if w.plan.items {
			w.push("inventory", Fact{Event: InventoryReleased})
		}
		if typ == event.OrderCancelled && w.o.Goods == GoodsReturned {
			w.goodsBack++
		}
		if w.captured > w.refunded { // money of a dead order is returned, by the provider or outside
			w.refunded = w.captured
			w.push("payments", Fact{Event: PaymentRefunded, Amount: w.o.Amount, Currency: "EUR", Attempt: 9})
		}
	}
}

func (w *world) ship(n int) {
	w.shipments++
	w.push("shipping", Fact{Event: ShippingRequested, Attempt: n})
	w.push("shipping", Fact{Event: ShippingProgress, Attempt: n})
	if n <= w.plan.shipmentsBad {
		w.failures++
		w.push("shipping", Fact{Event: ShippingFailed, Attempt: n})
		return
	}
	w.shipped++
	w.push("shipping", Fact{Event: ShippingCompleted, Attempt: n})
}

func (w *world) refund(n int) {
	f := Fact{Event: PaymentRefunded, Amount: w.o.Amount, Currency: "EUR", Attempt: n}
	if n <= w.plan.refundFails {
		w.failures++
		f = Fact{Event: PaymentRefundFailed, Attempt: n}
	} else {
		w.refunded = 1
	}
	w.push("payments", f)
}

// waiting names the queues that are not empty, in a fixed order.
func (w *world) waiting() []string {
	var out []string
	for _, q := range []string{"http", "inventory", "payments", "shipping"} {
		if len(w.queue[q]) > 0 {
			out = append(out, q)
		}
	}
	return out
}

func (w *world) deliver(t interface{ Fatalf(string, ...any) }, q string) {
	f := w.queue[q][0]
	w.queue[q] = w.queue[q][1:]
	if c := w.apply(f); c.Outcome == Unknown {
		t.Fatalf("%s cannot happen in %s (%+v)", f.Event, w.o.Status, w.plan)
	}
}

func genPlan(t *rapid.T) plan {
	p := plan{
		items:     rapid.Bool().Draw(t, "items"),
		stock:     rapid.SampledFrom([]Event{StockReserved, StockReserved, StockMismatch, StockRefused, StockClosed}).Draw(t, "stock"),
		payment:   rapid.SampledFrom([]Event{PaymentProcessed, PaymentProcessed, PaymentFailed}).Draw(t, "payment"),
		declined:  rapid.Bool().Draw(t, "declined"),
		paidEarly: rapid.Bool().Draw(t, "paidEarly"),
	}
	if p.items {
		p.shipmentsBad = rapid.IntRange(0, 2).Draw(t, "shipmentsBad")
	}
	p.refundFails = rapid.IntRange(0, 2).Draw(t, "refundFails")
	return p
}

// Whatever the interleaving, and however often the answers to a question come, the same facts end in the same status and
// send the same events once.
func TestInterleavingsEndTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genPlan(t)
		p.refundFails = 0
		end := func(pick func(waiting []string) string, again func(f Fact) bool) (Order, []event.Type) {
			w := newWorld(p)
			for steps := 0; ; steps++ {
				waiting := w.waiting()
				if len(waiting) == 0 {
					break
				}
				if steps > 200 {
					t.Fatalf("no end in %s", w.o.Status)
				}
				q := pick(waiting)
				f := w.queue[q][0]
				w.deliver(t, q)
				if again(f) {
					w.apply(f) // the same answer a second time; unknown is as good as stale for a duplicate
				}
			}
			return *w.o, w.sent
		}
		want, wantSent := end(func(q []string) string { return q[0] }, func(Fact) bool { return false })
		got, gotSent := end(
			func(q []string) string { return rapid.SampledFrom(q).Draw(t, "next") },
			func(f Fact) bool { return f.Event != PaymentInitiated && rapid.Bool().Draw(t, "again") })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("one interleaving - another +\n%s", diff)
		}
		if diff := cmp.Diff(wantSent, gotSent); diff != "" {
			t.Fatalf("sent by one interleaving - by another +\n%s", diff)
		}
		for _, typ := range gotSent {
			if n := count(gotSent, typ); n != 1 {
				t.Fatalf("%s was sent %d times", typ, n)
			}
		}
	})
}

func count(types []event.Type, typ event.Type) (n int) {
	for _, x := range types {
		if x == typ {
			n++
		}
	}
	return n
}

// With customers, clocks and operators acting at any moment, every order still comes to an end, and money and goods are where
// that end says.
func TestEveryStoryEndsBalanced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genPlan(t)
		w := newWorld(p)
		var told []Fact // what may be told again
		for steps := 0; ; steps++ {
			if steps > 400 {
				t.Fatalf("no end in %s", w.o.Status)
			}
			moves := w.waiting()
			if w.o.Status == Attention {
				moves = append(moves, "person", "person")
			}
			if len(moves) == 0 && w.o.Status.Final() {
				break
			}
			if len(moves) == 0 {
				t.Fatalf("stands still in %s, reason %s: %+v", w.o.Status, w.o.Reason, p)
			}
			switch rapid.IntRange(0, 9).Draw(t, "chance") {
			case 0:
				moves = []string{"cancel"}
			case 1:
				moves = []string{"deadline"}
			case 2:
				if len(told) > 0 {
					moves = []string{"again"}
				}
			}
			switch m := rapid.SampledFrom(moves).Draw(t, "move"); m {
			case "cancel":
				w.apply(Fact{Event: Cancel})
			case "deadline":
				w.apply(Fact{Event: Deadline})
			case "again":
				w.apply(rapid.SampledFrom(told).Draw(t, "told"))
			case "person":
				person(t, w)
			default:
				f := w.queue[m][0]
				w.deliver(t, m)
				// The payment service tells outcomes again when it is asked again; inventory answers as often as it is asked.
				// A failed attempt may be told of again when its successor is under way.
				if f.Event == PaymentProcessed || f.Event == w.plan.stock || f.Event == PaymentRefundFailed || f.Event == ShippingFailed {
					told = append(told, f)
				}
			}
			check(t, w)
		}
		o := w.o
		switch o.Status {
		case Completed:
			if w.captured != 1 || w.refunded != 0 || w.released != 0 {
				t.Fatalf("completed with %d captured, %d refunded, released %d times", w.captured, w.refunded, w.released)
			}
		case Failed, Cancelled:
			if w.captured != w.refunded || w.released != 1 {
				t.Fatalf("%s with %d captured, %d refunded, released %d times", o.Status, w.captured, w.refunded, w.released)
			}
		}
		if o.FinishedAt.IsZero() || o.Cause != "" {
			t.Fatalf("ended in %s at %v with cause %q", o.Status, o.FinishedAt, o.Cause)
		}
	})
}

// check is true at any moment.
func check(t *rapid.T, w *world) {
	o := w.o
	undone := []Reason{PaymentDeclinedReason, PaymentFailedReason, CustomerRequest, Expired, ShippingFailedReason}
	switch o.Status {
	case Pending, Paying, Paid, Shipping, Completed:
		if o.Reason != "" {
			t.Fatalf("%s has reason %s", o.Status, o.Reason)
		}
	case Failed:
		if !slices.Contains([]Reason{OutOfStock, UnknownProduct, AmountMismatch, ReservationExpired}, o.Reason) {
			t.Fatalf("failed with reason %q", o.Reason)
		}
	case Cancelling, Cancelled:
		if !slices.Contains(undone, o.Reason) {
			t.Fatalf("%s with reason %q", o.Status, o.Reason)
		}
	case Attention:
		if o.Reason != ShippingFailedReason && o.Reason != RefundFailedReason {
			t.Fatalf("attention with reason %q", o.Reason)
		}
	}
	for _, typ := range []event.Type{event.OrderCompleted, event.OrderFailed, event.OrderCancelled, event.OrderPaymentRequested, event.OrderPaymentProcessed} {
		if n := count(w.sent, typ); n > 1 {
			t.Fatalf("%s was sent %d times", typ, n)
		}
	}
	if w.shipments != o.Shipment {
		t.Fatalf("%d shipments asked for, the order counts %d", w.shipments, o.Shipment)
	}
	if n := count(w.sent, event.OrderAttention); n > w.failures {
		t.Fatalf("%d tickets for %d failures", n, w.failures)
	}
	if w.refundsAsked != o.Refund {
		t.Fatalf("%d refunds asked for, the order counts %d", w.refundsAsked, o.Refund)
	}
	if asked := w.refundsAsked - count(w.sent, event.OrderAttention); asked > 1 {
		t.Fatalf("%d refunds more than failures", asked)
	}
}

// person decides about an order in attention.
func person(t *rapid.T, w *world) {
	goods := GoodsUnknown
	if w.o.NeedsGoods() {
		goods = rapid.SampledFrom([]Goods{GoodsReturned, GoodsLost}).Draw(t, "goods")
	}
	f := Fact{Goods: goods, Event: rapid.SampledFrom([]Event{PersonRefund, PersonWriteOff, PersonResend}).Draw(t, "decision")}
	if f.Event == PersonResend && !w.o.Resendable(goods) {
		f.Event = PersonRefund
	}
	if c := w.apply(f); c.Outcome != Moved {
		t.Fatalf("%s was %s in %s", f.Event, c.Outcome, c.From)
	}
}
