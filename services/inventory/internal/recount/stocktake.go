package recount

import "time"

// Count is what somebody counted of one product. Goods of paid orders have been taken out of the stock, whether or not
// their parcel has left: they are not to be counted.
type Count struct {
	Product string
	Counted int64
}

// Take is one stock-take.
type Take struct {
	ID        string
	Tenant    int64
	Actor     string
	Reason    string
	CountedAt time.Time // zero: now
	Counts    []Count   // each product once, in product order
}

// Outcome is what was done about one product.
type Outcome string

// The outcomes.
const (
	Equal  Outcome = "equal"
	Booked Outcome = "booked"
	// BelowReserved: fewer were counted than are promised to orders. Nothing is booked, because a promise has to be
	// broken first and that is for a person to choose: an intervention is open.
	BelowReserved Outcome = "below_reserved"
)

// Line is one product of a stock-take that was compared.
type Line struct {
	Product    string  `json:"product_id"`
	Counted    int64   `json:"counted"`
	Expected   int64   `json:"expected"`   // by the system, at the time of the count
	Difference int64   `json:"difference"` // Counted less Expected
	Outcome    Outcome `json:"outcome"`
	OnHand     int64   `json:"on_hand"` // now
}

// Stock is what the system knows of a product.
type Stock struct {
	OnHand   int64
	Reserved int64
	Since    int64 // moved by the ledger since the count
}

// Compare says what one count means and what has to be booked.
func Compare(c Count, s Stock) Line {
	l := Line{Product: c.Product, Counted: c.Counted, Expected: s.OnHand - s.Since, OnHand: s.OnHand, Outcome: Equal}
	l.Difference = l.Counted - l.Expected
	switch {
	case l.Difference == 0:
	case s.OnHand+l.Difference < s.Reserved:
		l.Outcome = BelowReserved
	default:
		l.Outcome = Booked
		l.OnHand += l.Difference
	}
	return l
}
