package simulation

import (
	"maps"
	"slices"
	"time"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/scripts/simulation/internal/order"
	"github.com/waybill-dev/waybill/scripts/simulation/internal/stock"
)

// inventory is the inventory service.
type inventory struct {
	*node
	products map[string]stock.Product
	rows     map[string]stock.Reservation
	moves    []stock.Move
	initial  map[string]int64
	short    map[string]bool // paid orders that could not have their goods
	closed   map[string]bool // orders whose end was read
}

var terms = stock.Terms{Hold: 800 * time.Millisecond, Lapse: time.Minute, Pin: 70 * time.Second}

func (w *World) newInventory() *inventory {
	i := &inventory{products: map[string]stock.Product{}, rows: map[string]stock.Reservation{}, initial: map[string]int64{}, short: map[string]bool{}, closed: map[string]bool{}}
	for _, id := range []string{"a", "b", "c"} {
		n := int64(2 + w.rnd.IntN(8)) // little: some orders do not get what they ask for
		i.products[id] = stock.Product{Key: stock.Key{Tenant: 1, Product: id}, Price: price, Currency: "EUR", OnHand: n}
		i.initial[id] = n
	}
	i.node = w.node("inventory", []string{event.Orders, event.Payments}, i.follow)
	i.node.tick = i.sweep
	return i
}

// date turns the world's clock into one that is never zero.
func (w *World) date() time.Time { return time.Unix(1_700_000_000, int64(w.now)) }

// book loads what a transaction locks.
func (i *inventory) book(ids ...string) *stock.Book {
	b := stock.NewBook(terms)
	b.Now = i.w.date()
	for _, id := range slices.Sorted(maps.Keys(i.products)) {
		b.PutProduct(i.products[id])
	}
	for _, id := range ids {
		if r, ok := i.rows[id]; ok {
			b.PutReservation(r)
		}
	}
	return b
}

// save writes what the book has decided.
func (i *inventory) save(b *stock.Book) (out []event.Event) {
	for _, c := range b.Reservations() {
		if i.w.flaws.NoTombstone && c.Was == stock.None && c.State == stock.Released {
			continue
		}
		i.rows[c.OrderID] = c.Reservation
	}
	for _, c := range b.Products() {
		p := i.products[c.Product]
		p.OnHand, p.Reserved, p.EventSeq = p.OnHand+c.OnHand, p.Reserved+c.Reserved, c.EventSeq
		i.products[c.Product] = p
		if p.OnHand < 0 || p.Reserved < 0 || p.Reserved > p.OnHand {
			i.w.violate("product %s has %d on hand and %d reserved", p.Product, p.OnHand, p.Reserved)
		}
	}
	i.moves = append(i.moves, b.Moves()...)
	for _, n := range b.Notes() {
		x := note{state: string(n.State), amount: n.Total, currency: n.Currency, reason: n.Reason}
		for _, it := range n.Items {
			x.items = append(x.items, line{it.Product, it.Quantity})
		}
		t := map[stock.NoteKind]event.Type{stock.NoteReserved: event.InventoryReserved, stock.NoteReleased: event.InventoryReleased, stock.NoteUpdated: event.InventoryUpdated}[n.Kind]
		out = append(out, i.w.message(t, n.Subject, n.Seq, x))
	}
	return out
}

// reserve is the endpoint for orders and, without Pin, for everybody.
func (i *inventory) reserve(a stock.Ask) (answer any, told bool) {
	var got stock.Answer
	told = i.tx(func() []event.Event {
		b := i.book(a.OrderID)
		got = b.Reserve(a)
		if i.closed[a.OrderID] && (got.Outcome == stock.OutcomePinned || got.Outcome == stock.OutcomeHeld) && got.Reservation.State.Reserving() {
			i.w.violate("I-STOCK-5 %s: stock is set aside for an order whose end was read before", a.OrderID)
		}
		return i.save(b)
	})
	return got, told
}

// release is POST /inventory/release.
func (i *inventory) release(id string) {
	i.tx(func() []event.Event {
		b := i.book(id)
		b.Settle(stock.News{Fact: stock.Free, OrderID: id, Tenant: 1, Reason: "asked for"})
		return i.save(b)
	})
}

// follow is the handler of the group.
func (i *inventory) follow(batch []event.Event) []event.Event {
	var ids []string
	var news []stock.News
	for _, e := range batch {
		n, ok := i.newsOf(e)
		if ok && !slices.Contains(ids, n.OrderID) {
			ids = append(ids, n.OrderID)
		}
		if ok {
			news = append(news, n)
		}
	}
	b := i.book(ids...)
	for _, n := range news {
		done := b.Settle(n)
		if done.Verdict == stock.Unknown {
			i.w.violate("reservation %s: %s cannot happen in %s", n.OrderID, n.Fact, done.State)
		}
		if n.Fact == stock.Closed || n.Fact == stock.GoodsBack {
			i.closed[n.OrderID] = true
		}
		if n.Fact == stock.Paid && len(done.Short) > 0 {
			i.short[n.OrderID] = true
		}
		if done.Settled {
			delete(i.short, n.OrderID)
		}
	}
	return i.save(b)
}

func (i *inventory) newsOf(e event.Event) (n stock.News, ok bool) {
	x := i.w.read(e)
	n = stock.News{OrderID: e.Subject, Tenant: 1, Reason: x.reason}
	switch e.Type {
	case event.OrderPaymentProcessed:
		n.Fact = stock.Paid
		for _, l := range x.items {
			n.Items = append(n.Items, stock.Item{Product: l.product, Quantity: l.quantity})
		}
		return n, len(n.Items) > 0
	case event.OrderFailed:
		n.Fact = stock.Closed
	case event.OrderCancelled:
		if n.Fact = stock.Closed; x.goods == "returned" {
			n.Fact = stock.GoodsBack
		}
	case event.PaymentInitiated:
		n.Fact = stock.PaymentStarted
	case event.PaymentFailed:
		n.Fact = stock.PaymentFailed
	default:
		return n, false
	}
	return n, true
}

// sweep frees what is due, and asks about old pins.
func (i *inventory) sweep() {
	now := i.w.date()
	var due []stock.Reservation
	for _, id := range slices.Sorted(maps.Keys(i.rows)) {
		r := i.rows[id]
		lapses := r.State == stock.Held || i.w.flaws.PinsExpire && r.State == stock.Pinned && !r.Due.After(now.Add(terms.Pin-terms.Hold))
		switch {
		case lapses && (i.w.flaws.PinsExpire || !r.Due.After(now)):
			due = append(due, r)
		case r.State == stock.Pinned && !r.Due.After(now):
			i.askAbout(r)
		}
	}
	if len(due) == 0 {
		return
	}
	lapse := func() {
		i.tx(func() []event.Event {
			var ids []string
			for _, r := range due {
				ids = append(ids, r.OrderID)
			}
			if i.w.flaws.BlindSweeper || i.w.flaws.PinsExpire {
				return i.blind(due)
			}
			b := i.book(ids...)
			for _, r := range due {
				b.Settle(stock.News{Fact: stock.Lapse, OrderID: r.OrderID, Tenant: 1, Reason: "expired"})
			}
			return i.save(b)
		})
	}
	i.after(i.w.delay()+i.w.between(0, 400*time.Millisecond), lapse) // between the look and the lock
}

// blind expires what it was told to, whatever has become of it: a flaw.
func (i *inventory) blind(due []stock.Reservation) (out []event.Event) {
	for _, r := range due {
		now := i.rows[r.OrderID]
		if now.State.Reserving() {
			for _, it := range now.Items {
				p := i.products[it.Product]
				p.Reserved -= it.Quantity
				i.products[it.Product] = p
			}
		}
		now.State, now.Due = stock.Expired, time.Time{}
		i.rows[r.OrderID] = now
	}
	return nil
}

// askAbout asks the order service whether the order of an old pin lives.
func (i *inventory) askAbout(r stock.Reservation) {
	i.w.call(i.node, i.w.orders.node, func() (any, bool) {
		x := i.w.orders.rows[r.OrderID]
		dead := x != nil && (x.Status == order.Failed || x.Status == order.Cancelled || x.Status == order.Completed && len(x.Items) == 0)
		return dead, true
	}, func(answer any) {
		i.tx(func() []event.Event {
			now, ok := i.rows[r.OrderID]
			if !ok || now.State != stock.Pinned || !now.Due.Equal(r.Due) {
				return nil
			}
			if !answer.(bool) {
				now.Due = i.w.date().Add(terms.Pin)
				i.rows[r.OrderID] = now
				return nil
			}
			b := i.book(r.OrderID)
			b.Settle(stock.News{Fact: stock.Abandoned, OrderID: r.OrderID, Tenant: 1, Reason: "abandoned"})
			return i.save(b)
		})
	})
}
