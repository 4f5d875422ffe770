package payment

import (
	"slices"
	"testing"
)

func TestLifecycleIsATable(t *testing.T) {
	type pair struct {
		s Status
		f Fact
	}
	seen := map[pair]bool{}
	for _, r := range lifecycle {
		p := pair{r.from, r.fact}
		if seen[p] {
			t.Errorf("%s + %s stands twice", r.from, r.fact)
		}
		seen[p] = true
		if !slices.Contains(Statuses(), r.from) || !slices.Contains(Statuses(), r.to) || !slices.Contains(Facts(), r.fact) {
			t.Errorf("rule %v uses a name that is not listed", r)
		}
	}
	for s, facts := range stale {
		for _, f := range facts {
			if seen[pair{s, f}] {
				t.Errorf("%s + %s is both a rule and stale", s, f)
			}
		}
	}
}

// TestMatrix holds every pair to one of the three outcomes: a pair that is in no list must be one that no caller sends.
func TestMatrix(t *testing.T) {
	impossible := map[Status][]Fact{
		Initiated: {RefundDone, RefundRefused, RefundRefusedLate, ReturnedOutside},
		Unknown:   {ClosedUnsent, RefundDone, RefundRefused, RefundRefusedLate, ReturnedOutside},
		Captured:  {ClosedUnsent},
		Declined:  {ClosedUnsent, RefundDone, RefundRefused, RefundRefusedLate, ReturnedOutside},
		Failed:    {ClosedUnsent, RefundDone, RefundRefused, RefundRefusedLate, ReturnedOutside},
		Refunded:  {ClosedUnsent},
	}
	for _, s := range Statuses() {
		for _, f := range Facts() {
			to, effects, outcome := Next(s, f)
			if want := slices.Contains(impossible[s], f); (outcome == Impossible) != want {
				t.Errorf("%s + %s: outcome %d", s, f, outcome)
			}
			if outcome != Moved && (to != s || len(effects) > 0) {
				t.Errorf("%s + %s does not move and yet does something", s, f)
			}
		}
	}
}

// TestMoneyIsBookedWhereItMoves: a status that says that money moved is only reached with its booking.
func TestMoneyIsBookedWhereItMoves(t *testing.T) {
	for _, r := range lifecycle {
		books := func(e Effect) bool { return slices.Contains(r.effects, e) }
		if (r.to == Captured && r.from != Captured) != books(BookCapture) {
			t.Errorf("%s + %s → %s books a capture: %v", r.from, r.fact, r.to, books(BookCapture))
		}
		if (r.to == Refunded) != (books(BookRefund) || books(BookWriteOff)) {
			t.Errorf("%s + %s → %s books what went back: %v", r.from, r.fact, r.to, r.effects)
		}
	}
}

func TestAmounts(t *testing.T) {
	for _, c := range []struct {
		text, currency string
		minor          int64 // 0: refused
		back           string
	}{
		{"59.90", "EUR", 5990, "59.90"},
		{"59.9", "EUR", 5990, "59.90"},
		{"59", "EUR", 5900, "59.00"},
		{"0.01", "EUR", 1, "0.01"},
		{"1200", "JPY", 1200, "1200"},
		{"1.234", "KWD", 1234, "1.234"},
		{"0.005", "KWD", 5, "0.005"},
		{"10000000000.00", "EUR", MaxAmount, "10000000000.00"},
		{"10000000000.01", "EUR", 0, ""},
		{"59.901", "EUR", 0, ""},
		{"1.5", "JPY", 0, ""},
		{"0", "EUR", 0, ""},
		{"0.00", "EUR", 0, ""},
		{"", "EUR", 0, ""},
		{".5", "EUR", 0, ""},
		{"5.", "EUR", 0, ""},
		{"05", "EUR", 0, ""},
		{"-1", "EUR", 0, ""},
		{"+1", "EUR", 0, ""},
		{"1e2", "EUR", 0, ""},
		{"1,5", "EUR", 0, ""},
		{"99999999999999999999", "EUR", 0, ""},
	} {
		minor, err := ParseAmount(c.text, c.currency)
		if (err == nil) != (c.minor != 0) || minor != c.minor {
			t.Errorf("ParseAmount(%q, %s) = %d, %v", c.text, c.currency, minor, err)
		}
		if err == nil && FormatAmount(minor, c.currency) != c.back {
			t.Errorf("FormatAmount(%d, %s) = %q, want %q", minor, c.currency, FormatAmount(minor, c.currency), c.back)
		}
	}
}

func FuzzParseAmount(f *testing.F) {
	f.Add("59.90", "EUR")
	f.Add("1e9", "JPY")
	f.Add("0.001", "KWD")
	f.Fuzz(func(t *testing.T, text, currency string) {
		minor, err := ParseAmount(text, currency)
		if err != nil {
			return
		}
		if again, err := ParseAmount(FormatAmount(minor, currency), currency); err != nil || again != minor {
			t.Fatalf("%q %q: %d, then %d, %v", text, currency, minor, again, err)
		}
	})
}
