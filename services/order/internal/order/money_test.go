package order

import (
	"errors"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestDecimalFromJSON(t *testing.T) {
	for _, in := range []string{"59.90", "59.9", "1", "0.01", "0", "-1", "999999999999.999"} {
		var d Decimal
		if err := d.UnmarshalJSON([]byte(in)); err != nil || string(d) != in {
			t.Errorf("%s: %q, %v", in, d, err)
		}
	}
	for _, in := range []string{`"59.90"`, "1e2", "1E2", "true", "{}", "[]", "9007199254740993", "1.0000000000000001", ""} {
		var d Decimal
		if err := d.UnmarshalJSON([]byte(in)); !errors.Is(err, ErrNotANumber) {
			t.Errorf("%s was read as %q, %v", in, d, err)
		}
	}
}

func TestMinorUnits(t *testing.T) {
	for _, c := range []struct {
		in     Decimal
		digits int
		want   int64
		err    error
	}{
		{"59.90", 2, 5990, nil}, {"59.9", 2, 5990, nil}, {"59", 2, 5900, nil}, {"0.01", 2, 1, nil}, {"59", 0, 59, nil}, {"1.234", 3, 1234, nil},
		{"10000000000", 2, MaxAmount, nil},
		{"10000000000.01", 2, 0, errTooMuch}, {"999999999999999", 3, 0, errTooMuch},
		{"59.901", 2, 0, errDigits}, {"59.900", 2, 0, errDigits}, {"59.0", 0, 0, errDigits},
		{"0", 2, 0, errPositive}, {"0.00", 2, 0, errPositive}, {"-1", 2, 0, errPositive}, {"", 2, 0, errPositive},
	} {
		got, err := c.in.Minor(c.digits)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s with %d digits: %d, %v; want %d, %v", c.in, c.digits, got, err, c.want, c.err)
		}
	}
}

// An amount goes out as it came in, and means what big.Rat says that it means.
func TestMoneyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		currency := rapid.SampledFrom([]string{"EUR", "JPY", "KWD"}).Draw(t, "currency")
		minor := rapid.Int64Range(1, MaxAmount).Draw(t, "minor")
		d := Major(minor, currency)
		back, err := d.Minor(currencies[currency])
		if err != nil || back != minor {
			t.Fatalf("%d %s went out as %s and came back as %d, %v", minor, currency, d, back, err)
		}
		exact, ok := new(big.Rat).SetString(string(d))
		if !ok {
			t.Fatalf("%s is no number", d)
		}
		scale := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(currencies[currency])), nil))
		if exact.Mul(exact, scale).Cmp(new(big.Rat).SetInt64(minor)) != 0 {
			t.Fatalf("%s is not %d minor units of %s", d, minor, currency)
		}
	})
}

func TestMajorUnits(t *testing.T) {
	for _, c := range []struct {
		minor    int64
		currency string
		want     Decimal
	}{{5990, "EUR", "59.90"}, {1, "EUR", "0.01"}, {0, "EUR", "0.00"}, {59, "JPY", "59"}, {1, "KWD", "0.001"}, {-5, "EUR", "-0.05"}} {
		if got := Major(c.minor, c.currency); got != c.want {
			t.Errorf("%d %s is %s, want %s", c.minor, c.currency, got, c.want)
		}
	}
}

func TestCurrencies(t *testing.T) {
	for code, digits := range map[string]int{"EUR": 2, "USD": 2, "JPY": 0, "KWD": 3, "ZWG": 2, "XPF": 0, "CHF": 2} {
		if got, ok := currencies[code]; !ok || got != digits {
			t.Errorf("%s has %d digits, known: %v", code, got, ok)
		}
	}
	for code := range currencies {
		if len(code) != 3 || strings.ToUpper(code) != code {
			t.Errorf("%q is not a code", code)
		}
	}
	if n := len(currencies); n < 145 || n > 160 {
		t.Errorf("%d currencies", n)
	}
	if n := len(countries); n != 249 {
		t.Errorf("%d countries; ISO 3166-1 assigns 249", n)
	}
}

func TestSumAddsEqualProducts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		items := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Item {
			return Item{rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "product"), rapid.Int64Range(1, 4).Draw(t, "quantity")}
		}), 0, 8).Draw(t, "items")
		want := map[string]int64{}
		over := -1
		for i, it := range items {
			if want[it.ProductID] += it.Quantity; want[it.ProductID] > 9 && over < 0 {
				over = i
			}
		}
		sum, at := Sum(items, 9)
		if at != over {
			t.Fatalf("%v is too much at %d, want %d", items, at, over)
		}
		if over >= 0 {
			return
		}
		if len(sum) != len(want) {
			t.Fatalf("%v became %v", items, sum)
		}
		for _, it := range sum {
			if want[it.ProductID] != it.Quantity {
				t.Fatalf("%v became %v", items, sum)
			}
		}
	})
}
