package progress_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/services/shipping/internal/progress"
	"github.com/waybill-dev/waybill/services/shipping/internal/shipment"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errPoison = errors.New("poison")

// store counts transactions. The first one waits until the gate is open, so that the others gather behind it.
type store struct {
	gate         chan struct{}
	mu           sync.Mutex
	transactions int
}

func (s *store) Apply(_ context.Context, cs []shipment.Change) ([]bool, error) {
	<-s.gate
	s.mu.Lock()
	defer s.mu.Unlock()
	s.transactions++
	known := make([]bool, len(cs))
	for i, c := range cs {
		if c.OrderID == "poison" {
			return nil, errPoison
		}
		known[i] = c.OrderID != "unknown"
	}
	return known, nil
}

func start(t *testing.T, s progress.Store) *progress.Intake {
	t.Helper()
	i := progress.New(s)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = i.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if _, err := i.Apply(context.Background(), change("late")); !errors.Is(err, progress.ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
	})
	return i
}

func change(id string) shipment.Change {
	return shipment.Change{Report: shipment.Report{Key: shipment.Key{OrderID: id, Attempt: 1}}}
}

func TestReportsShareTransactions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{gate: make(chan struct{})}
		i := start(t, s)
		var all sync.WaitGroup
		for n := range 100 {
			all.Go(func() {
				if known, err := i.Apply(context.Background(), change(fmt.Sprint(n))); err != nil || !known {
					t.Errorf("report %d: %v, %v", n, known, err)
				}
			})
		}
		synctest.Wait() // one is in its transaction, the others wait
		close(s.gate)
		all.Wait()
		if s.transactions != 2 {
			t.Errorf("100 concurrent reports took %d transactions, want the first one's and one for all the others", s.transactions)
		}
	})
}

func TestABadReportSpoilsNothingForTheOthers(t *testing.T) {
	s := &store{gate: make(chan struct{})}
	i := start(t, s)
	var all sync.WaitGroup
	for _, id := range []string{"a", "poison", "unknown", "b"} {
		all.Go(func() {
			known, err := i.Apply(context.Background(), change(id))
			if (id == "poison") != errors.Is(err, errPoison) || known != (id == "a" || id == "b") {
				t.Errorf("%s: %v, %v", id, known, err)
			}
		})
	}
	close(s.gate)
	all.Wait()
}

func TestACallerMayLeave(t *testing.T) {
	s := &store{gate: make(chan struct{})}
	i := start(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan error, 1)
	go func() {
		_, err := i.Apply(ctx, change("a"))
		left <- err
	}()
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("left with %v", err)
	}
	close(s.gate)
	if known, err := i.Apply(context.Background(), change("b")); err != nil || !known {
		t.Errorf("the next one: %v, %v", known, err)
	}
}
