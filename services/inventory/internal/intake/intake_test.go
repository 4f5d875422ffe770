package intake

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func asks(ids ...string) []postgres.Ask {
	out := make([]postgres.Ask, len(ids))
	for i, id := range ids {
		out[i].OrderID = id
	}
	return out
}

// store answers each ask with its own id. It waits at the gate and keeps what it was asked.
type store struct {
	gate    chan struct{}
	mu      sync.Mutex
	batches [][]string
	fail    func(ids []string) error
}

func (s *store) reserve(ctx context.Context, asks []postgres.Ask) ([]postgres.Reply, error) {
	var ids []string
	replies := make([]postgres.Reply, len(asks))
	for i, a := range asks {
		ids = append(ids, a.OrderID)
		replies[i].Answer = stock.Answer{OrderID: a.OrderID}
	}
	s.mu.Lock()
	s.batches = append(s.batches, ids)
	s.mu.Unlock()
	if s.gate != nil {
		<-s.gate
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if s.fail != nil {
		if err := s.fail(ids); err != nil {
			return nil, err
		}
	}
	return replies, nil
}

// start runs an intake in the bubble and returns how to end it.
func start(t *testing.T, s *store) (*Intake, func()) {
	i := New(s.reserve, prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	return i, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestWaitingRequestsShareATransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{gate: make(chan struct{})}
		i, end := start(t, s)
		var wg sync.WaitGroup
		for n := range 6 {
			wg.Go(func() {
				id := fmt.Sprint(n)
				replies, err := i.Reserve(t.Context(), asks(id+"a", id+"b"))
				if err != nil || len(replies) != 2 || replies[0].OrderID != id+"a" || replies[1].OrderID != id+"b" {
					t.Errorf("%s got %v, %v", id, replies, err)
				}
			})
			synctest.Wait() // the first is in its transaction, the others wait in order
		}
		close(s.gate)
		wg.Wait()
		end()
		if diff := cmp.Diff([][]string{{"0a", "0b"}, {"1a", "1b", "2a", "2b", "3a", "3b", "4a", "4b", "5a", "5b"}}, s.batches); diff != "" {
			t.Error(diff)
		}
	})
}

func TestOneFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("value out of range")
		s := &store{gate: make(chan struct{}, 10), fail: func(ids []string) error {
			if slices.Contains(ids, "bad") {
				return broken
			}
			return nil
		}}
		i, end := start(t, s)
		var wg sync.WaitGroup
		for _, id := range []string{"first", "good", "bad", "fine"} {
			wg.Go(func() {
				replies, err := i.Reserve(t.Context(), asks(id))
				if id == "bad" {
					if !errors.Is(err, broken) {
						t.Errorf("bad: %v", err)
					}
				} else if err != nil || replies[0].OrderID != id {
					t.Errorf("%s: %v, %v", id, replies, err)
				}
			})
			synctest.Wait()
		}
		close(s.gate)
		wg.Wait()
		end()
	})
}

// A database that is away is not asked once more for each request that waits.
func TestUnavailableIsToldToAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{gate: make(chan struct{}), fail: func([]string) error { return &net.OpError{Op: "dial", Err: errors.New("refused")} }}
		i, end := start(t, s)
		var wg sync.WaitGroup
		for n := range 3 {
			wg.Go(func() {
				if _, err := i.Reserve(t.Context(), asks(fmt.Sprint(n))); err == nil {
					t.Errorf("%d: no error", n)
				}
			})
			synctest.Wait()
		}
		close(s.gate)
		wg.Wait()
		end()
		if len(s.batches) != 2 {
			t.Errorf("%d transactions", len(s.batches))
		}
	})
}

// A client that goes away takes neither the transaction nor its neighbours with it.
func TestClientGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{gate: make(chan struct{})}
		i, end := start(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := i.Reserve(ctx, asks("gone")); !errors.Is(err, context.Canceled) {
				t.Errorf("gone: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		wg.Go(func() {
			if _, err := i.Reserve(t.Context(), asks("stays")); err != nil {
				t.Errorf("stays: %v", err)
			}
		})
		synctest.Wait()
		close(s.gate)
		wg.Wait()
		end()
	})
}

func TestFullAndStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{gate: make(chan struct{})}
		i, end := start(t, s)
		var wg sync.WaitGroup
		for n := range maxWaiting + 1 { // one is in its transaction
			wg.Go(func() {
				if _, err := i.Reserve(t.Context(), asks(fmt.Sprint(n))); err != nil {
					t.Errorf("%d: %v", n, err)
				}
			})
			synctest.Wait()
		}
		if _, err := i.Reserve(t.Context(), asks("too many")); !errors.Is(err, problem.New(503, "overloaded", "")) {
			t.Errorf("queue full: %v", err)
		}
		close(s.gate)
		wg.Wait() // all of those that wait are decided
		end()
		if _, err := i.Reserve(t.Context(), asks("late")); !errors.Is(err, ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
		for _, b := range s.batches {
			if len(b) > maxAsks {
				t.Errorf("%d orders in one transaction", len(b))
			}
		}
	})
}
