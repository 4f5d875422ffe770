package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// orders that run while a service is killed.
const underKill = 200

// TestKill kills each service in turn, with -9 and all its processes at once, while
// orders run. Afterwards every order that was accepted has ended, and the stock, the
// payments and what provider and carrier really did agree.
func TestKill(t *testing.T) {
	if platform.binary == "" {
		t.Skip("SKIPPED: there are no process ids to kill (WAYBILL_E2E_GATEWAY is set)")
	}
	targets := append(slices.Clone(services), "kafka", "redis", "postgres")
	if s, err := readStatus(); err != nil {
		t.Fatal(err)
	} else {
		targets = slices.DeleteFunc(targets, func(name string) bool { return len(pidsOf(s, name)) == 0 })
	}
	for _, name := range targets {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "order" {
				t.Skip("-short: the order service only")
			}
			killWhileOrdersRun(t, name)
		})
	}
}

// pidsOf finds a service's processes: order, order-2 and so on.
func pidsOf(s status, name string) (pids []int) {
	for _, p := range s.Processes {
		if p.PID > 0 && (p.Name == name || p.Name == name+"-2" || p.Name == name+"-3") {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

func killWhileOrdersRun(t *testing.T, name string) {
	const stock = 100_000
	shelves := []string{shelf(t, stock), shelf(t, stock), shelf(t, stock)}
	price := get[product](t, admin, "/products/"+shelves[0]).Price
	methods := []string{"card", "card", "card", "card", "card_declined", "card_flaky"}
	cities := []string{"Berlin", "Berlin", "Berlin", "Delayed", "Nowhere", "Lost"}

	var mu sync.Mutex
	accepted := map[string]newOrder{}
	placeAll := func() {
		var wg sync.WaitGroup
		work := make(chan newOrder)
		for range 8 {
			wg.Go(func() {
				for o := range work {
					if err := placeUntilAccepted(t.Context(), o); err != nil {
						t.Errorf("order %s: %v", o.OrderID, err)
						continue
					}
					mu.Lock()
					accepted[o.OrderID] = o
					mu.Unlock()
				}
			})
		}
		for range underKill {
			q := 1 + rand.IntN(3)
			id := unique("k")
			to := berlin()
			to.City = cities[rand.IntN(len(cities))]
			work <- newOrder{
				OrderID: id, Amount: times(price, q), Currency: "EUR", PaymentMethod: methods[rand.IntN(len(methods))], Email: id + "@example.com",
				Items: []item{{shelves[rand.IntN(len(shelves))], q}}, Address: to,
			}
		}
		close(work)
		wg.Wait()
	}
	placing := make(chan struct{})
	go func() { defer close(placing); placeAll() }()
	eventually(t, time.Minute, func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if n := len(accepted); n < underKill/4 {
			return fmt.Errorf("%d orders are accepted", n)
		}
		return nil
	})
	s, err := readStatus()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pidsOf(s, name) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Errorf("kill %s (pid %d): %v", name, pid, err)
		}
	}
	<-placing
	settle(t, accepted, shelves, stock)
}

// placeUntilAccepted does what a client must: send the same order again until somebody
// answers.
func placeUntilAccepted(ctx context.Context, o newOrder) error {
	ctx, cancel := context.WithTimeout(ctx, endWithin)
	defer cancel()
	for {
		r, err := customer.try(ctx, http.MethodPost, "/orders", nil, o)
		if err == nil && r.status == http.StatusAccepted {
			return nil
		}
		if err == nil && r.status != http.StatusTooManyRequests && r.status/100 != 5 {
			return r.into(http.StatusAccepted, nil)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// settle waits until all orders have ended and compares the books.
func settle(t *testing.T, accepted map[string]newOrder, shelves []string, stock int) {
	t.Helper()
	ended := map[string]order{}
	eventually(t, 2*time.Minute, func(ctx context.Context) error {
		open := ""
		for id := range accepted {
			if _, ok := ended[id]; ok {
				continue
			}
			r, err := customer.try(ctx, http.MethodGet, "/orders/"+id, nil, nil)
			if err != nil {
				return err
			}
			var o order
			if err := r.into(http.StatusOK, &o); err != nil {
				return err
			}
			if final(o.Status) {
				ended[id] = o
			} else {
				open = fmt.Sprintf("%s is %s after %v", id, o.Status, o.events())
			}
		}
		if len(ended) < len(accepted) {
			return fmt.Errorf("%d of %d orders have ended; %s", len(ended), len(accepted), open)
		}
		return nil
	})
	books := ledger(t)
	sold := map[string]int{}
	for id, o := range ended {
		lines := books[id]
		checkMoney(t, o, lines)
		wantStatus, wantReason := expected(accepted[id])
		if o.Status != wantStatus || o.Reason != wantReason {
			t.Errorf("order %s ended %s %q, want %s %q: %v", id, o.Status, o.Reason, wantStatus, wantReason, o.events())
		}
		if n := count(lines, "deliver"); (o.Status == "completed") != (n == 1) || n > 1 {
			t.Errorf("order %s is %s and was delivered %d times", id, o.Status, n)
		}
		if o.Status == "completed" || o.Status == "attention" {
			sold[o.Items[0].ProductID] += o.Items[0].Quantity
		}
		for _, m := range o.Timeline {
			if m.Event == o.Timeline[0].Event && m != o.Timeline[0] {
				t.Errorf("order %s began twice", id)
			}
		}
	}
	for _, id := range shelves {
		eventually(t, endWithin, func(context.Context) error {
			p := get[product](t, admin, "/products/"+id)
			if p.OnHand != stock-sold[id] || p.Reserved != 0 {
				return fmt.Errorf("%s: %d on hand, %d reserved; %d of %d were sold", id, p.OnHand, p.Reserved, sold[id], stock)
			}
			return nil
		})
	}
	// Each end was told, once.
	checked := 0
	for _, o := range accepted {
		if checked++; checked > 20 {
			break // the mailbox is searched for each
		}
		told(t, o.Email, 1)
	}
}

// expected is the end that the test values ask for.
func expected(o newOrder) (status, reason string) {
	switch {
	case o.PaymentMethod == "card_declined":
		return "cancelled", "payment_declined"
	case o.Address.City == "Nowhere" || o.Address.City == "Lost":
		return "attention", "shipping_failed"
	default:
		return "completed", ""
	}
}
