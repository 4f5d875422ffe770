// Package shipment holds what is true of shipments whatever stores or moves them: states and their order, keys, and
// what an address and a list of items must look like. It does no I/O.
//
//	requested --> accepted --> in_transit --> delivered
//	    |            |             |
//	    +------------+-------------+--------> failed
//
// A shipment only moves to the right, and may skip states: the carrier reports by webhook, by answer and by poll, twice and
// in any order, and each of them is applied by this rule alone.
package shipment

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Status is the state of a shipment.
type Status string

// The states.
const (
	Requested Status = "requested"
	Accepted  Status = "accepted"
	InTransit Status = "in_transit"
	Delivered Status = "delivered"
	Failed    Status = "failed"
)

var rank = map[Status]int{Requested: 1, Accepted: 2, InTransit: 3, Delivered: 4, Failed: 4}

// Known says whether s is a state.
func (s Status) Known() bool { return rank[s] > 0 }

// Final says whether a shipment in this state stays in it.
func (s Status) Final() bool { return s == Delivered || s == Failed }

// After says whether a shipment may move from the other state to s. Nothing leaves a final state: of two contradicting
// reports the first one counts.
func (s Status) After(other Status) bool { return rank[s] > rank[other] }

// Key names a shipment: the order, and the number of the attempt from 1.
type Key struct {
	OrderID string
	Attempt int32
}

// String is the key under which the carrier knows the shipment. It never changes, so a call may be repeated.
func (k Key) String() string { return k.OrderID + ":ship:" + strconv.Itoa(int(k.Attempt)) }

// Compare orders keys; rows are locked and written in this order.
func Compare(a, b Key) int {
	return cmp.Or(cmp.Compare(a.OrderID, b.OrderID), cmp.Compare(a.Attempt, b.Attempt))
}

// Address is where the parcel goes. It is personal data: never logged.
type Address struct {
	Name       string `json:"name"`
	Line1      string `json:"line1"`
	Line2      string `json:"line2"`
	City       string `json:"city"`
	Region     string `json:"region"`
	PostalCode string `json:"postal_code"`
	Country    string `json:"country"`
}

// Item is a line of the parcel.
type Item struct {
	ProductID string `json:"product_id"`
	Quantity  int64  `json:"quantity"`
}

// Shipment is one attempt to bring an order to its customer.
type Shipment struct {
	Key
	Tenant      int64
	Status      Status
	Reason      string // of a failure
	Tracking    string // once the carrier has accepted
	Address     Address
	Items       []Item
	Traceparent string
	Calls       int // of the carrier, to have the parcel accepted
	RequestedAt time.Time
	UpdatedAt   time.Time
}

// Report is what the carrier says of a shipment.
type Report struct {
	Key
	Status   Status
	Tracking string
	Reason   string
}

// Change is what came of a call to the carrier, or of one by the carrier: news, or (Status empty) none. Again, where it is
// set, asks for the next call after that time unless the news have moved the shipment.
type Change struct {
	Report
	Again time.Duration
}

// FieldError says what is wrong with a member of a request.
type FieldError struct{ Pointer, Detail string }

// limits of an address; carriers print labels.
const (
	maxLine   = 100
	maxPostal = 20
	maxItems  = 100
	// MaxQuantity is the largest quantity of a product in an order.
	MaxQuantity = 10_000
)

// Check says what is wrong with an address.
func (a Address) Check() (errs []FieldError) {
	for _, f := range []struct {
		name, value string
		required    bool
		max         int
	}{
		{"name", a.Name, true, maxLine},
		{"line1", a.Line1, true, maxLine},
		{"line2", a.Line2, false, maxLine},
		{"city", a.City, true, maxLine},
		{"region", a.Region, false, maxLine},
		{"postal_code", a.PostalCode, true, maxPostal},
	} {
		switch {
		case f.value == "" && f.required:
			errs = append(errs, FieldError{"/address/" + f.name, "must be given"})
		case len([]rune(f.value)) > f.max:
			errs = append(errs, FieldError{"/address/" + f.name, fmt.Sprintf("at most %d characters", f.max)})
		case !printable(f.value):
			errs = append(errs, FieldError{"/address/" + f.name, "has control characters"})
		}
	}
	if len(a.Country) != 2 || a.Country[0] < 'A' || a.Country[0] > 'Z' || a.Country[1] < 'A' || a.Country[1] > 'Z' {
		errs = append(errs, FieldError{"/address/country", "two capital letters of ISO 3166-1"})
	}
	return errs
}

// printable refuses control characters and those that turn the direction of writing: labels and logs show the rest as it is.
func printable(s string) bool {
	return !slices.ContainsFunc([]rune(s), func(r rune) bool {
		return r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069)
	})
}

// CheckItems says what is wrong with the items of a request.
func CheckItems(items []Item) (errs []FieldError) {
	if len(items) == 0 || len(items) > maxItems {
		return []FieldError{{"/items", fmt.Sprintf("1 to %d items", maxItems)}}
	}
	for i, it := range items {
		at := "/items/" + strconv.Itoa(i)
		if !ValidID(it.ProductID) {
			errs = append(errs, FieldError{at + "/product_id", "1 to 64 of letters, digits, dot, underscore, hyphen"})
		}
		if it.Quantity < 1 || it.Quantity > MaxQuantity {
			errs = append(errs, FieldError{at + "/quantity", fmt.Sprintf("1 to %d", MaxQuantity)})
		}
	}
	return errs
}

// ValidID says whether s can be the id of an order or a product: 1 to 64 of [A-Za-z0-9._-].
func ValidID(s string) bool {
	if len(s) < 1 || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// SameItems says whether two lists hold the same products in the same quantities, whatever their order and lines.
func SameItems(a, b []Item) bool { return slices.Equal(Sum(a), Sum(b)) }

// Sum adds up the lines of a product and sorts by it.
func Sum(items []Item) []Item {
	sorted := slices.SortedFunc(slices.Values(items), func(a, b Item) int { return cmp.Compare(a.ProductID, b.ProductID) })
	var out []Item
	for _, it := range sorted {
		if n := len(out); n > 0 && out[n-1].ProductID == it.ProductID {
			out[n-1].Quantity += it.Quantity
		} else {
			out = append(out, it)
		}
	}
	return out
}
