package stock

import (
	"errors"
	"fmt"
)

// What is wrong with a change of stock that no order asked for.
var (
	ErrUnknownProduct = errors.New("product does not exist")
	ErrBelowReserved  = errors.New("stock would fall below what is reserved")
	ErrTooMuchStock   = errors.New("stock would exceed its limit")
)

// Subject is what events about the product itself are about.
func (k Key) Subject() string { return fmt.Sprintf("stock:%d:%s", k.Tenant, k.Product) }

// Adjustment is a change of on_hand without an order.
type Adjustment struct {
	Key
	Document string // unique; the ledger has one line of an operation per product and document
	Op       Op
	Delta    int64
	Reason   string
	Actor    string
	Cause
}

// Adjust changes a product's stock, writes the ledger and the event about the product. A change of nothing writes nothing.
func (b *Book) Adjust(a Adjustment) (Product, error) {
	p := b.products[a.Key]
	switch {
	case p == nil:
		return Product{}, ErrUnknownProduct
	case a.Delta > MaxStock-p.OnHand:
		return *p, ErrTooMuchStock
	case p.OnHand+a.Delta < p.Reserved:
		return *p, ErrBelowReserved
	case a.Delta == 0:
		return *p, nil
	}
	p.OnHand += a.Delta
	b.moves = append(b.moves, Move{
		Key: a.Key, Document: a.Document, Op: a.Op, Delta: a.Delta, Balance: p.OnHand, Reason: a.Reason, Actor: a.Actor,
	})
	b.aboutProduct(p, string(a.Op), a.Delta, a.Cause)
	return *p, nil
}

// aboutProduct appends an event whose subject is the product.
func (b *Book) aboutProduct(p *Product, reason string, delta int64, cause Cause) {
	p.EventSeq++
	b.notes = append(b.notes, Note{
		Kind: NoteUpdated, Subject: p.Subject(), Tenant: p.Tenant, Seq: p.EventSeq, Reason: reason, Cause: cause,
		Changes: []Change{{Product: p.Product, Delta: delta, OnHand: p.OnHand, Reserved: p.Reserved}},
	})
}

// Catalogued is the event of a product that is new, or whose name or price changed. The product's EventSeq is its own.
func Catalogued(p Product) Note {
	return Note{
		Kind: NoteUpdated, Subject: p.Subject(), Tenant: p.Tenant, Seq: p.EventSeq, Reason: "catalogue",
		Changes: []Change{{Product: p.Product, OnHand: p.OnHand, Reserved: p.Reserved}},
	}
}
