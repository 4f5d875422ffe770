package load

import (
	"context"
	"runtime"
	"testing"
)

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

// An order that nobody takes any more when the time is over gives its slot back; the drain waits for those that are taken.
func TestWhatIsNotPlacedTakesNoSlot(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	r := &run{slots: make(chan struct{}, 8)}
	orders, ended := make(chan order), make(chan struct{})
	go func() { defer close(ended); r.schedule(ctx, orders) }()
	<-orders
	for len(r.slots) < 2 { // the next one has its slot and waits to be taken
		runtime.Gosched()
	}
	stop()
	<-ended
	if n := len(r.slots); n != 1 {
		t.Errorf("%d slots are taken, want that of the one order", n)
	}
}
