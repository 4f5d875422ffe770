package stock

import "slices"

// ReasonOwed marks the tombstone of an order that is paid and could not have its items.
const ReasonOwed = "stock_short"

// News is a fact about an order that is not a reservation.
type News struct {
	Fact    Fact
	OrderID string
	Tenant  int64
	Items   []Item // of Paid: what the order says was bought; summed, in product order
	Reason  string
	Cause
}

// Settlement is what became of News.
type Settlement struct {
	Verdict Verdict
	State   State      // afterwards
	Foreign bool       // the reservation under this id is another tenant's; nothing was changed
	Short   []Shortage // of Paid: the order is paid and this is missing; a person must see to it
	Settled bool       // the order was owed its items, and is not any more
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
	if exists && r.Owed() && (n.Fact == Closed || n.Fact == GoodsBack) {
		// Undone after all: trying the intervention again must not sell stock to a dead order.
		b.row(n.OrderID, n.Tenant).Reason = n.Reason
		return Settlement{Verdict: verdict, State: from, Settled: true}
	}
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
		b.note(r, NoteReserved, n.Cause, Note{Items: r.Items, Total: r.Total, Currency: r.Currency})
	case Held: // the payment failed: stock frees itself soon, and sooner where order.cancelled comes
		b.set(r, Held)
		r.Due = b.Now.Add(b.Terms.Lapse)
	case Returned:
		b.set(r, Returned)
		r.Reason = n.Reason
		b.move(r, CameBack, +1, n.Cause)
	}
	return Settlement{Verdict: Moves, State: to}
}

// giveUp frees what was set aside. Where nothing was, only the tombstone is written and no event.
func (b *Book) giveUp(r *Reservation, from, to State, n News) {
	b.set(r, to)
	r.Reason = n.Reason
	if from.Reserving() {
		b.reserve(r.Tenant, r.Items, -1)
		b.note(r, NoteReleased, n.Cause, Note{Items: r.Items, Reason: n.Reason})
	}
}

// confirm takes the paid items off the shelf. What was set aside for them is used; where it was given up, or was set
// aside for other items, they are taken anew in the same decision. Where that is not possible the order ends as a
// tombstone that keeps its items, so that the intervention can be tried again.
func (b *Book) confirm(n News, from State) Settlement {
	var old []Item
	if r := b.orders[n.OrderID]; r != nil && from.Reserving() {
		old = r.Items
	}
	b.reserve(n.Tenant, old, -1)
	if !slices.Equal(old, n.Items) {
		if short := b.short(n.Tenant, n.Items); len(short) > 0 {
			return Settlement{Verdict: Moves, State: b.owe(n, from), Short: short}
		}
	}
	r := b.row(n.OrderID, n.Tenant)
	if !slices.Equal(r.Items, n.Items) || r.Currency == "" {
		r.Items = n.Items
		r.Total, r.Currency, _, _ = b.price(n.Tenant, n.Items)
	}
	b.set(r, Confirmed)
	r.Reason = ""
	b.move(r, Sold, -1, n.Cause)
	return Settlement{Verdict: Moves, State: Confirmed}
}

// owe makes the order a tombstone, or leaves it one, that is owed its items.
func (b *Book) owe(n News, from State) State {
	to, _ := Next(from, PaidShort)
	r := b.row(n.OrderID, n.Tenant)
	if to != from {
		b.set(r, to)
	}
	if from.Reserving() {
		b.note(r, NoteReleased, n.Cause, Note{Items: r.Items, Reason: ReasonOwed})
	}
	r.Items, r.Total, r.Currency, r.Reason = n.Items, 0, "", ReasonOwed
	return to
}

// Owed says that the order is paid and still waits for its items.
func (r Reservation) Owed() bool { return r.Reason == ReasonOwed && !r.State.Reserving() }
