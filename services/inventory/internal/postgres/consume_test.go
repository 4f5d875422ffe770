package postgres_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/pg"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

func TestPaymentHoldsAndFrees(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.reserve(hold("o", mugs(2)))
	s.mustFollow(initiated("o"))
	if got := s.state("o"); got != "PINNED" {
		t.Fatalf("after payment.initiated: %s", got)
	}
	s.mustFollow(paymentFailed("o"))
	if got := s.state("o"); got != "HELD" {
		t.Fatalf("after payment.failed: %s", got)
	}
	if !one[bool](s, `SELECT due_at BETWEEN now() + interval '50 s' AND now() + interval '61 s' FROM reservations`) {
		t.Error("the hold of a failed payment must be short")
	}
	s.exec(`UPDATE reservations SET due_at = now()`)
	if n, err := s.ExpireHeld(t.Context(), 10); err != nil || n != 1 {
		t.Fatalf("expired %d, %v", n, err)
	}
	s.mustFollow(cancelled("o", ""))
	if got := s.state("o"); got != "EXPIRED" {
		t.Errorf("after order.cancelled: %s", got)
	}
	s.tells("o", "1 inventory.reserved held 1000 EUR", "2 inventory.reserved pinned 1000 EUR", "3 inventory.released expired expired")
	s.conserves()
}

func TestCancelledReleases(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.reserve(pin("o", mugs(2)))
	s.mustFollow(cancelled("o", ""))
	s.mustFollow(paymentFailed("o")) // the topics have no order between them
	if got := s.state("o"); got != "RELEASED" {
		t.Errorf("state %s", got)
	}
	s.has("mug", 100, 0)
	s.tells("o", "1 inventory.reserved pinned 1000 EUR", "2 inventory.released released customer_request")
	s.conserves()
}

func TestGoodsReturnedAndLost(t *testing.T) {
	t.Parallel()
	s := open(t)
	for _, id := range []string{"back", "lost"} {
		s.reserve(pin(id, mugs(2)))
		s.mustFollow(paid(id, mugs(2)))
	}
	s.mustFollow(cancelled("back", "returned"), cancelled("lost", "lost"))
	if back, lost := s.state("back"), s.state("lost"); back != "RETURNED" || lost != "CONFIRMED" {
		t.Errorf("returned goods: %s, lost ones: %s", back, lost)
	}
	s.has("mug", 98, 0)
	s.tells("back", "1 inventory.reserved pinned 1000 EUR", "2 inventory.updated confirmed mug-2=98/0", "3 inventory.updated returned mug+2=98/0")
	s.conserves()
}

func TestPaidAfterRelease(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.reserve(hold("o", mugs(60)))
	s.release("o")
	s.mustFollow(paid("o", mugs(60)))
	s.has("mug", 40, 0)
	if got := s.state("o"); got != "CONFIRMED" {
		t.Errorf("state %s", got)
	}

	s.reserve(hold("late", mugs(40)))
	s.release("late")
	s.reserve(hold("other", mugs(10)))
	s.mustFollow(paid("late", mugs(40)))
	if got := s.state("late"); got != "RELEASED" {
		t.Errorf("short: state %s", got)
	}
	if got := one[string](s, `SELECT kind || ' ' || subject FROM raised`); got != "stock_short late" {
		t.Errorf("intervention %q", got)
	}
	confirm := func() error {
		return pg.Do(t.Context(), s.pool, func(ctx context.Context, u *pg.Unit) error {
			return s.Confirm(ctx, u, uuid.New(), "late")
		})
	}
	if err := confirm(); !problemIs(err, 409, "insufficient-stock") {
		t.Errorf("redrive while it is short: %v", err)
	}
	s.release("other")
	for range 2 { // driving twice changes nothing
		if err := confirm(); err != nil {
			t.Fatal(err)
		}
	}
	s.has("mug", 0, 0)
	s.tells("late", "1 inventory.reserved held 20000 EUR", "2 inventory.released released ", "3 inventory.updated confirmed mug-40=0/0")
	s.conserves()
}

// An order that waits for its stock and is undone must not get it by a redrive; nor may another tenant's reservation be
// sold by one.
func TestRedriveOfWhatIsNotOwed(t *testing.T) {
	t.Parallel()
	s := open(t)
	confirm := func(id string) error {
		return pg.Do(t.Context(), s.pool, func(ctx context.Context, u *pg.Unit) error {
			return s.Confirm(ctx, u, uuid.New(), id)
		})
	}
	s.mustFollow(paid("undone", mugs(101)))
	if n := one[int](s, `SELECT count(*) FROM raised WHERE subject = 'undone'`); n != 1 {
		t.Fatalf("%d interventions", n)
	}
	s.mustFollow(cancelled("undone", ""))
	if n := one[int](s, `SELECT count(*) FROM raised WHERE subject = 'undone'`); n != 0 {
		t.Errorf("%d interventions are left of an order that was undone", n)
	}
	s.exec(`UPDATE products SET on_hand = on_hand + 10 WHERE product_id = 'mug'`)
	s.exec(`INSERT INTO stock_ledger (tenant, product_id, document, op, delta, balance) VALUES (1, 'mug', 'd', 'restocked', 10, 110)`)
	s.reserve(hold("theirs", mugs(2)))
	foreign := paid("theirs", mugs(2))
	foreign.Tenant = 2
	s.mustFollow(foreign)
	for _, id := range []string{"undone", "theirs", "none"} {
		if err := confirm(id); !problemIs(err, 409, "not-redrivable") {
			t.Errorf("%s: %v", id, err)
		}
	}
	s.has("mug", 110, 2)
	s.conserves()
}

func TestNothingToReserve(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.mustFollow(paid("charge-only"), initiated("charge-only"), paymentFailed("charge-only"))
	if n := one[int](s, `SELECT count(*) FROM reservations`); n != 0 {
		t.Errorf("%d rows for an order without items", n)
	}
	s.mustFollow(cancelled("charge-only", ""))
	if got := s.state("charge-only"); got != "RELEASED" {
		t.Errorf("tombstone: %q", got)
	}
	s.tells("charge-only")
}

func TestForeignEvents(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.reserve(hold("o", mugs(2)))
	foreign := cancelled("o", "")
	foreign.Tenant = 2
	s.mustFollow(foreign)
	if got := s.state("o"); got != "HELD" {
		t.Errorf("another tenant's order.cancelled made it %s", got)
	}
	theirs := paid("o", mugs(2))
	theirs.Tenant = 2
	s.mustFollow(theirs)
	if got := one[int](s, `SELECT count(*) FROM raised WHERE subject = 'o'`); got != 1 {
		t.Errorf("%d interventions", got)
	}
	s.has("mug", 100, 2)
}

// Everything that can happen to an order, in one batch, and all of it again.
func TestBatchOfEvents(t *testing.T) {
	t.Parallel()
	s := open(t)
	for _, id := range []string{"a", "b", "c", "d"} {
		s.reserve(pin(id, mugs(1)))
	}
	batch := []event.Event{
		initiated("a"), initiated("b"), paid("a", mugs(1)), paymentFailed("b"), cancelled("b", ""), paid("c", mugs(1)), cancelled("c", "returned"), failed("d"), failed("e"),
	}
	s.mustFollow(batch...)
	s.mustFollow(batch...)
	for id, want := range map[string]string{"a": "CONFIRMED", "b": "RELEASED", "c": "RETURNED", "d": "RELEASED", "e": "RELEASED"} {
		if got := s.state(id); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	s.has("mug", 99, 0)
	s.conserves()
}

func TestPoison(t *testing.T) {
	t.Parallel()
	s := open(t)
	broken := paid("o", mugs(1))
	broken.Data = []byte{0xff}
	if err := s.follow(broken); !errors.Is(err, event.ErrMalformed) {
		t.Errorf("data that is no protobuf: %v", err)
	}
	none := tell(event.OrderPaymentProcessed, "o", &orderv1.OrderPaymentProcessed{Items: []*orderv1.Item{{ProductId: "mug", Quantity: -1}}})
	if err := s.follow(none); !errors.Is(err, stock.ErrQuantity) {
		t.Errorf("a negative quantity: %v", err)
	}
}
