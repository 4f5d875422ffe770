package load

import "testing"

func TestQuantile(t *testing.T) {
	t.Parallel()
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	f := func(values []float64, q, want float64) {
		t.Helper()
		if got := Quantile(values, q); got != want {
			t.Errorf("quantile %v of %d values is %v, want %v", q, len(values), got, want)
		}
	}
	f(hundred, 0.5, 50)
	f(hundred, 0.99, 99)
	f(hundred, 1, 100)
	f(hundred, 0, 1)
	f([]float64{7}, 0.99, 7)
	f(nil, 0.5, 0)
}
