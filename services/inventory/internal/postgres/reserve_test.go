package postgres_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

func TestHappyPath(t *testing.T) {
	t.Parallel()
	s := open(t)
	items := []stock.Item{{Product: "lamp", Quantity: 1}, mugs(2)}
	if got := s.reserve(pin("o", items...)); got.Outcome != stock.OutcomePinned || got.Total != 3000 || got.Currency != "EUR" {
		t.Fatalf("reserve: %+v", got)
	}
	s.has("mug", 100, 2)
	s.mustFollow(initiated("o"))
	s.mustFollow(paid("o", items...))
	if got := s.state("o"); got != "CONFIRMED" {
		t.Errorf("state %s", got)
	}
	s.has("mug", 98, 0)
	s.has("lamp", 49, 0)
	s.tells("o", "1 inventory.reserved pinned 3000 EUR", "2 inventory.updated confirmed lamp-1=49/0 mug-2=98/0")
	s.conserves()
}

func TestBatchServesWhomItCan(t *testing.T) {
	t.Parallel()
	s := open(t)
	cups := func(n int64) stock.Item { return stock.Item{Product: "cup", Quantity: n} } // 5 there
	wrong := pin("mismatch", cups(1))
	wrong.Amount++
	replies, err := s.Reserve(t.Context(), []postgres.Ask{
		pin("a", cups(3)), pin("b", cups(3)), pin("c", stock.Item{Product: "car", Quantity: 1}), wrong, pin("d", cups(2), mugs(1)), pin("e", cups(1)), pin("a", cups(3)),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a pinned ", "b refused out_of_stock", "c refused unknown_product", "mismatch mismatch amount_mismatch", "d pinned ", "e refused out_of_stock", "a pinned "}
	for i, r := range replies {
		if got := fmt.Sprintf("%s %s %s", r.OrderID, r.Outcome, r.Reason); got != want[i] {
			t.Errorf("%d: %s, want %s", i, got, want[i])
		}
	}
	s.has("cup", 5, 5)
	s.has("mug", 100, 1)
	if n := one[int](s, `SELECT count(*) FROM reservations`); n != 2 {
		t.Errorf("%d reservations, want 2: refusals leave none", n)
	}
	s.conserves()
}

// 256 orders of one product in one batch: one transaction, first come, first served.
func TestHotProduct(t *testing.T) {
	t.Parallel()
	s := open(t)
	asks := make([]postgres.Ask, 256)
	for i := range asks {
		asks[i] = pin(fmt.Sprintf("o-%03d", i), mugs(1))
	}
	replies, err := s.Reserve(t.Context(), asks)
	if err != nil {
		t.Fatal(err)
	}
	pinned := 0
	for i, r := range replies {
		if r.Outcome == stock.OutcomePinned {
			pinned++
		}
		if (r.Outcome == stock.OutcomePinned) != (i < 100) {
			t.Fatalf("order %d is %s: first come, first served", i, r.Outcome)
		}
	}
	if pinned != 100 {
		t.Errorf("%d pinned of 100", pinned)
	}
	s.has("mug", 100, 100)
	if n := one[int](s, `SELECT count(DISTINCT xmin::text) FROM (SELECT xmin FROM reservations UNION ALL SELECT xmin FROM products WHERE product_id = 'mug') x`); n != 1 {
		t.Errorf("%d transactions", n)
	}
	if got := one[int64](s, `SELECT count(*) FROM stock_ledger WHERE product_id = 'mug'`); got != 1 {
		t.Errorf("%d lines in the ledger: reserving moves nothing", got)
	}
	s.conserves()
}

func TestReserveAgain(t *testing.T) {
	t.Parallel()
	s := open(t)
	first := s.reserve(pin("o", mugs(2)))
	again := s.reserve(pin("o", mugs(2)))
	if first.Outcome != again.Outcome || first.Total != again.Total {
		t.Errorf("first %+v, again %+v", first.Answer, again.Answer)
	}
	s.has("mug", 100, 2)
	s.tells("o", "1 inventory.reserved pinned 1000 EUR")
}

func TestLateReserveIsRefused(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.release("api")
	s.mustFollow(failed("saga"))
	for _, a := range []postgres.Ask{pin("api", mugs(1)), hold("api", mugs(1)), pin("saga", mugs(1)), hold("saga", mugs(1))} {
		if got := s.reserve(a); got.Outcome != stock.OutcomeClosed || got.Reason != stock.ReasonClosed {
			t.Errorf("%s: %+v", a.OrderID, got.Answer)
		}
	}
	s.has("mug", 100, 0)
	s.tells("api")
	s.tells("saga")
}

func TestHoldIsTakenOver(t *testing.T) {
	t.Parallel()
	s := open(t)
	if got := s.reserve(hold("o", mugs(2))); got.Outcome != stock.OutcomeHeld || got.Reservation.Due.Before(time.Now().Add(14*time.Minute)) {
		t.Fatalf("hold: %+v", got)
	}
	foreign := pin("o", mugs(2))
	foreign.Tenant = 2
	if got := s.reserve(foreign); got.Outcome != stock.OutcomeClosed {
		t.Errorf("another tenant's order: %s", got.Outcome)
	}
	if got := s.reserve(pin("o", stock.Item{Product: "lamp", Quantity: 1}, mugs(1))); got.Outcome != stock.OutcomePinned {
		t.Fatalf("takeover: %+v", got)
	}
	s.has("mug", 100, 1)
	s.has("lamp", 50, 1)
	s.exec(`UPDATE reservations SET due_at = now() - interval '1 hour'`)
	if n, err := s.ExpireHeld(t.Context(), 10); err != nil || n != 0 {
		t.Errorf("%d pins expired, %v", n, err)
	}
	s.tells("o", "1 inventory.reserved held 1000 EUR", "2 inventory.reserved pinned 2500 EUR")
	s.conserves()
}

func TestRelease(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.reserve(hold("held", mugs(2)))
	s.reserve(pin("pinned", mugs(3)))
	s.reserve(pin("sold", mugs(4)))
	s.mustFollow(paid("sold", mugs(4)))
	if got := s.release("held"); got.State != stock.Released {
		t.Errorf("held: %+v", got)
	}
	if got := s.release("held"); got.State != stock.Released || got.Verdict != stock.Stands {
		t.Errorf("held, again: %+v", got)
	}
	for _, id := range []string{"pinned", "sold"} {
		if got := s.release(id); got.Verdict != stock.Refused {
			t.Errorf("%s: %+v", id, got)
		}
	}
	foreign, _, err := s.Release(t.Context(), stock.News{Fact: stock.Free, OrderID: "pinned", Tenant: 2}, false, nil, nil)
	if err != nil || !foreign.Foreign {
		t.Errorf("another tenant's: %+v, %v", foreign, err)
	}
	s.has("mug", 96, 3)
	s.tells("held", "1 inventory.reserved held 1000 EUR", "2 inventory.released released ")
	s.conserves()
}

// Ten replies of one request arrive at once, on two replicas: one effect, one answer.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	s := open(t)
	replicas := []*stockroom{s, s.replica()}
	render := func(a stock.Answer) *inbox.Response {
		return &inbox.Response{Status: http.StatusOK, ContentType: "text/plain", Body: []byte(newID())}
	}
	var wg sync.WaitGroup
	bodies := make([]string, 10)
	fresh := make([]bool, 10)
	for i := range bodies {
		wg.Go(func() {
			a := hold("o", mugs(2))
			a.Key = newKey("/inventory/reserve", "k", 1)
			var sent string
			a.Render = func(ans stock.Answer) *inbox.Response {
				r := render(ans)
				sent = string(r.Body)
				return r
			}
			replies, err := replicas[i%2].Reserve(context.Background(), []postgres.Ask{a})
			if err != nil {
				t.Error(err)
				return
			}
			if fresh[i] = replies[0].Replayed == nil; fresh[i] {
				bodies[i] = sent
			} else {
				bodies[i] = string(replies[0].Replayed.Body)
			}
		})
	}
	wg.Wait()
	n := 0
	for i := range bodies {
		if bodies[i] != bodies[0] || bodies[i] == "" {
			t.Errorf("answer %d is %q, the first %q", i, bodies[i], bodies[0])
		}
		if fresh[i] {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d requests were carried out", n)
	}
	s.has("mug", 100, 2)

	other := hold("other", mugs(2))
	other.Key, other.Render = newKey("/inventory/reserve", "k", 2), render
	if got := s.reserve(other); !problemIs(got.Err, 422, "idempotency-key-reused") {
		t.Errorf("key of another request: %v", got.Err)
	}
	both := []postgres.Ask{hold("x", mugs(1)), hold("x", mugs(1)), hold("y", mugs(1))}
	for i := range both {
		both[i].Key, both[i].Render = newKey("/inventory/reserve", "batch", byte(1+i/2)), render
	}
	replies, err := s.Reserve(t.Context(), both)
	if err != nil {
		t.Fatal(err)
	}
	if replies[0].Replayed != nil || replies[1].Replayed == nil || !problemIs(replies[2].Err, 422, "idempotency-key-reused") {
		t.Errorf("within one batch: %+v", replies)
	}
	s.conserves()
}

func problemIs(err error, status int, slug string) bool {
	p := problem.From(err)
	return err != nil && p.Status == status && p.Slug == slug
}
