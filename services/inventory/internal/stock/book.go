package stock

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Key names a product.
type Key struct {
	Tenant  int64
	Product string
}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Product, b.Product))
}

// Product is one product of a tenant and its stock.
type Product struct {
	Key
	Name     string
	Price    int64 // minor units of Currency
	Currency string
	OnHand   int64
	Reserved int64 // what HELD and PINNED reservations set aside
	EventSeq int64 // sequence of the last event about the product itself
}

// Available is what can still be reserved.
func (p Product) Available() int64 { return p.OnHand - p.Reserved }

// Reservation is what one order has set aside.
type Reservation struct {
	OrderID  string
	Tenant   int64
	State    State
	Items    []Item // summed, in product order
	Total    int64  // by the catalogue when it was reserved, minor units
	Currency string
	Reason   string    // why it was released
	Due      time.Time // HELD: when it expires; PINNED: when the order service is asked; else zero
	EventSeq int64     // sequence of the order's last event of this service
}

// Terms are how long reservations last.
type Terms struct {
	Hold  time.Duration // a hold made over the API
	Lapse time.Duration // a hold whose payment failed
	Pin   time.Duration // a pin, before the order service is asked whether the order still lives
}

// Op says what moved stock.
type Op string

// The movements of the ledger.
const (
	Sold      Op = "confirmed"
	CameBack  Op = "returned"
	Restocked Op = "restocked"
	Counted   Op = "stocktake"
)

// Move is one line of the ledger: a change of a product's on_hand.
type Move struct {
	Key
	OrderID  string // of an order, or empty
	Document string // of a restock or stock-take, or empty
	Op       Op
	Delta    int64
	Balance  int64 // on_hand afterwards
	Reason   string
	Actor    string
}

// NoteKind says which event a Note becomes.
type NoteKind int

// The kinds of notes.
const (
	NoteReserved NoteKind = iota
	NoteReleased
	NoteUpdated
)

// Change is what happened to one product and where that left it.
type Change struct {
	Product  string
	Delta    int64
	OnHand   int64
	Reserved int64
}

// Note is an event in the making.
type Note struct {
	Kind     NoteKind
	Subject  string // the order, or Key.Subject of the product
	OrderID  string
	Tenant   int64
	Seq      int64
	State    State
	Items    []Item
	Total    int64
	Currency string
	Reason   string
	Changes  []Change
	Cause
}

// Cause is what an event in the making follows from.
type Cause struct {
	Trace string    // its traceparent, or empty
	At    time.Time // when it happened, where it was an event of the platform; else zero
}

// Book is a set of locked rows and what was decided on them. Rows must be put in before they are decided on: a product
// that is not in the book does not exist. It serves one unit of work.
type Book struct {
	Now   time.Time // the database's clock
	Terms Terms

	products map[Key]*Product
	loaded   map[Key]Product // as they were
	orders   map[string]*Reservation
	stored   map[string]State // the state of each row that exists in the database
	changed  map[string]bool
	moves    []Move
	notes    []Note
}

// NewBook makes an empty book.
func NewBook(terms Terms) *Book {
	return &Book{
		Terms:    terms,
		products: map[Key]*Product{},
		loaded:   map[Key]Product{},
		orders:   map[string]*Reservation{},
		stored:   map[string]State{},
		changed:  map[string]bool{},
	}
}

// PutProduct adds a locked row.
func (b *Book) PutProduct(p Product) {
	b.products[p.Key] = &p
	b.loaded[p.Key] = p
}

// PutReservation adds a locked row.
func (b *Book) PutReservation(r Reservation) {
	b.orders[r.OrderID] = &r
	b.stored[r.OrderID] = r.State
}

// Product returns a product as the decisions so far have left it.
func (b *Book) Product(k Key) (Product, bool) {
	p, ok := b.products[k]
	if !ok {
		return Product{}, false
	}
	return *p, true
}

// Reservation returns an order's reservation as the decisions so far have left it.
func (b *Book) Reservation(orderID string) (Reservation, bool) {
	r, ok := b.orders[orderID]
	if !ok {
		return Reservation{}, false
	}
	return *r, true
}

// ReservationChange is a row to write. Was is the state of the row in the database, None for one that is new.
type ReservationChange struct {
	Reservation
	Was State
}

// Reservations lists the rows that changed, by order id.
func (b *Book) Reservations() []ReservationChange {
	out := make([]ReservationChange, 0, len(b.changed))
	for _, id := range slices.Sorted(maps.Keys(b.changed)) {
		out = append(out, ReservationChange{Reservation: *b.orders[id], Was: b.stored[id]})
	}
	return out
}

// ProductChange is the net change of a product over the whole book.
type ProductChange struct {
	Key
	OnHand   int64 // to add
	Reserved int64 // to add
	EventSeq int64 // to set
}

// Products lists the net changes, by key.
func (b *Book) Products() []ProductChange {
	var out []ProductChange
	for k, p := range b.products {
		if was := b.loaded[k]; *p != was {
			out = append(out, ProductChange{Key: k, OnHand: p.OnHand - was.OnHand, Reserved: p.Reserved - was.Reserved, EventSeq: p.EventSeq})
		}
	}
	slices.SortFunc(out, func(x, y ProductChange) int { return compareKeys(x.Key, y.Key) })
	return out
}

// Moves lists the ledger's new lines in the order they happened.
func (b *Book) Moves() []Move { return b.moves }

// Notes lists the events in the order they happened.
func (b *Book) Notes() []Note { return b.notes }

// row returns the order's reservation for changing; a new one belongs to the tenant.
func (b *Book) row(orderID string, tenant int64) *Reservation {
	r, ok := b.orders[orderID]
	if !ok {
		r = &Reservation{OrderID: orderID, Tenant: tenant}
		b.orders[orderID] = r
	}
	b.changed[orderID] = true
	return r
}

// set moves a reservation to a state and gives it the due time that goes with it.
func (b *Book) set(r *Reservation, s State) {
	r.State = s
	r.Due = time.Time{}
	switch s {
	case Held:
		r.Due = b.Now.Add(b.Terms.Hold)
	case Pinned:
		r.Due = b.Now.Add(b.Terms.Pin)
	}
}

// reserve adds the items (times sign) to what the products have set aside.
func (b *Book) reserve(tenant int64, items []Item, sign int64) {
	for _, it := range items {
		if p := b.products[Key{tenant, it.Product}]; p != nil {
			p.Reserved += sign * it.Quantity
		}
	}
}

// note appends an event about an order, under the order's next sequence.
func (b *Book) note(r *Reservation, kind NoteKind, cause Cause, n Note) {
	r.EventSeq++
	n.Kind, n.Subject, n.OrderID, n.Tenant, n.Seq, n.State, n.Cause = kind, r.OrderID, r.OrderID, r.Tenant, r.EventSeq, r.State, cause
	b.notes = append(b.notes, n)
}

// move changes on_hand of each item (times sign) and writes the ledger and the event inventory.updated.
func (b *Book) move(r *Reservation, op Op, sign int64, cause Cause) {
	changes := make([]Change, 0, len(r.Items))
	for _, it := range r.Items {
		p := b.products[Key{r.Tenant, it.Product}]
		p.OnHand += sign * it.Quantity
		b.moves = append(b.moves, Move{Key: p.Key, OrderID: r.OrderID, Op: op, Delta: sign * it.Quantity, Balance: p.OnHand})
		changes = append(changes, Change{Product: it.Product, Delta: sign * it.Quantity, OnHand: p.OnHand, Reserved: p.Reserved})
	}
	b.note(r, NoteUpdated, cause, Note{Changes: changes, Reason: string(op)})
}
