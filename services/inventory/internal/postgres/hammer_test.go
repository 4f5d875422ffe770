package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

// errNoAnswer stands for a call that was carried out and whose answer was lost.
var errNoAnswer = errors.New("carried out, but the caller hears of a time-out")

// Orders are reserved, released, paid, cancelled and expired in random order, each thing several times, from eight
// goroutines on two replicas, one call in twenty answered with a time-out though it was carried out. Without tombstones,
// guards and row locks this leaks stock, sells it twice or stands still.
func TestHammer(t *testing.T) {
	t.Parallel()
	s := open(t)
	replicas := []*stockroom{s, s.replica()}
	products := []string{"cup", "lamp", "mug"}
	const orders, workers = 60, 8
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	itemsOf := func(order int) []stock.Item {
		r := rand.New(rand.NewPCG(1, uint64(order)))
		raw := make([]stock.Item, 1+r.IntN(3))
		for i := range raw {
			raw[i] = stock.Item{Product: products[r.IntN(3)], Quantity: 1 + r.Int64N(3)}
		}
		items, err := stock.Sum(raw)
		if err != nil {
			t.Fatal(err)
		}
		return items
	}
	var mu sync.Mutex
	told := map[string]bool{} // orders that were ever told "pinned"

	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(2, uint64(w)))
			replica := replicas[w%2]
			ctx := context.Background()
			lost := func(err error) error {
				if err == nil && r.IntN(20) == 0 {
					return errNoAnswer
				}
				return err
			}
			for range rounds {
				batch := map[int]bool{}
				for range 1 + r.IntN(8) {
					batch[r.IntN(orders)] = true
				}
				var err error
				switch op := r.IntN(7); op {
				case 0, 1, 2:
					var asks []postgres.Ask
					for o := range batch { // in any order: the store must not depend on it
						if op == 0 {
							asks = append(asks, hold(fmt.Sprint(o), itemsOf(o)...))
						} else {
							asks = append(asks, pin(fmt.Sprint(o), itemsOf(o)...))
						}
					}
					var replies []postgres.Reply
					replies, err = replica.Reserve(ctx, asks)
					if err = lost(err); err == nil {
						mu.Lock()
						for _, p := range replies {
							told[p.OrderID] = told[p.OrderID] || p.Outcome == stock.OutcomePinned
						}
						mu.Unlock()
					}
				case 3:
					for o := range batch {
						_, _, err = replica.Release(ctx, stock.News{Fact: stock.Free, OrderID: fmt.Sprint(o), Tenant: 1}, false, nil, nil)
						err = lost(err)
					}
				case 4, 5:
					var events []event.Event
					for o := range batch {
						id := fmt.Sprint(o)
						events = append(events, []event.Event{
							initiated(id), paymentFailed(id), paid(id, itemsOf(o)...), paid(id, itemsOf(o)...), cancelled(id, ""), cancelled(id, "returned"), failed(id),
						}[r.IntN(7)])
					}
					err = lost(replica.follow(events...))
				case 6:
					_, err = replica.pool.Exec(ctx, `UPDATE reservations SET due_at = now() WHERE state = 'HELD' AND order_id = $1`, fmt.Sprint(r.IntN(orders)))
					if err == nil {
						_, err = replica.ExpireHeld(ctx, 1+r.IntN(5))
					}
				}
				if err != nil && !errors.Is(err, errNoAnswer) && !pg.Retryable(err) {
					t.Errorf("worker %d: %v", w, err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Fatal("stands still")
	}
	s.conserves()
	sold, pinned := one[int](s, `SELECT count(*) FROM stock_ledger WHERE op = 'confirmed'`), len(told)
	if sold == 0 || pinned == 0 {
		t.Errorf("the hammer proves nothing: %d sold, %d told", sold, pinned)
	}
	// Nobody was promised stock that then went without a trace: whoever heard "pinned" has a row.
	for id, ok := range told {
		if ok && s.state(id) == "" {
			t.Errorf("order %s was told pinned and has no reservation", id)
		}
	}
	if n := one[int](s, `SELECT count(*) FROM reservations WHERE state = 'HELD' AND due_at < now() - interval '15 min'`); n != 0 {
		t.Errorf("I-STOCK-5: %d holds outlived their time", n)
	}
}
