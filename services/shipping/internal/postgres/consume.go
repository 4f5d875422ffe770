package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	shippingv1 "github.com/waybill-dev/waybill/proto/gen/waybill/shipping/v1"
	"github.com/waybill-dev/waybill/services/shipping/internal/shipment"
)

// Wants are the events that Consume understands.
var Wants = []event.Type{event.OrderCreated, event.OrderPaymentProcessed, event.OrderShippingRequested}

// fact is what an event says, decoded.
type fact struct {
	event.Event
	customer string
	paid     bool
	shipment *shipment.Shipment
	idle     bool // an order without items: nothing to keep until it is paid
}

// Consume is the inbox's handler: it keeps whose the orders are and that they are paid, and makes their shipments.
func (s *Store) Consume(ctx context.Context, u *pg.Unit, batch []event.Event) error {
	facts := make([]fact, 0, len(batch))
	subjects := map[string]bool{}
	for _, e := range batch {
		f, err := read(e)
		if err != nil {
			return err
		}
		facts = append(facts, f)
		subjects[e.Subject] = true
	}
	ids := slices.Sorted(maps.Keys(subjects))
	orders := lockOrders(u, ids)
	known := map[shipment.Key]bool{}
	u.Read(`SELECT order_id, attempt FROM shipments WHERE order_id = ANY($1)`, ids).Query(func(rows pgx.Rows) error {
		var k shipment.Key
		_, err := pgx.ForEachRow(rows, []any{&k.OrderID, &k.Attempt}, func() error {
			known[k] = true
			return nil
		})
		return err
	})
	if err := u.Fetch(ctx); err != nil {
		return err
	}

	var made []*shipment.Shipment
	var events []event.Event
	for _, f := range facts {
		if f.idle {
			continue
		}
		o := orders[f.Subject]
		if o == nil {
			o = &order{tenant: f.Tenant}
			orders[f.Subject] = o
		}
		if f.customer != "" {
			o.customer = f.customer // order.created comes first, so the row is new
		}
		if f.paid && !o.paid {
			o.paid, o.changed = true, true
		}
		if f.shipment == nil || known[f.shipment.Key] {
			continue
		}
		known[f.shipment.Key] = true
		made = append(made, f.shipment)
		o.seq++
		o.changed = true
		events = append(events, f.Next(event.ShippingRequested, f.Subject, o.seq,
			&shippingv1.ShippingRequested{OrderId: f.Subject, Attempt: f.shipment.Attempt}))
	}
	writeOrders(u, ids, orders)
	if len(made) == 0 {
		return nil
	}
	if err := insert(u, made); err != nil {
		return err
	}
	s.outbox.Add(u, events...)
	u.AfterCommit(s.wake)
	return nil
}

func read(e event.Event) (fact, error) {
	f := fact{Event: e}
	switch e.Type {
	case event.OrderCreated:
		var m orderv1.OrderCreated
		if err := e.Decode(&m); err != nil {
			return f, err
		}
		f.customer, f.idle = m.Customer, len(m.Items) == 0
	case event.OrderPaymentProcessed:
		var m orderv1.OrderPaymentProcessed
		if err := e.Decode(&m); err != nil {
			return f, err
		}
		f.paid = true
		if len(m.Items) > 0 {
			f.shipment = parcel(e, 1, m.Address, m.Items)
		}
	case event.OrderShippingRequested:
		var m orderv1.OrderShippingRequested
		if err := e.Decode(&m); err != nil {
			return f, err
		}
		if m.Attempt < 1 || len(m.Items) == 0 {
			return f, inbox.Permanent(fmt.Errorf("order.shipping_requested of %s: attempt %d with %d items", e.Subject, m.Attempt, len(m.Items)))
		}
		f.paid = true
		f.shipment = parcel(e, m.Attempt, m.Address, m.Items)
	}
	return f, nil
}

func parcel(e event.Event, attempt int32, a *orderv1.Address, items []*orderv1.Item) *shipment.Shipment {
	s := &shipment.Shipment{
		Key: shipment.Key{OrderID: e.Subject, Attempt: attempt}, Tenant: e.Tenant, Status: shipment.Requested, Traceparent: e.Traceparent,
		Address: shipment.Address{
			Name: a.GetName(), Line1: a.GetLine1(), Line2: a.GetLine2(), City: a.GetCity(), Region: a.GetRegion(),
			PostalCode: a.GetPostalCode(), Country: a.GetCountry(),
		},
	}
	for _, it := range items {
		s.Items = append(s.Items, shipment.Item{ProductID: it.GetProductId(), Quantity: it.GetQuantity()})
	}
	return s
}

func insert(u *pg.Unit, made []*shipment.Shipment) error {
	n := len(made)
	ids, traces := make([]string, n), make([]string, n)
	attempts := make([]int32, n)
	addresses, items := make([][]byte, n), make([][]byte, n)
	for i, m := range made {
		ids[i], attempts[i], traces[i] = m.OrderID, m.Attempt, m.Traceparent
		var err error
		if addresses[i], err = json.Marshal(m.Address); err != nil {
			return err
		}
		if items[i], err = json.Marshal(m.Items); err != nil {
			return err
		}
	}
	u.Guard(n, `INSERT INTO shipments (order_id, attempt, status, address, items, traceparent)
		SELECT id, attempt, 'requested', address, items, trace
		FROM unnest($1::text[], $2::int[], $3::jsonb[], $4::jsonb[], $5::text[]) AS s(id, attempt, address, items, trace)
		ON CONFLICT DO NOTHING`, ids, attempts, addresses, items, traces)
	return nil
}
