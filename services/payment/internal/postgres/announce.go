package postgres

import (
	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/libs/event"
	paymentv1 "github.com/waybill-dev/waybill/proto/gen/waybill/payment/v1"
	"github.com/waybill-dev/waybill/services/payment/internal/payment"
)

// announce makes the event of a notice, in the tenant and the trace of its payment.
func announce(n payment.Notice) event.Event {
	p := &n.Payment
	var t event.Type
	var m proto.Message
	switch n.Effect {
	case payment.TellInitiated:
		t = event.PaymentInitiated
		m = &paymentv1.PaymentInitiated{OrderId: p.OrderID, Amount: p.Amount, Currency: p.Currency, PaymentMethod: p.Method}
	case payment.TellProcessed:
		t = event.PaymentProcessed
		m = &paymentv1.PaymentProcessed{OrderId: p.OrderID, Amount: p.Amount, Currency: p.Currency, PaymentMethod: p.Method,
			Attempts: int32(p.Attempts), ProviderRef: p.ProviderRef}
	case payment.TellFailed:
		t = event.PaymentFailed
		m = &paymentv1.PaymentFailed{OrderId: p.OrderID, Amount: p.Amount, Currency: p.Currency, PaymentMethod: p.Method,
			Attempts: int32(p.Attempts), Status: string(p.Status), Reason: p.Reason}
	case payment.TellRefunded:
		t = event.PaymentRefunded
		m = &paymentv1.PaymentRefunded{OrderId: p.OrderID, Amount: p.Amount, Currency: p.Currency,
			Attempt: int32(n.Attempt), ProviderRef: n.Ref, Outside: n.Outside}
	case payment.TellRefundFailed:
		t = event.PaymentRefundFailed
		m = &paymentv1.PaymentRefundFailed{OrderId: p.OrderID, Amount: p.Amount, Currency: p.Currency,
			Attempt: int32(n.Attempt), Reason: n.Reason}
	}
	cause := event.Event{Tenant: p.Tenant, Traceparent: p.Traceparent, Time: n.Cause}
	return cause.Next(t, p.OrderID, p.Seq, m)
}
