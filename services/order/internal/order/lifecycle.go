package order

import "github.com/waybill-dev/waybill/libs/event"

// Status is where an order stands. The names are part of the public contract.
type Status string

// The statuses of an order.
const (
	Pending    Status = "pending"    // accepted, stock not yet answered
	Paying     Status = "paying"     // stock pinned (or none needed), payment requested
	Paid       Status = "paid"       // captured
	Shipping   Status = "shipping"   // a shipment exists
	Cancelling Status = "cancelling" // the payment's outcome is awaited, or money is on its way back
	Completed  Status = "completed"  // paid and delivered (a charge-only order: paid)
	Failed     Status = "failed"     // refused before anything was charged
	Cancelled  Status = "cancelled"  // undone
	Attention  Status = "attention"  // a ticket is open, a person decides
)

// Statuses lists every status, in the order of the story.
func Statuses() []Status {
	return []Status{Pending, Paying, Paid, Shipping, Cancelling, Completed, Failed, Cancelled, Attention}
}

// Final says that nothing takes the order out of this status.
func (s Status) Final() bool { return s == Completed || s == Failed || s == Cancelled }

// Event is something that happened to an order, or that somebody wants of it. Most are events of the topics under their
// own name; a condition and a time-out are events of other names, so that the table has no guards.
type Event string

// The events of the table.
const (
	// StockReserved: the items are pinned and cost what the order says. From inventory's HTTP answer or its event.
	StockReserved Event = "stock.reserved"
	StockMismatch Event = "stock.mismatch" // the items cost something else
	StockRefused  Event = "stock.refused"  // too little of them, or no such product
	StockClosed   Event = "stock.closed"   // the reservation was released or ran out before
	ChargeOnly    Event = "charge_only"    // no items, nothing to reserve

	Cancel   Event = "cancel"   // the customer's wish
	Deadline Event = "deadline" // not paid in time

	InventoryReserved Event = "inventory.reserved" // held, or not what the order asked for; else it is StockReserved
	InventoryReleased Event = "inventory.released"
	InventoryUpdated  Event = "inventory.updated"

	PaymentInitiated    Event = "payment.initiated"
	PaymentProcessed    Event = "payment.processed"
	PaymentSufficed     Event = "payment.processed (charge-only)" // of an order without items: nothing is shipped
	PaymentRepeated     Event = "payment.processed (repeated)"    // told again although its refund was asked for
	PaymentFailed       Event = "payment.failed"
	PaymentRefunded     Event = "payment.refunded"
	PaymentRefundFailed Event = "payment.refund_failed"

	ShippingRequested Event = "shipping.requested"
	ShippingProgress  Event = "shipping.progress"
	ShippingCompleted Event = "shipping.completed"
	ShippingFailed    Event = "shipping.failed"

	Outdated Event = "outdated attempt" // about a shipment or refund that has a successor

	PersonResend   Event = "person.resend"
	PersonRefund   Event = "person.refund"
	PersonWriteOff Event = "person.write_off"
)

// Events lists every event of the table.
func Events() []Event {
	return []Event{
		StockReserved, StockMismatch, StockRefused, StockClosed, ChargeOnly, Cancel, Deadline,
		InventoryReserved, InventoryReleased, InventoryUpdated,
		PaymentInitiated, PaymentProcessed, PaymentSufficed, PaymentRepeated, PaymentFailed, PaymentRefunded, PaymentRefundFailed,
		ShippingRequested, ShippingProgress, ShippingCompleted, ShippingFailed, Outdated,
		PersonResend, PersonRefund, PersonWriteOff,
	}
}

// rule is one row of the table. Its effects are the names of the messages that go out.
type rule struct {
	from    Status
	event   Event
	to      Status
	effects []event.Type
}

func sends(types ...event.Type) []event.Type { return types }

// lifecycle is the whole saga: the way there, and the way back. Capture is the pivot: before it everything is undone by
// giving the stock back, after it the order goes forward or the money is refunded.
var lifecycle = []rule{
	{Pending, StockReserved, Paying, sends(event.OrderPaymentRequested)},
	{Pending, ChargeOnly, Paying, sends(event.OrderPaymentRequested)},
	{Pending, StockMismatch, Failed, sends(event.OrderFailed)},
	{Pending, StockRefused, Failed, sends(event.OrderFailed)},
	{Pending, StockClosed, Failed, sends(event.OrderFailed)},
	{Pending, Cancel, Cancelled, sends(event.OrderCancelled)},
	{Pending, Deadline, Cancelled, sends(event.OrderCancelled)},

	{Paying, PaymentProcessed, Paid, sends(event.OrderPaymentProcessed)},
	{Paying, PaymentSufficed, Completed, sends(event.OrderPaymentProcessed, event.OrderCompleted)},
	{Paying, PaymentFailed, Cancelled, sends(event.OrderCancelled)},
	{Paying, Cancel, Cancelling, nil},
	{Paying, Deadline, Cancelling, nil},

	{Cancelling, PaymentFailed, Cancelled, sends(event.OrderCancelled)},
	{Cancelling, PaymentRefunded, Cancelled, sends(event.OrderCancelled)},
	{Cancelling, PaymentProcessed, Cancelling, sends(event.OrderRefundRequested)},
	{Cancelling, PaymentSufficed, Cancelling, sends(event.OrderRefundRequested)},
	{Cancelling, PaymentRefundFailed, Attention, sends(event.OrderAttention)},

	{Paid, ShippingRequested, Shipping, nil},
	{Paid, ShippingCompleted, Completed, sends(event.OrderCompleted)},
	{Paid, ShippingFailed, Attention, sends(event.OrderAttention)},
	{Shipping, ShippingCompleted, Completed, sends(event.OrderCompleted)},
	{Shipping, ShippingFailed, Attention, sends(event.OrderAttention)},

	{Attention, PersonResend, Paid, sends(event.OrderShippingRequested)},
	{Attention, PersonRefund, Cancelling, sends(event.OrderRefundRequested)},
	{Attention, PersonWriteOff, Cancelled, sends(event.OrderCancelled)},
}

// stale lists what changes nothing in a status, because it is late, told twice, or only a line of the timeline. What is
// in neither list cannot happen; where it does, somebody has a bug, and the order stands still until a person has looked.
var stale = []struct {
	event Event
	in    []Status
}{
	// An answer of inventory that was overtaken: by its event, by the answer to a second question, or by a cancellation.
	{StockReserved, []Status{Paying, Paid, Shipping, Cancelling, Completed, Failed, Cancelled, Attention}},
	{StockMismatch, []Status{Paying, Paid, Shipping, Cancelling, Completed, Failed, Cancelled, Attention}},
	{StockRefused, []Status{Paying, Paid, Shipping, Cancelling, Completed, Failed, Cancelled, Attention}},
	{StockClosed, []Status{Paying, Paid, Shipping, Cancelling, Completed, Failed, Cancelled, Attention}},

	// Too late, or wanted twice.
	{Cancel, []Status{Paid, Shipping, Cancelling, Completed, Failed, Cancelled, Attention}},
	{Deadline, []Status{Paid, Shipping, Cancelling, Completed, Failed, Cancelled, Attention}},

	// Reservations exist beside the saga: over the API there are some before the order.
	{InventoryReserved, []Status{Pending, Paying, Paid, Shipping, Cancelling, Completed, Failed, Cancelled, Attention}},
	{InventoryReleased, []Status{Pending, Paying, Paid, Shipping, Cancelling, Completed, Failed, Cancelled, Attention}},
	{InventoryUpdated, []Status{Paid, Shipping, Cancelling, Completed, Cancelled, Attention}},

	// A customer may have paid over the API before the stock answered: payment.requested has the outcome told again.
	{PaymentInitiated, []Status{Pending, Paying, Cancelling, Failed, Cancelled}},
	{PaymentProcessed, []Status{Pending, Paid, Shipping, Completed, Failed, Cancelled, Attention}},
	{PaymentSufficed, []Status{Completed, Cancelled}},
	{PaymentRepeated, []Status{Cancelling, Cancelled, Attention}},
	{PaymentFailed, []Status{Pending, Failed, Cancelled}},
	// What lands on a dead order is refunded by the payment service itself; the status stays.
	{PaymentRefunded, []Status{Failed, Cancelled, Attention}},
	{PaymentRefundFailed, []Status{Failed, Cancelled, Attention}},

	// A parcel may be found, lost or delivered after a person has decided.
	{ShippingRequested, []Status{Shipping, Completed, Cancelling, Cancelled, Attention}},
	{ShippingProgress, []Status{Paid, Shipping, Completed, Cancelling, Cancelled, Attention}},
	{ShippingCompleted, []Status{Completed, Cancelling, Cancelled, Attention}},
	{ShippingFailed, []Status{Completed, Cancelling, Cancelled, Attention}},
	{Outdated, []Status{Paid, Shipping, Completed, Cancelling, Cancelled, Attention}},

	// Somebody else has decided a moment ago, or there is nothing to decide.
	{PersonResend, []Status{Pending, Paying, Paid, Shipping, Cancelling, Completed, Failed, Cancelled}},
	{PersonRefund, []Status{Pending, Paying, Paid, Shipping, Cancelling, Completed, Failed, Cancelled}},
	{PersonWriteOff, []Status{Pending, Paying, Paid, Shipping, Cancelling, Completed, Failed, Cancelled}},
}

// Outcome is what the table says of a pair.
type Outcome int

// The three outcomes.
const (
	Unknown Outcome = iota // in no list: a bug
	Moved
	Stale
)

func (o Outcome) String() string { return [...]string{"unknown", "moved", "stale"}[o] }

type pair struct {
	from  Status
	event Event
}

type entry struct {
	to      Status
	effects []event.Type
	outcome Outcome
}

// table is both lists, by pair.
var table = func() map[pair]entry {
	m := map[pair]entry{}
	for _, r := range lifecycle {
		m[pair{r.from, r.event}] = entry{r.to, r.effects, Moved}
	}
	for _, s := range stale {
		for _, in := range s.in {
			if _, twice := m[pair{in, s.event}]; twice {
				panic("order: " + string(in) + " with " + string(s.event) + " stands in two lists")
			}
			m[pair{in, s.event}] = entry{in, nil, Stale}
		}
	}
	return m
}()

// Next is the table as a function: where an event takes an order, and what is sent. Unless it moved, the status is the
// one that was given.
func Next(from Status, e Event) (to Status, effects []event.Type, outcome Outcome) {
	if x, ok := table[pair{from, e}]; ok {
		return x.to, x.effects, x.outcome
	}
	return from, nil, Unknown
}
