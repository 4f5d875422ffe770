package expiry

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/services/inventory/internal/order"
	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
}

// shelf keeps what was done to its pins.
type shelf struct {
	held  int
	pins  []postgres.Pin
	done  map[string]string
	sweep int
	err   error
}

func (s *shelf) ExpireHeld(_ context.Context, limit int) (int, error) {
	s.sweep++
	n := min(limit, s.held)
	s.held -= n
	return n, s.err
}

func (s *shelf) OverduePins(context.Context, int) ([]postgres.Pin, error) { return s.pins, nil }

func (s *shelf) Unpin(_ context.Context, p postgres.Pin) (bool, error) {
	s.done[p.OrderID] = "unpinned"
	return true, nil
}

func (s *shelf) KeepPin(_ context.Context, p postgres.Pin) error {
	s.done[p.OrderID] = "kept"
	return nil
}

// The order service decides what becomes of a pin that has grown old; without its answer nothing does.
func TestOldPins(t *testing.T) {
	orders := http.NewServeMux()
	for _, status := range []string{"pending", "paying", "cancelling", "paid", "shipping", "completed", "failed", "cancelled", "attention"} {
		orders.HandleFunc("GET /orders/"+status, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"order_id":"` + status + `","status":"` + status + `","items":[{"product_id":"sku-1","quantity":1}],"timeline":[]}`))
		})
	}
	// A hold that somebody made under the id of an order without items is pinned by its payment, and never taken.
	orders.HandleFunc("GET /orders/charge-only", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"order_id":"charge-only","status":"completed","items":[]}`))
	})
	orders.HandleFunc("GET /orders/charged-soon", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"order_id":"charged-soon","status":"paying","items":[]}`))
	})
	orders.HandleFunc("GET /orders/broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	orders.HandleFunc("GET /orders/forbidden", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) })
	orders.HandleFunc("GET /orders/garbled", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"status":`)) })
	orders.HandleFunc("GET /orders/mixed-up", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"order_id":"another","status":"cancelled"}`))
	})
	server := httptest.NewServer(orders)
	defer server.Close()

	want := map[string]string{
		"pending": "kept", "paying": "kept", "cancelling": "kept", "paid": "kept", "shipping": "kept", "completed": "kept", "attention": "kept",
		"failed": "unpinned", "cancelled": "unpinned", "unknown": "kept", "charge-only": "unpinned", "charged-soon": "kept",
	}
	s := &shelf{done: map[string]string{}}
	for _, id := range []string{"pending", "paying", "cancelling", "paid", "shipping", "completed", "failed", "cancelled", "attention",
		"unknown", "charge-only", "charged-soon", "broken", "forbidden", "garbled", "mixed-up"} {
		s.pins = append(s.pins, postgres.Pin{OrderID: id})
	}
	client := order.NewClient(server.URL+"/", http.DefaultTransport)
	err := New(s, client, time.Second, zap.NewNop(), prometheus.NewRegistry()).Sweep(t.Context())
	if err == nil {
		t.Error("four orders were not answered for, and the sweep says nothing")
	}
	if diff := cmp.Diff(want, s.done); diff != "" {
		t.Error(diff)
	}
}

func TestSweepsUntilNothingIsDue(t *testing.T) {
	s := &shelf{held: 3*holdBatch + 1}
	if err := New(s, nil, time.Second, zap.NewNop(), prometheus.NewRegistry()).Sweep(t.Context()); err != nil || s.held != 0 || s.sweep != 4 {
		t.Errorf("%d left after %d transactions, %v", s.held, s.sweep, err)
	}
}

func TestRunGoesOnAfterAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{err: errors.New("away")}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- New(s, nil, time.Second, zap.NewNop(), prometheus.NewRegistry()).Run(ctx) }()
		time.Sleep(3500 * time.Millisecond)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil || s.sweep != 3 {
			t.Errorf("%d sweeps in three seconds, %v", s.sweep, err)
		}
	})
}
