package postgres_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

func TestExpireHeld(t *testing.T) {
	t.Parallel()
	s := open(t)
	for _, id := range []string{"a", "b", "young"} {
		s.reserve(hold(id, mugs(2)))
	}
	s.exec(`UPDATE reservations SET due_at = now() - interval '1 s' WHERE order_id <> 'young'`)
	for _, want := range []int{1, 1, 0} {
		if n, err := s.ExpireHeld(t.Context(), 1); err != nil || n != want {
			t.Errorf("expired %d, %v; want %d", n, err, want)
		}
	}
	s.has("mug", 100, 2)
	s.tells("a", "1 inventory.reserved held 1000 EUR", "2 inventory.released expired expired")
	if got := s.reserve(pin("a", mugs(2))); got.Outcome != stock.OutcomeClosed {
		t.Errorf("a reservation after expiry: %s", got.Outcome)
	}
	s.conserves()
}

// Orders take their holds over at the moment they expire, on two replicas. Each order ends on one side, and the stock with
// it: what was pinned stays pinned.
func TestExpiryAgainstPin(t *testing.T) {
	t.Parallel()
	s := open(t)
	other := s.replica()
	const orders = 40
	for i := range orders {
		s.reserve(hold(fmt.Sprint(i), mugs(2)))
	}
	s.exec(`UPDATE reservations SET due_at = now()`)
	outcomes := make([]stock.Outcome, orders)
	var wg sync.WaitGroup
	for _, r := range []*stockroom{s, other} {
		wg.Go(func() {
			for range 20 {
				if _, err := r.ExpireHeld(context.Background(), 3); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range orders {
		wg.Go(func() {
			replies, err := other.Reserve(context.Background(), []postgres.Ask{pin(fmt.Sprint(i), mugs(1))})
			if err != nil {
				t.Error(err)
				return
			}
			outcomes[i] = replies[0].Outcome
		})
	}
	wg.Wait()
	pinned := int64(0)
	for i, o := range outcomes {
		switch got := s.state(fmt.Sprint(i)); {
		case o == stock.OutcomePinned && got == "PINNED":
			pinned++
		case o == stock.OutcomeClosed && got == "EXPIRED":
		default:
			t.Errorf("order %d was told %s and is %s", i, o, got)
		}
	}
	// Whose bound is over is for the order service to say, not for this job.
	s.exec(`UPDATE reservations SET due_at = now() WHERE state = 'PINNED'`)
	if n, err := s.ExpireHeld(t.Context(), orders); n != 0 || err != nil {
		t.Errorf("%d pins were looked at as if they were holds, %v", n, err)
	}
	s.has("mug", 100, pinned)
	s.conserves()
}

func TestOverduePins(t *testing.T) {
	t.Parallel()
	s := open(t)
	for _, id := range []string{"dead", "alive", "moved", "young"} {
		s.reserve(pin(id, mugs(1)))
	}
	s.exec(`UPDATE reservations SET due_at = now() - interval '1 h' WHERE order_id <> 'young'`)
	pins, err := s.OverduePins(t.Context(), 10)
	if err != nil || len(pins) != 3 {
		t.Fatalf("%v, %v", pins, err)
	}
	s.mustFollow(paid("moved", mugs(1)))
	for _, p := range pins {
		if p.OrderID == "alive" {
			if err := s.KeepPin(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			// Another replica that listed the pin before must not release it now.
			if released, err := s.Unpin(t.Context(), p); err != nil || released {
				t.Errorf("a pin that was kept: released %v, %v", released, err)
			}
			continue
		}
		released, err := s.Unpin(t.Context(), p)
		if err != nil || released != (p.OrderID == "dead") {
			t.Errorf("%s: released %v, %v", p.OrderID, released, err)
		}
	}
	if pins, err := s.OverduePins(t.Context(), 10); err != nil || len(pins) != 0 {
		t.Errorf("still overdue: %v, %v", pins, err)
	}
	s.has("mug", 99, 2)
	s.tells("dead", "1 inventory.reserved pinned 500 EUR", "2 inventory.released released abandoned")
	s.conserves()
}
