package simulation

import (
	"fmt"
	"time"

	"github.com/waybill-dev/waybill/scripts/simulation/internal/order"
	"github.com/waybill-dev/waybill/scripts/simulation/internal/stock"
)

// price of every product.
const price = 1000

// plan is what will happen to one order, as far as the platform does not decide it.
type plan struct {
	id       string
	amount   int64
	items    []line
	patience time.Duration // until its deadline
	deadline time.Duration

	declined    bool
	down        int // charges that are answered 503
	refundsFail int
	carrierDown int
	parcelsLost int
	refused     bool
}

func (w *World) build() {
	w.orders, w.inventory, w.payments, w.shipping = w.newOrders(), w.newInventory(), w.newPayments(), w.newShipping()
	for _, n := range w.nodes {
		n.start()
	}
}

// drawPlans sends the customers on their way.
func (w *World) drawPlans() {
	for i := range 2 + w.rnd.IntN(3) {
		p := &plan{id: fmt.Sprintf("o-%d", i), patience: 45 * time.Second, amount: 500}
		if w.chance(0.15) {
			p.patience = w.between(time.Second, 20*time.Second)
		}
		if w.chance(0.8) {
			p.amount = 0
			for _, id := range []string{"a", "b", "c"} {
				if w.chance(0.5) || id == "c" && len(p.items) == 0 {
					n := int64(1 + w.rnd.IntN(3))
					p.items = append(p.items, line{id, n})
					p.amount += n * price
				}
			}
			if w.chance(0.05) {
				p.amount++ // what the items do not cost
			}
		}
		p.declined = w.chance(0.15)
		if w.chance(0.25) {
			p.down = 1 + w.rnd.IntN(5)
		}
		if w.chance(0.2) {
			p.refundsFail = 1 + w.rnd.IntN(2)
		}
		if w.chance(0.2) {
			p.carrierDown = 1 + w.rnd.IntN(2)
		}
		if w.chance(0.25) {
			p.parcelsLost, p.refused = 1+w.rnd.IntN(2), w.chance(0.5)
		}
		w.plans[p.id] = p
		w.ids = append(w.ids, p.id)
		at := w.between(0, 6*time.Second)
		w.retry(at, func() bool { return w.orders.place(p) })
		w.neighbours(p, at)
		w.after(at, func() { w.operator(p.id) })
	}
}

// neighbours do with an order what they may, whenever they like.
func (w *World) neighbours(p *plan, at time.Duration) {
	if w.chance(0.35) { // the customer cancels
		w.retry(at+w.between(0, 6*time.Second), func() bool { return w.orders.rows[p.id] == nil || w.orders.cancel(p.id) })
	}
	if w.chance(0.15) { // or pays over the API
		for range 1 + w.rnd.IntN(2) {
			w.after(at+w.between(0, 3*time.Second), func() { w.payments.pay(p.id, p.amount) })
		}
	}
	if w.chance(0.4) { // somebody holds stock under the order's id, before it or after
		items := p.items
		if len(items) == 0 || w.chance(0.3) {
			items = []line{{"b", 1}}
		}
		ask := stock.Ask{OrderID: p.id, Tenant: 1}
		for _, l := range items {
			ask.Items = append(ask.Items, stock.Item{Product: l.product, Quantity: l.quantity})
		}
		w.after(max(0, at-w.between(-time.Second, 2*time.Second)), func() {
			if w.inventory.up {
				w.inventory.reserve(ask)
			}
		})
	}
	if w.chance(0.08) { // and gives it back
		w.after(max(0, at-w.between(-2*time.Second, time.Second)), func() {
			if w.inventory.up {
				w.inventory.release(p.id)
			}
		})
	}
}

// retry sends a request until somebody answers it.
func (w *World) retry(at time.Duration, do func() bool) {
	w.after(at, func() {
		if !w.chance(w.bad.callLost) && w.orders.up && do() && !w.chance(w.bad.callDeaf) {
			return
		}
		w.retry(w.between(50*time.Millisecond, 500*time.Millisecond), do)
	})
}

// operator looks after an order's tickets until it has ended for good.
func (w *World) operator(id string) {
	if x := w.orders.rows[id]; x != nil && x.Status == order.Attention && w.orders.up {
		w.orders.decide(id)
	}
	if w.payments.tickets[id] && w.payments.up {
		w.payments.again(id)
	}
	w.after(w.between(time.Second, 4*time.Second), func() { w.operator(id) })
}
