package postgres

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/problem"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

// Wants are the events that Follow understands.
var Wants = []event.Type{
	event.OrderPaymentProcessed, event.OrderFailed, event.OrderCancelled,
	event.PaymentInitiated, event.PaymentFailed,
}

// KindShort is the intervention for an order that is paid and whose stock cannot be taken.
const KindShort = "stock_short"

// goodsReturned is what order.cancelled says of goods that are back on the shelf.
const goodsReturned = "returned"

// Interventions is where the store leaves what a person must see to: the inbox.
type Interventions interface {
	Raise(u *pg.Unit, x inbox.Intervention)
	Resolve(u *pg.Unit, kind, subject, note string)
}

// shortage is what an intervention of KindShort shows.
type shortage struct {
	OrderID string          `json:"order_id"`
	Missing []shortageOfOne `json:"missing"`
}

type shortageOfOne struct {
	ProductID string `json:"product_id"`
	Requested int64  `json:"requested"`
	Available int64  `json:"available"`
}

// Follow applies what the order and payment services announce. It is the handler of the consumer group.
func (s *Store) Follow(ctx context.Context, u *pg.Unit, batch []event.Event, raise Interventions) error {
	news := make([]stock.News, 0, len(batch))
	for _, e := range batch {
		n, ok, err := read(e)
		if err != nil {
			return err
		}
		if ok {
			news = append(news, n)
		}
	}
	if len(news) == 0 {
		return nil
	}
	b := stock.NewBook(s.terms)
	loadNews(u, b, news)
	if err := u.Fetch(ctx); err != nil {
		return fmt.Errorf("lock reservations and products: %w", err)
	}
	settled := make([]stock.Settlement, len(news))
	for i, n := range news {
		settled[i] = b.Settle(n)
		if settled[i].Verdict == stock.Unknown {
			return inbox.Permanent(fmt.Errorf("%s of a reservation in state %s is in no table", n.Fact, settled[i].State))
		}
		tell(u, raise, n, settled[i])
	}
	s.save(ctx, u, b)
	u.AfterCommit(func() { s.count.settled(news, settled) })
	return nil
}

// tell raises an intervention where a paid order cannot have its stock, and closes it where the order is undone.
func tell(u *pg.Unit, raise Interventions, n stock.News, done stock.Settlement) {
	x := inbox.Intervention{Kind: KindShort, Subject: n.OrderID, Tenant: n.Tenant, Trace: n.Trace}
	detail := shortage{OrderID: n.OrderID, Missing: []shortageOfOne{}}
	switch {
	case done.Settled:
		raise.Resolve(u, KindShort, n.OrderID, "the order was undone: "+n.Reason)
		return
	case n.Fact != stock.Paid:
		return
	case done.Foreign:
		x.Reason = "the order is paid, but the reservation under its id belongs to another tenant"
	case len(done.Short) > 0:
		x.Reason = "the order is paid, its stock was not set aside any more, and there is too little left"
		for _, m := range done.Short {
			detail.Missing = append(detail.Missing, shortageOfOne{m.Product, m.Requested, m.Available})
		}
	default:
		return
	}
	x.Detail = detail
	raise.Raise(u, x)
}

// loadNews queues the locks that the facts need.
func loadNews(u *pg.Unit, b *stock.Book, news []stock.News) {
	var w wants
	started := false
	var always []string
	for _, n := range news {
		w.orders = append(w.orders, n.OrderID)
		if n.Fact == stock.PaymentStarted {
			started = true
			continue
		}
		always = append(always, n.OrderID)
		for _, it := range n.Items {
			w.lines = append(w.lines, stock.Key{Tenant: n.Tenant, Product: it.Product})
		}
		if n.Fact != stock.PaymentFailed {
			w.freed = append(w.freed, n.OrderID)
		}
	}
	if started {
		w.always = always
		if w.always == nil {
			w.always = []string{}
		}
	}
	load(u, b, w)
}

// Confirm tries an intervention of KindShort again, with the items that the reservation's row kept.
func (s *Store) Confirm(ctx context.Context, u *pg.Unit, _ uuid.UUID, orderID string) error {
	b := stock.NewBook(s.terms)
	orders := []string{orderID}
	load(u, b, wants{orders: orders, freed: orders})
	if err := u.Fetch(ctx); err != nil {
		return fmt.Errorf("lock reservation: %w", err)
	}
	r, ok := b.Reservation(orderID)
	switch {
	case ok && r.State == stock.Confirmed:
		return nil // driven before
	case !ok || !r.Owed():
		return problem.New(409, "not-redrivable", "The order of this id is not owed any stock of its own.")
	}
	done := b.Settle(stock.News{Fact: stock.Paid, OrderID: orderID, Tenant: r.Tenant, Items: r.Items})
	if len(done.Short) > 0 {
		p := problem.New(409, "insufficient-stock", "The stock is still short.")
		for _, m := range done.Short {
			p = p.Field("", fmt.Sprintf("%s: requested %d, available %d", m.Product, m.Requested, m.Available))
		}
		return p
	}
	s.save(ctx, u, b)
	return nil
}

// read turns an event into a fact; ok is false where it says nothing to a stockroom.
func read(e event.Event) (n stock.News, ok bool, err error) {
	n = stock.News{OrderID: e.Subject, Tenant: e.Tenant, Cause: stock.Cause{Trace: e.Traceparent, At: e.Time}}
	switch e.Type {
	case event.PaymentInitiated:
		n.Fact = stock.PaymentStarted
	case event.PaymentFailed:
		n.Fact = stock.PaymentFailed
	case event.OrderFailed:
		var m orderv1.OrderFailed
		if err := e.Decode(&m); err != nil {
			return n, false, err
		}
		n.Fact, n.Reason = stock.Closed, m.Reason
	case event.OrderCancelled:
		var m orderv1.OrderCancelled
		if err := e.Decode(&m); err != nil {
			return n, false, err
		}
		n.Fact, n.Reason = stock.Closed, m.Reason
		if m.Goods == goodsReturned {
			n.Fact = stock.GoodsBack
		}
	case event.OrderPaymentProcessed:
		var m orderv1.OrderPaymentProcessed
		if err := e.Decode(&m); err != nil {
			return n, false, err
		}
		if len(m.Items) == 0 {
			return n, false, nil // charge-only
		}
		raw := make([]stock.Item, len(m.Items))
		for i, it := range m.Items {
			raw[i] = stock.Item{Product: it.GetProductId(), Quantity: it.GetQuantity()}
		}
		if n.Items, err = stock.Sum(raw); err != nil {
			return n, false, inbox.Permanent(fmt.Errorf("items of %s: %w", e.ID, err))
		}
		n.Fact = stock.Paid
	default:
		return n, false, nil
	}
	return n, true, nil
}
