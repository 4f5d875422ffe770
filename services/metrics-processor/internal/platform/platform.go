// Package platform turns the events of the four topics into samples: how many there are of each type and how late they
// come, what becomes of orders, money and stock, and how long an order takes to each step.
package platform

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/stream"
	inventoryv1 "github.com/waybill-dev/waybill/proto/gen/waybill/inventory/v1"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	paymentv1 "github.com/waybill-dev/waybill/proto/gen/waybill/payment/v1"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
)

// Unreadable is the type of records without a usable envelope, and of types that the catalogue does not know: labels come
// from a closed set.
const Unreadable event.Type = "unreadable"

// The names of the series.
const (
	EventsTotal  = "waybill_events_total"        // by topic and type
	EventDelay   = "waybill_event_delay_seconds" // by topic: from the event to its reading
	OrdersTotal  = "waybill_orders_total"        // by the status that orders came to, and why
	OrderAmount  = "waybill_order_amount"        // by currency, in major units of two digits
	MoneyTotal   = "waybill_money_total"         // by kind, captured or refunded, and currency
	StockTotal   = "waybill_stock_units_total"   // by direction
	StepSeconds  = "waybill_saga_step_seconds"   // by step: from order.created to it
	minorUnits   = 100                           // to a major unit
	rememberFor  = 1 << 16                       // orders whose beginning is remembered
	unknownLabel = "unknown"                     // where a message has no value
)

var statuses = map[event.Type]string{
	event.OrderCreated: "pending", event.OrderPaymentRequested: "paying", event.OrderPaymentProcessed: "paid", event.OrderCompleted: "completed",
	event.OrderCancelled: "cancelled", event.OrderFailed: "failed", event.OrderAttention: "attention",
}

// Recorder records events. It is one goroutine's.
type Recorder struct {
	events, delay, orders, amount, money, stock, step *aggregate.Writer
	// began holds when the latest orders were created, in a ring: the oldest is forgotten first.
	began map[string]time.Time
	ring  [rememberFor]string
	next  int
}

// NewRecorder makes a recorder, and has every type of the catalogue known, so that none is missing while its count is 0.
func NewRecorder(a *aggregate.Aggregator, source *aggregate.Source) *Recorder {
	for _, t := range event.Types() {
		a.Know(aggregate.Identity{Name: EventsTotal, Kind: aggregate.KindDelta, Labels: []aggregate.Label{{Name: "topic", Value: t.Topic()}, {Name: "type", Value: string(t)}}})
	}
	vec := func(kind aggregate.Kind, name string, labels ...string) *aggregate.Writer {
		return a.NewVec(source, kind, name, labels...).Writer()
	}
	return &Recorder{
		events: vec(aggregate.KindDelta, EventsTotal, "topic", "type"),
		delay:  vec(aggregate.KindSample, EventDelay, "topic"),
		orders: vec(aggregate.KindDelta, OrdersTotal, "status", "reason"),
		amount: vec(aggregate.KindSample, OrderAmount, "currency"),
		money:  vec(aggregate.KindDelta, MoneyTotal, "kind", "currency"),
		stock:  vec(aggregate.KindDelta, StockTotal, "direction"),
		step:   vec(aggregate.KindSample, StepSeconds, "step"),
		began:  map[string]time.Time{},
	}
}

func put(w *aggregate.Writer, at int64, v float64, labels ...string) {
	for i, l := range labels {
		if l == "" {
			labels[i] = unknownLabel
		}
	}
	w.Record(at, labels, []float64{v})
}

// Record records one message. It never fails: what cannot be read is counted as such.
func (r *Recorder) Record(m stream.Message, now time.Time) {
	e, err := stream.DecodeMessage(m)
	if err != nil || e.Type.Topic() != m.Topic {
		put(r.events, now.UnixMilli(), 1, m.Topic, string(Unreadable))
		return
	}
	at := min(e.Time.UnixMilli(), now.UnixMilli()) // another machine's clock must not put it into the future
	put(r.events, at, 1, m.Topic, string(e.Type))
	put(r.delay, at, max(now.Sub(e.Time).Seconds(), 0), m.Topic)
	r.saga(e, at)
	r.business(e, at)
}

func (r *Recorder) saga(e event.Event, at int64) {
	if e.Type == event.OrderCreated {
		delete(r.began, r.ring[r.next])
		r.ring[r.next] = e.Subject
		r.next = (r.next + 1) % rememberFor
		r.began[e.Subject] = e.Time
		return
	}
	if began, ok := r.began[e.Subject]; ok && !e.Time.Before(began) {
		put(r.step, at, e.Time.Sub(began).Seconds(), string(e.Type))
	}
}

func (r *Recorder) business(e event.Event, at int64) {
	status := statuses[e.Type]
	reason := "none"
	switch e.Type {
	case event.OrderCreated:
		var m orderv1.OrderCreated
		if read(e, &m) {
			put(r.amount, at, float64(m.Amount)/minorUnits, m.Currency)
		}
	case event.OrderFailed:
		var m orderv1.OrderFailed
		if read(e, &m) {
			reason = m.Reason
		}
	case event.OrderCancelled:
		var m orderv1.OrderCancelled
		if read(e, &m) {
			reason = m.Reason
		}
	case event.OrderAttention:
		var m orderv1.OrderAttention
		if read(e, &m) {
			reason = m.Reason
		}
	case event.PaymentProcessed:
		var m paymentv1.PaymentProcessed
		if read(e, &m) {
			put(r.money, at, float64(m.Amount)/minorUnits, "captured", m.Currency)
		}
	case event.PaymentRefunded:
		var m paymentv1.PaymentRefunded
		if read(e, &m) {
			put(r.money, at, float64(m.Amount)/minorUnits, "refunded", m.Currency)
		}
	case event.InventoryUpdated:
		var m inventoryv1.InventoryUpdated
		if !read(e, &m) {
			return
		}
		for _, c := range m.Changes {
			if c.Delta < 0 {
				put(r.stock, at, float64(-c.Delta), "out")
			} else if c.Delta > 0 {
				put(r.stock, at, float64(c.Delta), "in")
			}
		}
	}
	if status != "" {
		put(r.orders, at, 1, status, reason)
	}
}

func read(e event.Event, m proto.Message) bool { return proto.Unmarshal(e.Data, m) == nil }
