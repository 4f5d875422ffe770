package order

import (
	"slices"
	"time"

	"github.com/waybill-dev/waybill/libs/event"
)

// Reason says why an order is not simply on its way.
type Reason string

// The reasons. Those of a refusal by inventory come with its answer.
const (
	OutOfStock         Reason = "out_of_stock"
	UnknownProduct     Reason = "unknown_product"
	AmountMismatch     Reason = "amount_mismatch"
	ReservationExpired Reason = "reservation_expired"

	PaymentDeclinedReason Reason = "payment_declined"
	PaymentFailedReason   Reason = "payment_failed"
	CustomerRequest       Reason = "customer_request"
	Expired               Reason = "expired"
	ShippingFailedReason  Reason = "shipping_failed"
	RefundFailedReason    Reason = "refund_failed"
)

// Reasons lists every reason.
func Reasons() []Reason {
	return []Reason{OutOfStock, UnknownProduct, AmountMismatch, ReservationExpired, PaymentDeclinedReason, PaymentFailedReason,
		CustomerRequest, Expired, ShippingFailedReason, RefundFailedReason}
}

// Goods is what became of goods that had left.
type Goods string

// What can become of them.
const (
	GoodsUnknown  Goods = "" // none had left, or nobody has said
	GoodsReturned Goods = "returned"
	GoodsLost     Goods = "lost"
)

// Item is one product of an order and how many of it. A product stands in an order once.
type Item struct {
	ProductID string
	Quantity  int64
}

// Address is where the parcel goes.
type Address struct {
	Name, Line1, Line2, City, Region, PostalCode string
	Country                                      string // ISO 3166-1 alpha-2
}

// Order is one order, as its row has it.
type Order struct {
	ID       string
	Tenant   int64
	Customer string // subject of the token that it was made with
	Key      string // Idempotency-Key that it was made with, or empty
	// Fingerprint of the request that made it.
	Fingerprint [32]byte
	Amount      int64 // minor units of Currency
	Currency    string
	Method      string
	Email       string
	Items       []Item
	Address     *Address // nil without items
	Bare        bool     // it has items and an address, which were not read

	Status   Status
	Reason   Reason
	Cause    Reason // why the order is being undone, while Reason says refund_failed
	Goods    Goods
	Shipment int   // number of the current shipment; 0: none was asked for
	Refund   int   // number of the current refund; 0: none was asked for
	EventSeq int64 // of the last event that was published about it

	CreatedAt   time.Time
	Deadline    time.Time
	FinishedAt  time.Time // zero until final
	Traceparent string    // of the request that made it
}

// Fact is what has arrived: an event of a topic, an answer, a wish or the passing of time. Fields that its event does not
// have stay empty.
type Fact struct {
	Event   Event
	Reason  Reason // of a refusal, a failed payment
	Attempt int    // of shipping.* and payment.refund*
	// Of an inventory.reserved: whether it is pinned, of what, and what that costs.
	Pinned   bool
	Items    []Item
	Amount   int64 // also of payment.*
	Currency string
	// Of a person's decision.
	Goods   Goods
	Address *Address
}

// Change is what a fact has done to an order.
type Change struct {
	Outcome Outcome
	Event   Event // as the table knows it
	From    Status
	Sends   []event.Type
	// WrittenOff goes with an order.cancelled whose money was returned outside.
	WrittenOff bool
}

// name turns conditions into events: what the fact is called for this order, now.
func (o *Order) name(f Fact) Event {
	switch f.Event {
	case InventoryReserved:
		// A reservation that was made over the API may be pinned by a payment, with other items. Only the answer to our own
		// question settles that.
		if f.Pinned && f.Amount == o.Amount && f.Currency == o.Currency && sameItems(f.Items, o.Items) {
			return StockReserved
		}
	case PaymentProcessed:
		switch {
		case o.Refund > 0:
			return PaymentRepeated
		case len(o.Items) == 0 && !o.Bare:
			return PaymentSufficed
		}
	case PaymentRefundFailed:
		if f.Attempt < o.Refund {
			return Outdated
		}
	case ShippingRequested, ShippingProgress, ShippingCompleted, ShippingFailed:
		if f.Attempt < o.Shipment {
			return Outdated
		}
	}
	return f.Event
}

// sameItems compares two sums; inventory sorts its own by product.
func sameItems(a, b []Item) bool {
	if len(a) != len(b) {
		return false
	}
	for _, it := range a {
		if !slices.Contains(b, it) {
			return false
		}
	}
	return true
}

// possible says that the fact can be about this order: nobody was asked for a later attempt, or for other money.
func (o *Order) possible(f Fact) bool {
	switch f.Event {
	case PaymentInitiated, PaymentProcessed, PaymentFailed, PaymentRefunded:
		return f.Amount == o.Amount && f.Currency == o.Currency
	case PaymentRefundFailed:
		return f.Attempt <= o.Refund || o.Status.Final()
	case ShippingRequested, ShippingProgress, ShippingCompleted, ShippingFailed:
		// Over the API somebody may ship what has no items here: a line of the timeline, no harm.
		return f.Attempt >= 1 && f.Attempt <= max(o.Shipment, 1)
	}
	return true
}

// Apply takes a fact in. Only where the outcome is Moved has the order changed.
func (o *Order) Apply(f Fact, now time.Time) Change {
	c := Change{Event: o.name(f), From: o.Status}
	if !o.possible(f) {
		return c
	}
	to, effects, outcome := Next(o.Status, c.Event)
	c.Outcome = outcome
	if outcome != Moved {
		return c
	}
	c.Sends = effects
	switch c.Event {
	case StockMismatch, StockRefused, StockClosed:
		o.Reason = f.Reason
	case PaymentFailed:
		if o.Status == Paying {
			o.Reason = f.Reason
		}
	case Cancel:
		o.Reason = CustomerRequest
	case Deadline:
		o.Reason = Expired
	case PaymentProcessed:
		if to == Paid {
			o.Shipment = 1 // order.payment_processed asks for it
		}
	case PaymentRefundFailed:
		o.Cause, o.Reason = o.Reason, RefundFailedReason
	case ShippingFailed:
		o.Reason = ShippingFailedReason
	case PersonResend:
		o.Reason = ""
		o.Shipment++
		if f.Address != nil {
			o.Address = f.Address
		}
	case PersonRefund, PersonWriteOff:
		if o.Reason == RefundFailedReason {
			o.Reason, o.Cause = o.Cause, ""
		}
		if f.Goods != GoodsUnknown && o.Reason == ShippingFailedReason { // otherwise none had left
			o.Goods = f.Goods
		}
		c.WrittenOff = c.Event == PersonWriteOff
	}
	if slices.Contains(effects, event.OrderRefundRequested) {
		o.Refund++
	}
	o.Status = to
	if to.Final() {
		o.FinishedAt = now
	}
	return c
}

// Undoing is why the order is being undone: the reason, or what it was before the refund failed.
func (o *Order) Undoing() Reason {
	if o.Cause != "" {
		return o.Cause
	}
	return o.Reason
}

// Resendable says that the same parcel may be sent again: it came back, and no refund was asked for.
func (o *Order) Resendable(g Goods) bool {
	return o.Reason == ShippingFailedReason && o.Refund == 0 && g == GoodsReturned
}

// NeedsGoods says that whoever decides about the order must say what became of its goods: some had left, and nobody has
// said so yet.
func (o *Order) NeedsGoods() bool {
	return o.Undoing() == ShippingFailedReason && o.Goods == GoodsUnknown
}
