package stock

import "slices"

// News is a fact about an order that is not a reservation.
type News struct {
	Fact    Fact
	OrderID string
	Tenant  int64
	Items   []Item // of Paid: what the order says was bought; summed, in product order
	Reason  string
	Trace   string
}

// Settlement is what became of News.
type Settlement struct {
	Verdict Verdict
	State   State      // afterwards
	Foreign bool       // the reservation under this id is another tenant's; nothing was changed
	Short   []Shortage // of Paid: the order is paid and this is missing; a person must see to it
}

// Settle applies one fact. Whatever the order of arrival, a fact that comes too late or twice changes nothing.
func (b *Book) Settle(n News) Settlement {
	r, exists := b.orders[n.OrderID]
	from := None
	if exists {
		if r.Tenant != n.Tenant {
			return Settlement{Verdict: Stands, State: r.State, Foreign: true}
		}
		from = r.State
	}
	to, verdict := Next(from, n.Fact)
	if verdict != Moves {
		return Settlement{Verdict: verdict, State: from}
	}
	if n.Fact == Paid {
		return b.confirm(n, from)
	}
	r = b.row(n.OrderID, n.Tenant)
	switch to {
	case Released, Expired:
		b.giveUp(r, from, to, n)
	case Pinned:
		b.set(r, Pinned)
		b.note(r, NoteReserved, n.Trace, Note{Items: r.Items, Total: r.Total, Currency: r.Currency})
	case Held: // the payment failed: stock frees itself soon, and sooner where order.cancelled comes
		b.set(r, Held)
		r.Due = b.Now.Add(b.Terms.Lapse)
	case Returned:
		b.set(r, Returned)
		r.Reason = n.Reason
		b.move(r, CameBack, +1, n.Trace)
	}
	return Settlement{Verdict: Moves, State: to}
}

// giveUp frees what was set aside. Where nothing was, only the tombstone is written and no event.
func (b *Book) giveUp(r *Reservation, from, to State, n News) {
	b.set(r, to)
	r.Reason = n.Reason
	if from.Reserving() {
		b.reserve(r.Tenant, r.Items, -1)
		b.note(r, NoteReleased, n.Trace, Note{Items: r.Items, Reason: n.Reason})
	}
}

// confirm takes the paid items off the shelf. What was set aside for them is used; where it was given up, or was set
// aside for other items, they are taken anew in the same decision. Where that is not possible nothing moves, but the row
// keeps the order's items, so that the intervention can be tried again.
func (b *Book) confirm(n News, from State) Settlement {
	var old []Item
	if r := b.orders[n.OrderID]; r != nil && from.Reserving() {
		old = r.Items
	}
	items := n.Items
	b.reserve(n.Tenant, old, -1)
	if !slices.Equal(old, items) {
		if short := b.short(n.Tenant, items); len(short) > 0 {
			b.reserve(n.Tenant, old, +1)
			if !from.Reserving() {
				r := b.row(n.OrderID, n.Tenant)
				r.Items, r.Total, r.Currency = items, 0, ""
				if from == None {
					b.set(r, Released)
					r.Reason = ReasonOutOfStock
				}
			}
			return Settlement{Verdict: Moves, State: from, Short: short}
		}
	}
	r := b.row(n.OrderID, n.Tenant)
	if !slices.Equal(r.Items, items) || r.Currency == "" {
		r.Items = items
		r.Total, r.Currency, _, _ = b.price(n.Tenant, items)
	}
	b.set(r, Confirmed)
	b.move(r, Sold, -1, n.Trace)
	return Settlement{Verdict: Moves, State: Confirmed}
}
