package order

import (
	"encoding/json"
	"math/big"
	"testing"
)

// An amount that is taken is exactly what was written, and is written back as the same number.
func FuzzDecimal(f *testing.F) {
	for _, s := range []string{"59.90", "0", "-1", "1e5", "0.001", "99999999999999999999", "1.", ".5", "01", `"1"`, "null", "0.1000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var d Decimal
		if d.UnmarshalJSON([]byte(s)) != nil {
			return
		}
		for currency, digits := range map[string]int{"JPY": 0, "EUR": 2, "KWD": 3} {
			minor, err := d.Minor(digits)
			if err != nil {
				continue
			}
			want, ok := new(big.Rat).SetString(string(d))
			if !ok {
				t.Fatalf("%q is taken and no number", s)
			}
			unit := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits)), nil))
			if want.Mul(want, unit); !want.IsInt() || want.Num().Cmp(big.NewInt(minor)) != 0 {
				t.Fatalf("%q in %s is %d", s, currency, minor)
			}
			text, err := json.Marshal(Major(minor, currency))
			if err != nil {
				t.Fatal(err)
			}
			var back Decimal
			if err := json.Unmarshal(text, &back); err != nil {
				t.Fatal(err)
			}
			if again, err := back.Minor(digits); err != nil || again != minor {
				t.Fatalf("%q in %s is %d, written %s, read %d (%v)", s, currency, minor, text, again, err)
			}
		}
	})
}
