package saga

import (
	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/libs/event"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	"github.com/waybill-dev/waybill/services/order/internal/order"
)

// message is the payload of an event about an order, as the order is when the event leaves. Each repeats e-mail, amount,
// currency and reason, so that no reader has to join topics.
func message(typ event.Type, o *order.Order, f *Fact, c order.Change) proto.Message {
	id, amount, currency, email, reason := o.ID, o.Amount, o.Currency, o.Email, string(o.Reason)
	switch typ {
	case event.OrderCreated:
		return &orderv1.OrderCreated{OrderId: id, Amount: amount, Currency: currency, PaymentMethod: o.Method, Email: email,
			Items: items(o), Address: address(o), Customer: o.Customer}
	case event.OrderPaymentRequested:
		return &orderv1.OrderPaymentRequested{OrderId: id, Amount: amount, Currency: currency, Email: email, Reason: reason, PaymentMethod: o.Method}
	case event.OrderRefundRequested:
		return &orderv1.OrderRefundRequested{OrderId: id, Amount: amount, Currency: currency, Email: email, Reason: reason, Attempt: int32(o.Refund)}
	case event.OrderPaymentProcessed:
		return &orderv1.OrderPaymentProcessed{OrderId: id, Amount: amount, Currency: currency, Email: email, Reason: reason, Items: items(o), Address: address(o)}
	case event.OrderShippingRequested:
		return &orderv1.OrderShippingRequested{OrderId: id, Amount: amount, Currency: currency, Email: email, Reason: reason,
			Items: items(o), Address: address(o), Attempt: int32(o.Shipment)}
	case event.OrderCompleted:
		return &orderv1.OrderCompleted{OrderId: id, Amount: amount, Currency: currency, Email: email, Reason: reason}
	case event.OrderFailed:
		return &orderv1.OrderFailed{OrderId: id, Amount: amount, Currency: currency, Email: email, Reason: reason}
	case event.OrderCancelled:
		return &orderv1.OrderCancelled{OrderId: id, Amount: amount, Currency: currency, Email: email, Reason: reason,
			Goods: string(o.Goods), WrittenOff: c.WrittenOff}
	case event.OrderAttention:
		return &orderv1.OrderAttention{OrderId: id, Amount: amount, Currency: currency, Email: email, Reason: reason, Detail: f.Detail}
	}
	panic("saga: no message for " + string(typ))
}

func items(o *order.Order) []*orderv1.Item {
	if o.Bare {
		panic("saga: order " + o.ID + " was read without its items")
	}
	out := make([]*orderv1.Item, len(o.Items))
	for i, it := range o.Items {
		out[i] = &orderv1.Item{ProductId: it.ProductID, Quantity: it.Quantity}
	}
	return out
}

func address(o *order.Order) *orderv1.Address {
	a := o.Address
	if a == nil {
		return nil
	}
	return &orderv1.Address{Name: a.Name, Line1: a.Line1, Line2: a.Line2, City: a.City, Region: a.Region, PostalCode: a.PostalCode, Country: a.Country}
}
