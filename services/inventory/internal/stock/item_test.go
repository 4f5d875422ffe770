package stock

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSum(t *testing.T) {
	tests := []struct {
		name string
		in   []Item
		want []Item
		err  error
	}{
		{"one", []Item{{"a", 1}}, []Item{{"a", 1}}, nil},
		{"sorted and summed", []Item{{"b", 2}, {"a", 1}, {"b", 3}}, []Item{{"a", 1}, {"b", 5}}, nil},
		{"by byte, not by alphabet", []Item{{"a", 1}, {"B", 1}}, []Item{{"B", 1}, {"a", 1}}, nil},
		{"none", []Item{{"a", 0}}, nil, ErrQuantity},
		{"negative", []Item{{"a", -1}}, nil, ErrQuantity},
		{"too many", []Item{{"a", MaxQuantity + 1}}, nil, ErrQuantity},
		{"too many together", []Item{{"a", MaxQuantity}, {"a", 1}}, nil, ErrQuantity},
		{"just fits", []Item{{"a", MaxQuantity - 1}, {"a", 1}}, []Item{{"a", MaxQuantity}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Sum(tt.in)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); err == nil && diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSumLeavesItsInputAlone(t *testing.T) {
	in := []Item{{"b", 1}, {"a", 1}, {"b", 1}}
	if _, err := Sum(in); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Item{{"b", 1}, {"a", 1}, {"b", 1}}, in); diff != "" {
		t.Error(diff)
	}
}

func TestMinorAndMajor(t *testing.T) {
	tests := []struct {
		decimal, currency string
		minor             int64
		err               error
	}{
		{"29.95", "EUR", 2995, nil},
		{"29.9", "EUR", 2990, nil},
		{"30", "EUR", 3000, nil},
		{"0.01", "EUR", 1, nil},
		{"500", "JPY", 500, nil},
		{"1.234", "KWD", 1234, nil},
		{"-1.50", "EUR", -150, nil},
		{"29.955", "EUR", 0, ErrDigits},
		{"1.0", "JPY", 0, ErrDigits},
		{"92233720368547758.08", "EUR", 0, ErrRange},
		{"", "EUR", 0, nil},
		{"1.2.3", "KWD", 0, ErrRange},
		{"-", "EUR", 0, nil},
	}
	for _, tt := range tests {
		got, err := Minor(tt.decimal, tt.currency)
		if !errors.Is(err, tt.err) || got != tt.minor {
			t.Errorf("Minor(%q, %s) = %d, %v; want %d, %v", tt.decimal, tt.currency, got, err, tt.minor, tt.err)
		}
	}
	for _, tt := range []struct {
		minor    int64
		currency string
		want     string
	}{{2995, "EUR", "29.95"}, {5, "EUR", "0.05"}, {0, "EUR", "0.00"}, {-5, "EUR", "-0.05"}, {500, "JPY", "500"}, {1, "KWD", "0.001"}} {
		if got := Major(tt.minor, tt.currency); got != tt.want {
			t.Errorf("Major(%d, %s) = %s, want %s", tt.minor, tt.currency, got, tt.want)
		}
	}
}

func TestMinorUndoesMajor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Int64Range(-1<<62, 1<<62).Draw(t, "minor")
		c := rapid.SampledFrom([]string{"EUR", "JPY", "KWD", "USD"}).Draw(t, "currency")
		got, err := Minor(Major(v, c), c)
		if err != nil || got != v {
			t.Fatalf("%d %s became %d, %v", v, c, got, err)
		}
	})
}

func TestEveryCurrencyHasDigits(t *testing.T) {
	if n := len(digits); n < 150 {
		t.Errorf("%d currencies", n)
	}
	for c, n := range digits {
		if len(c) != 3 || n < 0 || n > 3 {
			t.Errorf("%q has %d digits", c, n)
		}
	}
}
