package stock

import "testing"

// Minor takes what Major writes, and never more digits than the currency has.
func FuzzMinor(f *testing.F) {
	for _, s := range []string{"29.95", "-0.01", "1.2.3", "9223372036854775807", "", ".", "1e9"} {
		f.Add(s, "EUR")
	}
	f.Add("1.234", "KWD")
	f.Fuzz(func(t *testing.T, decimal, currency string) {
		v, err := Minor(decimal, currency)
		if err != nil {
			return
		}
		if again, err := Minor(Major(v, currency), currency); err != nil || again != v {
			t.Fatalf("%q %s is %d, which is shown as %q and read as %d, %v", decimal, currency, v, Major(v, currency), again, err)
		}
	})
}
