package stock

import "slices"

// Outcome is the answer to a reservation.
type Outcome string

// The outcomes. On the wire between order and inventory they are these words.
const (
	OutcomeHeld     Outcome = "held"
	OutcomePinned   Outcome = "pinned"
	OutcomeMismatch Outcome = "mismatch" // amount or currency is not what the items cost
	OutcomeRefused  Outcome = "refused"
	OutcomeClosed   Outcome = "closed"    // released or expired before, or another tenant's
	OutcomeDiffers  Outcome = "different" // reserved already, with other items
)

// The reasons that go with an outcome; they become the reason of the order.
const (
	ReasonOutOfStock     = "out_of_stock"
	ReasonUnknownProduct = "unknown_product"
	ReasonAmountMismatch = "amount_mismatch"
	ReasonClosed         = "reservation_expired"
)

// Ask is one order that wants its items set aside.
type Ask struct {
	OrderID  string
	Tenant   int64
	Items    []Item // summed, in product order (see Sum)
	Amount   int64  // what the order says they cost; only of pins
	Currency string
	Pin      bool // the order service asks: straight into PINNED
	Cause
}

func (a Ask) fact() Fact {
	if a.Pin {
		return Pin
	}
	return Hold
}

// Shortage is a product of which there is less than was asked for.
type Shortage struct {
	Product   string
	Requested int64
	Available int64
}

// Answer is what became of an Ask.
type Answer struct {
	OrderID     string
	Outcome     Outcome
	Reason      string
	Short       []Shortage // of ReasonOutOfStock
	Unknown     []string   // of ReasonUnknownProduct
	Total       int64      // by the catalogue, where the products are known
	Currency    string
	Reservation Reservation // where the outcome is held or pinned
}

// Reserve decides one order on what the decisions before it have left. A refusal changes nothing, so an order that is
// refused leaves the others of its batch alone.
func (b *Book) Reserve(a Ask) Answer {
	ans := Answer{OrderID: a.OrderID}
	r, exists := b.orders[a.OrderID]
	from := None
	if exists {
		if r.Tenant != a.Tenant {
			return closed(ans)
		}
		from = r.State
	}
	to, verdict := Next(from, a.fact())
	switch verdict {
	case Refused, Unknown:
		return closed(ans)
	case Stands:
		if slices.Equal(r.Items, a.Items) {
			return b.again(ans, a, *r)
		}
		switch {
		case !a.Pin:
			ans.Outcome = OutcomeDiffers
			return ans
		case r.State != Pinned: // sold with other items
			return closed(ans)
		}
		to = Pinned // by a payment made over the API, for a hold with other items: the order's count
	}

	total, currency, unknown, ok := b.price(a.Tenant, a.Items)
	ans.Total, ans.Currency = total, currency
	switch {
	case len(unknown) > 0:
		ans.Outcome, ans.Reason, ans.Unknown = OutcomeRefused, ReasonUnknownProduct, unknown
		return ans
	case !ok, a.Pin && (total != a.Amount || currency != a.Currency):
		ans.Outcome, ans.Reason = OutcomeMismatch, ReasonAmountMismatch
		return ans
	}
	var old []Item // what this order has set aside already
	if exists && from.Reserving() {
		old = r.Items
	}
	b.reserve(a.Tenant, old, -1)
	if short := b.short(a.Tenant, a.Items); len(short) > 0 {
		b.reserve(a.Tenant, old, +1)
		ans.Outcome, ans.Reason, ans.Short = OutcomeRefused, ReasonOutOfStock, short
		return ans
	}
	b.reserve(a.Tenant, a.Items, +1)
	r = b.row(a.OrderID, a.Tenant)
	r.Items, r.Total, r.Currency = a.Items, total, currency
	b.set(r, to)
	b.note(r, NoteReserved, a.Cause, Note{Items: a.Items, Total: total, Currency: currency})
	return given(ans, *r)
}

// again repeats the answer to a reservation that exists with the same items.
func (b *Book) again(ans Answer, a Ask, r Reservation) Answer {
	ans.Total, ans.Currency = r.Total, r.Currency
	if a.Pin && (r.Total != a.Amount || r.Currency != a.Currency) {
		// Pinned by a payment over the API, before the order's own amount was compared.
		ans.Outcome, ans.Reason = OutcomeMismatch, ReasonAmountMismatch
		return ans
	}
	return given(ans, r)
}

func given(ans Answer, r Reservation) Answer {
	ans.Outcome, ans.Reservation = OutcomePinned, r
	if r.State == Held {
		ans.Outcome = OutcomeHeld
	}
	return ans
}

func closed(ans Answer) Answer {
	ans.Outcome, ans.Reason = OutcomeClosed, ReasonClosed
	return ans
}

// price adds up what the items cost. ok is false where they have no total: two currencies, or more than int64 holds.
func (b *Book) price(tenant int64, items []Item) (total int64, currency string, unknown []string, ok bool) {
	ok = true
	for _, it := range items {
		p := b.products[Key{tenant, it.Product}]
		if p == nil {
			unknown = append(unknown, it.Product)
			continue
		}
		if currency == "" {
			currency = p.Currency
		}
		line, fits := times(p.Price, it.Quantity)
		total += line
		ok = ok && fits && total >= 0 && p.Currency == currency
	}
	if !ok || len(unknown) > 0 {
		return 0, "", unknown, false
	}
	return total, currency, nil, true
}

// short lists the items of which there is too little.
func (b *Book) short(tenant int64, items []Item) []Shortage {
	var out []Shortage
	for _, it := range items {
		p := b.products[Key{tenant, it.Product}]
		if p == nil {
			out = append(out, Shortage{Product: it.Product, Requested: it.Quantity})
		} else if p.Available() < it.Quantity {
			out = append(out, Shortage{Product: it.Product, Requested: it.Quantity, Available: p.Available()})
		}
	}
	return out
}
