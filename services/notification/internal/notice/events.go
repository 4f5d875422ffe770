package notice

import (
	"github.com/waybill-dev/waybill/libs/event"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
)

// Wants are the events that something is told about. The other topics carry no address; what happens on them reaches the
// customer by the order's own events.
var Wants = []event.Type{
	event.OrderPaymentProcessed, event.OrderRefundRequested, event.OrderShippingRequested, event.OrderCompleted,
	event.OrderCancelled, event.OrderFailed, event.OrderAttention,
}

// From makes the notice of an event. ok is false where there is nothing to tell, or nobody to tell it to.
func From(e event.Event) (n Notice, ok bool, err error) {
	kind, to, f, err := read(e)
	if err != nil || kind == "" || to == "" {
		return Notice{}, false, err
	}
	f.OrderID = e.Subject
	n = Notice{
		EventID: e.ID, Channel: Email, OrderID: e.Subject, Tenant: e.Tenant, Seq: e.Seq, Kind: kind,
		Recipient: to, Masked: Mask(to), Status: Pending, Traceparent: e.Traceparent,
	}
	n.Subject, n.Text = Write(kind, f)
	return n, true, nil
}

// said is what every later event of an order repeats.
type said interface {
	GetAmount() int64
	GetCurrency() string
	GetEmail() string
	GetReason() string
}

func facts(m said) (string, Facts) {
	return m.GetEmail(), Facts{Amount: m.GetAmount(), Currency: m.GetCurrency(), Reason: m.GetReason()}
}

func read(e event.Event) (k Kind, to string, f Facts, err error) {
	switch e.Type {
	case event.OrderPaymentProcessed:
		var m orderv1.OrderPaymentProcessed
		err = e.Decode(&m)
		to, f = facts(&m)
		if len(m.Items) > 0 { // without items the order is complete in the same moment, and that is told
			k = Confirmed
		}
	case event.OrderShippingRequested:
		var m orderv1.OrderShippingRequested
		err = e.Decode(&m)
		k = Resent
		to, f = facts(&m)
	case event.OrderRefundRequested:
		var m orderv1.OrderRefundRequested
		err = e.Decode(&m)
		to, f = facts(&m)
		if m.Attempt <= 1 { // a repeated refund is our affair
			k = Refunding
		}
	case event.OrderCompleted:
		var m orderv1.OrderCompleted
		err = e.Decode(&m)
		k = Completed
		to, f = facts(&m)
	case event.OrderFailed:
		var m orderv1.OrderFailed
		err = e.Decode(&m)
		k = Failed
		to, f = facts(&m)
	case event.OrderCancelled:
		var m orderv1.OrderCancelled
		err = e.Decode(&m)
		k = Cancelled
		to, f = facts(&m)
		f.WrittenOff = m.WrittenOff
	case event.OrderAttention:
		var m orderv1.OrderAttention
		err = e.Decode(&m)
		k = Attention
		to, f = facts(&m)
	}
	return k, to, f, err
}
