package simulation

import (
	"fmt"
	"maps"
	"slices"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/scripts/simulation/internal/order"
	"github.com/waybill-dev/waybill/scripts/simulation/internal/payment"
	"github.com/waybill-dev/waybill/scripts/simulation/internal/stock"
)

// moving says what has not come to rest.
func (w *World) moving() string {
	for _, id := range w.ids {
		x := w.orders.rows[id]
		if x == nil {
			return id + " is not placed"
		}
		if !x.Status.Final() {
			return fmt.Sprintf("order %s is %s, reason %q", id, x.Status, x.Reason)
		}
	}
	for _, n := range w.nodes {
		if !n.up {
			return n.name + " is down"
		}
		for _, r := range n.table {
			if !r.published {
				return fmt.Sprintf("%s has not published row %d", n.name, r.ID)
			}
		}
		for _, p := range n.reads {
			if at, end := n.position[p], len(w.topic(p.topic).partitions[p.partition]); at < end {
				return fmt.Sprintf("%s has read %d of %d of %s/%d", n.name, at, end, p.topic, p.partition)
			}
		}
		for k, early := range n.early {
			if len(early) > 0 {
				return fmt.Sprintf("%s waits for a predecessor of %s's %s", n.name, k.Source, k.Subject)
			}
		}
	}
	for id, p := range w.payments.rows {
		if p.Status.Open() {
			return fmt.Sprintf("payment %s is %s", id, p.Status)
		}
	}
	for id, refunds := range w.payments.refunds {
		if slices.ContainsFunc(refunds, func(r payment.Refund) bool { return r.Status.Open() }) {
			return fmt.Sprintf("payment %s has an open refund", id)
		}
	}
	for id, open := range w.payments.tickets {
		if open {
			return fmt.Sprintf("payment %s has a ticket", id)
		}
	}
	for id, r := range w.inventory.rows {
		if r.State == stock.Held {
			return fmt.Sprintf("reservation %s is held", id)
		}
		if x := w.orders.rows[id]; r.State == stock.Pinned && (x == nil || x.Status.Final()) {
			return fmt.Sprintf("reservation %s is pinned and nobody needs it", id)
		}
	}
	if w.shipping.open() {
		return "a parcel is under way"
	}
	return ""
}

// check compares the books at rest. The names are those of RELIABILITY.md 5.
func (w *World) check() {
	w.checkMoney()
	w.checkStock()
	w.checkSaga()
	w.checkEvents()
}

func (w *World) checkMoney() {
	captures, net := map[string]int{}, map[string]int64{}
	for _, e := range w.payments.provider.ledger {
		if e.amount != w.plans[e.id].amount {
			w.violate("I-PAY-4 %s: the provider moved %d of %d", e.id, e.amount, w.plans[e.id].amount)
		}
		if e.kind == "capture" {
			captures[e.id]++
			net[e.id] += e.amount
		} else {
			net[e.id] -= e.amount
		}
	}
	for _, id := range w.ids {
		x := w.orders.rows[id]
		want := int64(0)
		if x.Status == order.Completed {
			want = x.Amount
		}
		got := net[id]
		if w.payments.outside[id] {
			got -= x.Amount // a person has returned it
		}
		if got != want {
			w.violate("I-PAY-1 %s is %s (%s): %d are kept, want %d", id, x.Status, x.Reason, got, want)
		}
		if captures[id] > 1 {
			w.violate("I-PAY-2 %s was charged %d times", id, captures[id])
		}
		if booked := w.payments.books[id]; booked != got {
			w.violate("I-PAY-4 %s: %d are booked, %d were moved", id, booked, got)
		}
	}
}

func (w *World) checkStock() {
	i := w.inventory
	onHand, reserved, gone := maps.Clone(i.initial), map[string]int64{}, map[string]int64{}
	for _, m := range i.moves {
		if onHand[m.Product] += m.Delta; onHand[m.Product] != m.Balance {
			w.violate("I-STOCK-4 the ledger says %d of %s, its lines make %d", m.Balance, m.Product, onHand[m.Product])
		}
	}
	for _, r := range i.rows {
		for _, it := range r.Items {
			switch {
			case r.State.Reserving():
				reserved[it.Product] += it.Quantity
			case r.State == stock.Confirmed:
				gone[it.Product] += it.Quantity
			}
		}
	}
	for id, p := range i.products {
		if p.OnHand != onHand[id] || p.OnHand < 0 {
			w.violate("I-STOCK-1 %s: %d on hand, the ledger makes it %d", id, p.OnHand, onHand[id])
		}
		if p.Reserved != reserved[id] {
			w.violate("I-STOCK-2 %s: %d reserved, reservations add up to %d", id, p.Reserved, reserved[id])
		}
		if i.initial[id]-p.OnHand != gone[id] {
			w.violate("I-STOCK-3 %s: %d have left, %d were confirmed", id, i.initial[id]-p.OnHand, gone[id])
		}
	}
	for _, id := range w.ids {
		x, r := w.orders.rows[id], i.rows[id]
		if len(x.Items) == 0 {
			continue
		}
		switch lost := x.Goods == order.GoodsLost; {
		case x.Status == order.Completed && r.State != stock.Confirmed:
			w.violate("I-SAGA-1 %s is completed, its stock is %q", id, r.State)
		case x.Status != order.Completed && r.State == stock.Confirmed && !lost:
			w.violate("I-SAGA-1 %s is %s, its stock is sold", id, x.Status)
		case i.short[id]:
			w.violate("I-STOCK-3 %s was paid and there was no stock", id)
		}
	}
}

func (w *World) checkSaga() {
	allowed := map[[2]order.Status]bool{}
	for _, from := range order.Statuses() {
		for _, e := range order.Events() {
			if to, _, outcome := order.Next(from, e); outcome == order.Moved {
				allowed[[2]order.Status{from, to}] = true
			}
		}
	}
	for _, id := range w.ids {
		path := w.orders.moves[id]
		for n := 1; n < len(path); n++ {
			if !allowed[[2]order.Status{path[n-1], path[n]}] {
				w.violate("I-SAGA-2 %s went from %s to %s", id, path[n-1], path[n])
			}
		}
		x := w.orders.rows[id]
		taken, delivered := w.shipping.shipped(id)
		if attempts := w.shipping.attempts(id); taken > attempts || attempts != x.Shipment {
			w.violate("I-ADDR %s: %d parcels for %d shipments, the order counts %d", id, taken, attempts, x.Shipment)
		}
		if delivered > 1 || (delivered == 1) != (x.Status == order.Completed && len(x.Items) > 0) {
			w.violate("I-SAGA-1 %s is %s and was delivered %d times", id, x.Status, delivered)
		}
	}
}

func (w *World) checkEvents() {
	type key struct{ source, subject string }
	last := map[key]int64{}
	for _, n := range w.nodes {
		for _, r := range n.table {
			for _, e := range r.Events {
				k := key{n.source, e.Subject}
				if e.Seq != last[k]+1 {
					w.violate("I-EVT-1 %s of %s: sequence %d follows %d", e.Type, e.Subject, e.Seq, last[k])
				}
				last[k] = e.Seq
			}
		}
	}
	seen := map[key]int64{}
	for _, name := range event.Topics() {
		for _, log := range w.topic(name).partitions {
			for _, e := range log {
				k := key{e.Source, e.Subject}
				if e.Seq > seen[k]+1 {
					w.violate("I-EVT-3 %s: %s of %s, sequence %d, comes after %d", name, e.Type, e.Subject, e.Seq, seen[k])
				}
				seen[k] = max(seen[k], e.Seq)
			}
		}
	}
	for k, n := range last {
		if seen[k] != n {
			w.violate("I-EVT-2 %s of %s: %d written, %d published", k.subject, k.source, n, seen[k])
		}
	}
	for _, n := range w.nodes {
		for k, at := range n.states {
			if at != last[key{k.Source, k.Subject}] {
				w.violate("I-EVT-4 %s stands at %d of %s's %s, which has %d", n.name, at, k.Source, k.Subject, last[key{k.Source, k.Subject}])
			}
		}
	}
}

// result tells what the run has been about.
func (w *World) result() Result {
	r := Result{Steps: w.steps, Ends: map[string]int{}, Seen: map[string]int{}, Broken: w.broken}
	for _, id := range w.ids {
		x := w.orders.rows[id]
		if x == nil {
			continue
		}
		r.Ends[fmt.Sprintf("%s %s", x.Status, x.Reason)]++
		if x.Refund > 1 {
			r.Seen["refund repeated"]++
		}
		if x.Shipment > 1 {
			r.Seen["parcel sent again"]++
		}
		if w.payments.outside[id] {
			r.Seen["written off"]++
		}
		if p := w.payments.rows[id]; p.Status == payment.Refunded && x.Refund == 0 {
			r.Seen["late capture returned"]++
		}
		if w.inventory.rows[id].State == stock.Expired {
			r.Seen["hold expired"]++
		}
	}
	for _, n := range w.nodes {
		r.Seen["crashes"] += (n.life - 1) / 2
	}
	for _, t := range w.topics {
		for _, log := range t.partitions {
			ids := map[string]bool{}
			for _, e := range log {
				id := e.ID.String()
				if ids[id] {
					r.Seen["published twice"]++
				}
				ids[id] = true
			}
		}
	}
	return r
}
