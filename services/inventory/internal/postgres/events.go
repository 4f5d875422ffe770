package postgres

import (
	"context"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/libs/event"
	inventoryv1 "github.com/waybill-dev/waybill/proto/gen/waybill/inventory/v1"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

// events turns the book's notes into events. A note that knows its cause keeps the cause's trace, others have that of ctx.
func events(ctx context.Context, notes []stock.Note) []event.Event {
	out := make([]event.Event, 0, len(notes))
	for _, n := range notes {
		t, m := message(n)
		e := event.New(ctx, t, n.Subject, n.Tenant, n.Seq, m)
		if n.Trace != "" {
			e.Traceparent = n.Trace
		}
		e.Cause = n.At
		out = append(out, e)
	}
	return out
}

func message(n stock.Note) (event.Type, proto.Message) {
	switch n.Kind {
	case stock.NoteReserved:
		return event.InventoryReserved, &inventoryv1.InventoryReserved{
			OrderId: n.OrderID, State: strings.ToLower(string(n.State)), Items: items(n.Items), Total: n.Total, Currency: n.Currency,
		}
	case stock.NoteReleased:
		return event.InventoryReleased, &inventoryv1.InventoryReleased{
			OrderId: n.OrderID, Items: items(n.Items), State: strings.ToLower(string(n.State)), Reason: n.Reason,
		}
	}
	m := &inventoryv1.InventoryUpdated{OrderId: n.OrderID, Reason: n.Reason}
	for _, c := range n.Changes {
		m.Changes = append(m.Changes, &inventoryv1.Change{ProductId: c.Product, Delta: c.Delta, OnHand: c.OnHand, Reserved: c.Reserved})
	}
	return event.InventoryUpdated, m
}

func items(in []stock.Item) []*inventoryv1.Item {
	out := make([]*inventoryv1.Item, len(in))
	for i, it := range in {
		out[i] = &inventoryv1.Item{ProductId: it.Product, Quantity: it.Quantity}
	}
	return out
}
