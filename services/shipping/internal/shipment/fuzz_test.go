package shipment

import (
	"slices"
	"testing"
	"unicode"
)

// What an address passes with can be printed on a label.
func FuzzAddress(f *testing.F) {
	f.Add("A. Buyer", "1 Main St", "10115", "DE")
	f.Add("a\u202eb", "\x00", "", "de")
	f.Fuzz(func(t *testing.T, name, line, code, country string) {
		a := Address{Name: name, Line1: line, City: name, PostalCode: code, Country: country}
		if len(a.Check()) > 0 {
			return
		}
		for _, s := range []string{name, line, code} {
			if s == "" || len([]rune(s)) > maxLine || slices.ContainsFunc([]rune(s), unicode.IsControl) {
				t.Fatalf("%+v passes", a)
			}
		}
	})
}
