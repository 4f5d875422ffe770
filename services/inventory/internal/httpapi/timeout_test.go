package httpapi_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
)

// Every third transaction is carried out and its callers are told that it timed out (RELIABILITY C1): they see 503, ask
// again under the same order id, and each order has its stock once.
func TestCarriedOutButTimedOut(t *testing.T) {
	w := open(t)
	store := w.store
	var mu sync.Mutex
	lies, calls := 0, 0
	w.serve(w.pool, w.issuer.Verifier("inventory"), func(ctx context.Context, asks []postgres.Ask) ([]postgres.Reply, error) {
		replies, err := store.Reserve(ctx, asks)
		mu.Lock()
		defer mu.Unlock()
		if calls++; err == nil && calls%3 == 0 {
			lies++
			return nil, fmt.Errorf("reserve: %w", os.ErrDeadlineExceeded)
		}
		return replies, err
	})
	const orders = 40
	order, merchant := w.order(), w.merchant()
	var wg sync.WaitGroup
	for i := range orders {
		wg.Go(func() {
			id := fmt.Sprintf("t-%d", i)
			for range 50 {
				var a answer
				if i%2 == 0 {
					a = w.call(order, "POST", "/inventory/reservations", pinOf(id, "mug", 2, 1000))
				} else {
					a = w.call(merchant, "POST", "/inventory/reserve", reserveOf(id, "mug", 2), "Idempotency-Key", id)
				}
				if a.status == 200 && rand.IntN(2) == 0 { // the answer may also be lost on its way
					return
				}
				if a.status != 200 && a.status != 503 {
					t.Errorf("%s: %d %s", id, a.status, a.raw)
					return
				}
			}
		})
	}
	wg.Wait()
	if lies == 0 {
		t.Error("no transaction was lied about: this proves nothing")
	}
	var reserved, rows, first int64
	err := w.pool.QueryRow(t.Context(), `SELECT (SELECT reserved FROM products WHERE tenant = 1 AND product_id = 'mug'),
		count(*), count(*) FILTER (WHERE event_seq = 1) FROM reservations`).Scan(&reserved, &rows, &first)
	if err != nil {
		t.Fatal(err)
	}
	if reserved != 2*orders || rows != orders || first != orders {
		t.Errorf("%d mugs for %d reservations, %d of them with one event; want %d for %d", reserved, rows, first, 2*orders, orders)
	}
}
