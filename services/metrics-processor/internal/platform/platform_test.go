package platform

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/stream"
	inventoryv1 "github.com/waybill-dev/waybill/proto/gen/waybill/inventory/v1"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	paymentv1 "github.com/waybill-dev/waybill/proto/gen/waybill/payment/v1"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
)

func TestOneOrder(t *testing.T) {
	src := &aggregate.Source{Name: "kafka", Clamp: true}
	a, err := aggregate.New(aggregate.Options{Series: 100, Shards: 1}, src)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	r := NewRecorder(a, src)
	began := time.Now()
	seq := int64(0)
	record := func(typ event.Type, source string, after time.Duration, m proto.Message) {
		seq++
		e := event.New(t.Context(), typ, "o-1", 1, seq, m)
		e.Source, e.Time = source, began.Add(after)
		r.Record(stream.Encode(e), began.Add(time.Hour))
	}
	record(event.OrderCreated, "/waybill/order", 0, &orderv1.OrderCreated{Amount: 5990, Currency: "EUR"})
	record(event.PaymentProcessed, "/waybill/payment", time.Second, &paymentv1.PaymentProcessed{Amount: 5990, Currency: "EUR"})
	record(event.InventoryUpdated, "/waybill/inventory", 2*time.Second, &inventoryv1.InventoryUpdated{Changes: []*inventoryv1.Change{{Delta: -2}, {Delta: 1}}})
	record(event.OrderCompleted, "/waybill/order", 3*time.Second, &orderv1.OrderCompleted{})
	record(event.OrderCancelled, "/waybill/order", 4*time.Second, &orderv1.OrderCancelled{Reason: "expired"})
	r.Record(stream.Message{Topic: event.Orders}, began)
	got := map[string]string{}
	a.Sums(aggregate.Matcher{}, func(s aggregate.Sum) bool {
		if s.Count > 0 && s.Name != EventsTotal && s.Name != EventDelay {
			got[s.Identity.String()] = fmt.Sprintf("%d %g", s.Count, s.Sum)
		}
		return true
	})
	want := map[string]string{
		`waybill_order_amount{currency="EUR"}`: "1 59.9", `waybill_money_total{currency="EUR",kind="captured"}`: "1 59.9",
		`waybill_stock_units_total{direction="out"}`: "1 2", `waybill_stock_units_total{direction="in"}`: "1 1",
		`waybill_orders_total{reason="none",status="pending"}`: "1 1", `waybill_orders_total{reason="none",status="completed"}`: "1 1",
		`waybill_orders_total{reason="expired",status="cancelled"}`: "1 1", `waybill_saga_step_seconds{step="payment.processed"}`: "1 1",
		`waybill_saga_step_seconds{step="inventory.updated"}`: "1 2", `waybill_saga_step_seconds{step="order.completed"}`: "1 3", `waybill_saga_step_seconds{step="order.cancelled"}`: "1 4",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Only so many orders are remembered.
func TestOrdersAreForgotten(t *testing.T) {
	src := &aggregate.Source{Name: "kafka", Clamp: true}
	a, err := aggregate.New(aggregate.Options{Series: 100, Shards: 1}, src)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	r := NewRecorder(a, src)
	for i := range rememberFor + 10 {
		r.saga(event.Event{Type: event.OrderCreated, Subject: fmt.Sprint(i), Time: time.Now()}, 0)
	}
	if len(r.began) != rememberFor {
		t.Errorf("%d orders", len(r.began))
	}
}
