package shipment

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var all = []Status{Requested, Accepted, InTransit, Delivered, Failed}

func TestAfterIsAStrictOrderWithFinalStates(t *testing.T) {
	for _, a := range all {
		for _, b := range all {
			if a.After(b) && b.After(a) {
				t.Errorf("%s and %s follow each other", a, b)
			}
			if b.Final() && a.After(b) {
				t.Errorf("%s leaves the final state %s", a, b)
			}
			if b != a && b == Requested && !a.After(b) {
				t.Errorf("%s cannot be reached", a)
			}
		}
	}
}

// Any order and number of the same reports ends in the same state, as long as they do not contradict each other.
func TestReportsEndAlikeInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		end := rapid.SampledFrom([]Status{Delivered, Failed}).Draw(t, "end")
		reports := rapid.SliceOfN(rapid.SampledFrom([]Status{Accepted, InTransit, end}), 1, 8).Draw(t, "reports")
		reports = rapid.Permutation(append(reports, end)).Draw(t, "order")
		s, moves := Requested, 0
		for _, r := range reports {
			if r.After(s) {
				s = r
				moves++
			}
		}
		if s != end || moves > 3 {
			t.Fatalf("%v end in %s after %d moves, want %s after at most 3", reports, s, moves, end)
		}
	})
}

func TestKeyIsTheCarriersName(t *testing.T) {
	if got := (Key{"o-1", 2}).String(); got != "o-1:ship:2" {
		t.Errorf("key %q", got)
	}
}

func TestAddressCheck(t *testing.T) {
	good := Address{Name: "A. Buyer", Line1: "1 Main St", City: "Berlin", PostalCode: "10115", Country: "DE"}
	if errs := good.Check(); len(errs) > 0 {
		t.Errorf("a good address: %v", errs)
	}
	for _, tt := range []struct {
		pointer string
		change  func(*Address)
	}{
		{"/address/name", func(a *Address) { a.Name = "" }},
		{"/address/line1", func(a *Address) { a.Line1 = strings.Repeat("ü", 101) }},
		{"/address/line2", func(a *Address) { a.Line2 = "a\nb" }},
		{"/address/city", func(a *Address) { a.City = "Ber\u202elin" }},
		{"/address/postal_code", func(a *Address) { a.PostalCode = "" }},
		{"/address/country", func(a *Address) { a.Country = "de" }},
	} {
		a := good
		tt.change(&a)
		if errs := a.Check(); len(errs) != 1 || errs[0].Pointer != tt.pointer {
			t.Errorf("%s: %v", tt.pointer, errs)
		}
	}
}

func TestItems(t *testing.T) {
	if errs := CheckItems(nil); len(errs) != 1 {
		t.Errorf("no items: %v", errs)
	}
	bad := []Item{{"sku-1", 1}, {"", 1}, {"sku 1", 1}, {"sku-1", 0}, {"sku-1", MaxQuantity + 1}}
	var pointers []string
	for _, e := range CheckItems(bad) {
		pointers = append(pointers, e.Pointer)
	}
	want := []string{"/items/1/product_id", "/items/2/product_id", "/items/3/quantity", "/items/4/quantity"}
	if diff := cmp.Diff(want, pointers); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !SameItems([]Item{{"b", 1}, {"a", 1}, {"b", 2}}, []Item{{"a", 1}, {"b", 3}}) || SameItems([]Item{{"a", 1}}, []Item{{"a", 2}}) {
		t.Error("the same items are not the same")
	}
}
