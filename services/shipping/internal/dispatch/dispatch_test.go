package dispatch_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/services/shipping/internal/dispatch"
	"github.com/waybill-dev/waybill/services/shipping/internal/shipment"
)

func TestPauseGrowsAndIsJittered(t *testing.T) {
	for _, tt := range []struct {
		calls int
		most  time.Duration
	}{{1, 200 * time.Millisecond}, {2, 400 * time.Millisecond}, {3, 800 * time.Millisecond}, {8, 25600 * time.Millisecond}, {9, 30 * time.Second}, {1000, 30 * time.Second}} {
		seen := map[time.Duration]bool{}
		for range 50 {
			d := dispatch.Pause(tt.calls)
			if d < tt.most/2 || d > tt.most {
				t.Errorf("after %d calls: %s, want %s to %s", tt.calls, d, tt.most/2, tt.most)
			}
			seen[d] = true
		}
		if len(seen) < 10 {
			t.Errorf("after %d calls there are only %d pauses", tt.calls, len(seen))
		}
	}
}

// world is a queue, a carrier and an intake in memory.
type world struct {
	mu       sync.Mutex
	queue    []shipment.Shipment
	outcomes []shipment.Change

	answer        func(calls int) (shipment.Report, error)
	running, most atomic.Int32
	calls         atomic.Int32
}

func (w *world) Claim(_ context.Context, n int) ([]shipment.Shipment, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n = min(n, len(w.queue))
	claimed := w.queue[:n]
	w.queue = w.queue[n:]
	return claimed, nil
}

func (w *world) Backlog(context.Context) (int, time.Duration, error) { return 0, 0, nil }

func (w *world) Create(_ context.Context, s shipment.Shipment) (shipment.Report, error) {
	n := w.running.Add(1)
	defer w.running.Add(-1)
	for m := w.most.Load(); n > m && !w.most.CompareAndSwap(m, n); m = w.most.Load() {
	}
	time.Sleep(time.Second)
	r, err := w.answer(int(w.calls.Add(1)))
	r.Key = s.Key
	return r, err
}

func (w *world) Find(ctx context.Context, k shipment.Key) (shipment.Report, error) {
	return w.Create(ctx, shipment.Shipment{Key: k})
}

func (w *world) Apply(_ context.Context, c shipment.Change) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outcomes = append(w.outcomes, c)
	return true, nil
}

func (w *world) run(t *testing.T) (stop func()) {
	t.Helper()
	d := dispatch.New(w, w, w, make(chan struct{}, 1), zap.NewNop(), prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = d.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func TestCallsAreBoundedAndBegunOnesFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{answer: func(int) (shipment.Report, error) {
			return shipment.Report{Status: shipment.Accepted, Tracking: "WB1"}, nil
		}}
		for range 5 * dispatch.Parallel {
			w.queue = append(w.queue, shipment.Shipment{Status: shipment.Requested, Calls: 1})
		}
		stop := w.run(t)
		time.Sleep(1500 * time.Millisecond) // in the bubble's time: one round is done, one is under way
		stop()
		if most := w.most.Load(); most != dispatch.Parallel {
			t.Errorf("%d calls at a time, want %d", most, dispatch.Parallel)
		}
		called, givenBack := 0, 0
		for _, c := range w.outcomes {
			if c.Status == shipment.Accepted {
				called++
			} else if c.Again > 0 {
				givenBack++
			}
		}
		if claimed := 5*dispatch.Parallel - len(w.queue); called != 2*dispatch.Parallel || called+givenBack != claimed {
			t.Errorf("of %d claimed %d were called and %d given back, want two rounds and the rest", claimed, called, givenBack)
		}
	})
}

func TestOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{answer: func(n int) (shipment.Report, error) {
			if n == 1 {
				return shipment.Report{}, errors.New("503")
			}
			return shipment.Report{Status: shipment.Delivered, Tracking: "WB1"}, nil
		}}
		w.queue = []shipment.Shipment{{Key: shipment.Key{OrderID: "a", Attempt: 1}, Status: shipment.Requested, Calls: 3}}
		stop := w.run(t)
		time.Sleep(2 * time.Second)
		w.mu.Lock()
		w.queue = []shipment.Shipment{{Key: shipment.Key{OrderID: "b", Attempt: 1}, Status: shipment.InTransit}}
		w.mu.Unlock()
		time.Sleep(2 * time.Second)
		stop()
		if len(w.outcomes) != 2 {
			t.Fatalf("outcomes %+v", w.outcomes)
		}
		if c := w.outcomes[0]; c.OrderID != "a" || c.Status != "" || c.Again < 400*time.Millisecond || c.Again > 800*time.Millisecond {
			t.Errorf("after an error: %+v", c)
		}
		if c := w.outcomes[1]; c.OrderID != "b" || c.Status != shipment.Delivered || c.Again == 0 {
			t.Errorf("after a poll: %+v", c)
		}
	})
}
