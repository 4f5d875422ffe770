package saga

import (
	"context"
	"fmt"
	"strings"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	inventoryv1 "github.com/waybill-dev/waybill/proto/gen/waybill/inventory/v1"
	paymentv1 "github.com/waybill-dev/waybill/proto/gen/waybill/payment/v1"
	shippingv1 "github.com/waybill-dev/waybill/proto/gen/waybill/shipping/v1"
	"github.com/waybill-dev/waybill/services/order/internal/order"
)

// Group is the consumer group.
const Group = "order-service"

// Topics are what the group reads.
func Topics() []string { return []string{event.Payments, event.Inventory, event.Shipping} }

// Wants lists the event types of the topics: all of them.
func Wants() []event.Type {
	var types []event.Type
	for _, t := range event.Types() {
		if t.Topic() != event.Orders {
			types = append(types, t)
		}
	}
	return types
}

var _ inbox.Handler = (*Saga)(nil).Handle

// Handle applies a batch of events. Each is a line of its order's timeline, and some move the order. Events about what is no
// order (a product's stock, a reservation made before there is an order, another tenant's of the same id) are only counted.
func (s *Saga) Handle(ctx context.Context, u *pg.Unit, batch []event.Event) error {
	facts := make([]Fact, 0, len(batch))
	for _, e := range batch {
		f, err := factOf(e)
		if err != nil {
			return err
		}
		if strings.HasPrefix(f.OrderID, "stock:") { // not an order's id: ':' is no character of those
			s.metrics.facts.WithLabelValues(string(f.Event), "no_order").Inc()
			continue
		}
		facts = append(facts, f)
	}
	if len(facts) == 0 {
		return nil
	}
	s.metrics.batch.WithLabelValues("events").Observe(float64(len(facts)))
	_, err := s.apply(ctx, u, facts)
	return err
}

// factOf reads an event.
func factOf(e event.Event) (Fact, error) {
	f := Fact{OrderID: e.Subject, Line: string(e.Type), Tenant: e.Tenant, Traceparent: e.Traceparent, At: e.Time}
	f.Event = order.Event(e.Type)
	switch e.Type {
	case event.InventoryReserved:
		var m inventoryv1.InventoryReserved
		if err := e.Decode(&m); err != nil {
			return f, err
		}
		f.Detail = m.State
		f.Pinned, f.Amount, f.Currency = m.State == "pinned", m.Total, m.Currency
		for _, it := range m.Items {
			f.Items = append(f.Items, order.Item{ProductID: it.GetProductId(), Quantity: it.GetQuantity()})
		}
	case event.InventoryReleased:
		var m inventoryv1.InventoryReleased
		if err := e.Decode(&m); err != nil {
			return f, err
		}
		f.Detail = m.State
	case event.InventoryUpdated:
		var m inventoryv1.InventoryUpdated
		if err := e.Decode(&m); err != nil {
			return f, err
		}
		f.Detail = m.Reason
	case event.PaymentInitiated:
		var m paymentv1.PaymentInitiated
		if err := e.Decode(&m); err != nil {
			return f, err
		}
		f.Amount, f.Currency = m.Amount, m.Currency
	case event.PaymentProcessed:
		var m paymentv1.PaymentProcessed
		if err := e.Decode(&m); err != nil {
			return f, err
		}
		f.Amount, f.Currency = m.Amount, m.Currency
	case event.PaymentFailed:
		var m paymentv1.PaymentFailed
		if err := e.Decode(&m); err != nil {
			return f, err
		}
		f.Amount, f.Currency, f.Detail = m.Amount, m.Currency, detail(m.Status, m.Reason)
		f.Reason = order.PaymentFailedReason
		if m.Status == "declined" {
			f.Reason = order.PaymentDeclinedReason
		}
	case event.PaymentRefunded:
		var m paymentv1.PaymentRefunded
		if err := e.Decode(&m); err != nil {
			return f, err
		}
		f.Amount, f.Currency, f.Attempt = m.Amount, m.Currency, int(m.Attempt)
		if m.Outside {
			f.Detail = "outside"
		}
	case event.PaymentRefundFailed:
		var m paymentv1.PaymentRefundFailed
		if err := e.Decode(&m); err != nil {
			return f, err
		}
		f.Attempt, f.Detail = int(m.Attempt), m.Reason
	case event.ShippingRequested:
		var m shippingv1.ShippingRequested
		if err := e.Decode(&m); err != nil {
			return f, err
		}
		f.Attempt = int(m.Attempt)
	case event.ShippingProgress:
		var m shippingv1.ShippingProgress
		if err := e.Decode(&m); err != nil {
			return f, err
		}
		f.Attempt, f.Detail = int(m.Attempt), detail(m.Status, m.Tracking)
	case event.ShippingCompleted:
		var m shippingv1.ShippingCompleted
		if err := e.Decode(&m); err != nil {
			return f, err
		}
		f.Attempt, f.Detail = int(m.Attempt), m.Tracking
	case event.ShippingFailed:
		var m shippingv1.ShippingFailed
		if err := e.Decode(&m); err != nil {
			return f, err
		}
		f.Attempt, f.Detail = int(m.Attempt), m.Reason
	default:
		return f, inbox.Permanent(fmt.Errorf("event %s is not for this group", e.Type))
	}
	return f, nil
}

// detail joins what there is of two texts.
func detail(a, b string) string {
	switch {
	case a == "":
		return b
	case b == "":
		return a
	}
	return a + ": " + b
}
