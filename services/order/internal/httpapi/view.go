package httpapi

import (
	"time"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/services/order/internal/order"
	"github.com/waybill-dev/waybill/services/order/internal/postgres"
)

// stamp is a time on the wire: UTC, milliseconds.
type stamp time.Time

func (s stamp) MarshalText() ([]byte, error) {
	return time.Time(s).UTC().AppendFormat(nil, "2006-01-02T15:04:05.000Z"), nil
}

type item struct {
	ProductID string `json:"product_id"`
	Quantity  int64  `json:"quantity"`
}

type address struct {
	Name       string `json:"name"`
	Line1      string `json:"line1"`
	Line2      string `json:"line2,omitempty"`
	City       string `json:"city"`
	Region     string `json:"region,omitempty"`
	PostalCode string `json:"postal_code"`
	Country    string `json:"country"`
}

// entry is one line of the timeline.
type entry struct {
	At     stamp        `json:"at"`
	Event  string       `json:"event"`
	Status order.Status `json:"status"`
	Detail string       `json:"detail"`
}

// summary is an order without its timeline.
type summary struct {
	OrderID   string        `json:"order_id"`
	Status    order.Status  `json:"status"`
	Reason    order.Reason  `json:"reason"`
	Amount    order.Decimal `json:"amount"`
	Currency  string        `json:"currency"`
	Method    string        `json:"payment_method"`
	Items     []item        `json:"items"`
	CreatedAt stamp         `json:"created_at"`
}

// view is an order with its timeline.
type view struct {
	summary
	Email    string   `json:"email,omitempty"`
	Address  *address `json:"address,omitempty"`
	Timeline []entry  `json:"timeline"`
}

func summaryOf(o *order.Order) summary {
	s := summary{OrderID: o.ID, Status: o.Status, Reason: o.Reason, Amount: order.Major(o.Amount, o.Currency), Currency: o.Currency,
		Method: o.Method, Items: make([]item, len(o.Items)), CreatedAt: stamp(o.CreatedAt)}
	for i, it := range o.Items {
		s.Items[i] = item(it)
	}
	return s
}

func viewOf(o *order.Order, lines []postgres.Line) view {
	v := view{summary: summaryOf(o), Email: o.Email, Timeline: make([]entry, len(lines))}
	if o.Address != nil {
		a := address(*o.Address)
		v.Address = &a
	}
	for i, l := range lines {
		v.Timeline[i] = entryOf(l)
	}
	return v
}

func entryOf(l postgres.Line) entry {
	return entry{At: stamp(l.At), Event: l.Event, Status: l.Status, Detail: l.Detail}
}

// accepted is the order as it was when it was stored, whatever has become of it since: the answer to a request is the same
// however often it is sent.
func accepted(o *order.Order) view {
	fresh := *o
	fresh.Status, fresh.Reason = order.Pending, ""
	lines := []postgres.Line{{At: o.CreatedAt, Event: string(event.OrderCreated), Status: order.Pending}}
	if len(o.Items) == 0 {
		fresh.Status, _, _ = order.Next(order.Pending, order.ChargeOnly)
		lines = append(lines, postgres.Line{At: o.CreatedAt, Event: string(order.ChargeOnly), Status: fresh.Status})
	}
	return viewOf(&fresh, lines)
}
