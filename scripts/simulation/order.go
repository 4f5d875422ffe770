package simulation

import (
	"strings"
	"time"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/scripts/simulation/internal/order"
	"github.com/waybill-dev/waybill/scripts/simulation/internal/stock"
)

// orders is the order service.
type orders struct {
	*node
	rows   map[string]*order.Order
	moves  map[string][]order.Status // every status that an order had
	asked  map[string]time.Duration  // when inventory was asked last
	asking map[string]bool           // of this process
}

func (w *World) newOrders() *orders {
	o := &orders{rows: map[string]*order.Order{}, moves: map[string][]order.Status{}, asked: map[string]time.Duration{}}
	o.node = w.node("order", []string{event.Payments, event.Inventory, event.Shipping}, o.follow)
	o.node.begin = func() { o.asking = map[string]bool{} }
	o.node.tick = o.sweep
	return o
}

// fact is something to apply to one order.
type fact struct {
	order.Fact
	id string
}

// place is POST /orders. An order that is there already is the same one.
func (o *orders) place(p *plan) (told bool) {
	if o.rows[p.id] != nil {
		return o.step()
	}
	told = o.tx(func() []event.Event {
		x := &order.Order{ID: p.id, Tenant: 1, Customer: "c", Amount: p.amount, Currency: "EUR", Method: "card", Status: order.Pending}
		for _, l := range p.items {
			x.Items = append(x.Items, order.Item{ProductID: l.product, Quantity: l.quantity})
		}
		if len(x.Items) > 0 {
			x.Address = &order.Address{City: "Berlin"}
		}
		o.rows[p.id], o.moves[p.id] = x, []order.Status{order.Pending}
		p.deadline = o.w.now + p.patience
		x.EventSeq++
		out := []event.Event{o.w.message(event.OrderCreated, x.ID, x.EventSeq, o.note(x, order.Change{}))}
		if len(x.Items) == 0 {
			out = append(out, o.apply(fact{order.Fact{Event: order.ChargeOnly}, x.ID})...)
		}
		return out
	})
	if told {
		o.reserve(p.id)
	}
	return told
}

func (o *orders) note(x *order.Order, c order.Change) note {
	n := note{amount: x.Amount, currency: x.Currency, method: x.Method, reason: string(x.Reason), goods: string(x.Goods), written: c.WrittenOff, inside: true}
	for _, it := range x.Items {
		n.items = append(n.items, line{it.ProductID, it.Quantity})
	}
	return n
}

// apply applies a fact within a transaction.
func (o *orders) apply(f fact) (out []event.Event) {
	x := o.rows[f.id]
	if x == nil {
		return nil
	}
	was := x.Status
	c := x.Apply(f.Fact, time.Unix(0, int64(o.w.now)))
	switch c.Outcome {
	case order.Unknown:
		o.w.violate("order %s: %s (%s) cannot happen in %s", f.id, f.Event, c.Event, was)
		return nil
	case order.Stale:
		return nil
	}
	if was.Final() {
		o.w.violate("order %s left %s for %s", f.id, was, x.Status)
	}
	o.moves[f.id] = append(o.moves[f.id], x.Status)
	for _, typ := range c.Sends {
		x.EventSeq++
		n := o.note(x, c)
		switch typ {
		case event.OrderShippingRequested:
			n.attempt = x.Shipment
		case event.OrderRefundRequested:
			n.attempt = x.Refund
		}
		out = append(out, o.w.message(typ, x.ID, x.EventSeq, n))
	}
	return out
}

// follow is the handler of the group.
func (o *orders) follow(batch []event.Event) (out []event.Event) {
	for _, e := range batch {
		if strings.HasPrefix(e.Subject, "stock:") {
			continue
		}
		n := o.w.read(e)
		f := fact{order.Fact{Event: order.Event(e.Type), Amount: n.amount, Currency: n.currency, Attempt: n.attempt}, e.Subject}
		switch e.Type {
		case event.InventoryReserved:
			f.Pinned = n.state == string(stock.Pinned)
			for _, l := range n.items {
				f.Items = append(f.Items, order.Item{ProductID: l.product, Quantity: l.quantity})
			}
		case event.PaymentFailed:
			f.Reason = order.PaymentFailedReason
			if n.status == "declined" {
				f.Reason = order.PaymentDeclinedReason
			}
		}
		out = append(out, o.apply(f)...)
	}
	return out
}

// reserve asks inventory. Nothing is concluded from an answer that does not come.
func (o *orders) reserve(id string) {
	x := o.rows[id]
	if o.asking[id] || x == nil || x.Status != order.Pending || len(x.Items) == 0 {
		return
	}
	o.asking[id], o.asked[id] = true, o.w.now
	ask := stock.Ask{OrderID: id, Tenant: 1, Amount: x.Amount, Currency: x.Currency, Pin: true}
	for _, it := range x.Items {
		ask.Items = append(ask.Items, stock.Item{Product: it.ProductID, Quantity: it.Quantity})
	}
	o.after(5*time.Second, func() { delete(o.asking, id) }) // the call's time-out
	o.w.call(o.node, o.w.inventory.node, func() (any, bool) { return o.w.inventory.reserve(ask) }, func(answer any) {
		delete(o.asking, id)
		a := answer.(stock.Answer)
		f := fact{order.Fact{}, id}
		switch {
		case a.Outcome == stock.OutcomePinned && a.Total == ask.Amount && a.Currency == ask.Currency:
			f.Event = order.StockReserved
		case a.Outcome == stock.OutcomePinned, a.Outcome == stock.OutcomeMismatch:
			f.Event, f.Reason = order.StockMismatch, order.AmountMismatch
		case a.Outcome == stock.OutcomeRefused:
			f.Event, f.Reason = order.StockRefused, order.Reason(a.Reason)
		default:
			f.Event, f.Reason = order.StockClosed, order.ReservationExpired
		}
		o.tx(func() []event.Event { return o.apply(f) })
	})
}

// sweep brings back what waits.
func (o *orders) sweep() {
	for _, id := range o.w.ids {
		x := o.rows[id]
		if x == nil || x.Status != order.Pending && x.Status != order.Paying {
			continue
		}
		switch {
		case o.w.now >= o.w.plans[id].deadline:
			o.tx(func() []event.Event { return o.apply(fact{order.Fact{Event: order.Deadline}, id}) })
		case x.Status == order.Pending && o.w.now >= o.asked[id]+2*time.Second:
			o.reserve(id)
		}
		if !o.up {
			return
		}
	}
}

// cancel is the customer's wish.
func (o *orders) cancel(id string) (told bool) {
	return o.tx(func() []event.Event { return o.apply(fact{order.Fact{Event: order.Cancel}, id}) })
}

// decide is a person's: a ticket is open.
func (o *orders) decide(id string) (told bool) {
	x := o.rows[id]
	return o.tx(func() []event.Event {
		if x.Status != order.Attention {
			return nil
		}
		f := fact{order.Fact{Event: order.PersonRefund}, id}
		if x.NeedsGoods() {
			f.Goods = []order.Goods{order.GoodsReturned, order.GoodsLost}[o.w.rnd.IntN(2)]
		}
		switch o.w.rnd.IntN(3) {
		case 0:
			f.Event = order.PersonWriteOff
		case 1:
			if x.Resendable(f.Goods) {
				f.Event = order.PersonResend
			}
		}
		return o.apply(f)
	})
}
