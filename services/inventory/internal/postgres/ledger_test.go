package postgres_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
	"github.com/waybill-dev/waybill/services/inventory/internal/recount"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

func (s *stockroom) takeStock(key string, take recount.Take) ([]recount.Line, *inbox.Response, error) {
	s.t.Helper()
	take.ID, take.Tenant, take.Actor, take.Reason = "stocktake:"+newID(), 1, "merchant", "count"
	_, lines, replayed, err := s.TakeStock(s.t.Context(), take, *newKey("/inventory/stocktakes", key, 1),
		func(recount.Take, []recount.Line) *inbox.Response {
			return &inbox.Response{Status: 200, Body: []byte("{}")}
		}, raised{})
	return lines, replayed, err
}

func TestStockTake(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.reserve(pin("o", mugs(10)))
	lines, _, err := s.takeStock("k", recount.Take{Counts: []recount.Count{{Product: "cup", Counted: 5}, {Product: "lamp", Counted: 48}, {Product: "mug", Counted: 9}}})
	if err != nil {
		t.Fatal(err)
	}
	want := []recount.Line{
		{Product: "cup", Counted: 5, Expected: 5, Outcome: recount.Equal, OnHand: 5},
		{Product: "lamp", Counted: 48, Expected: 50, Difference: -2, Outcome: recount.Booked, OnHand: 48},
		{Product: "mug", Counted: 9, Expected: 100, Difference: -91, Outcome: recount.BelowReserved, OnHand: 100},
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	s.has("lamp", 48, 0)
	s.has("mug", 100, 10)
	if got := one[string](s, `SELECT kind || ' ' || subject FROM raised`); got != "count_below_reserved stock:1:mug" {
		t.Errorf("intervention: %s", got)
	}
	if _, replayed, err := s.takeStock("k", recount.Take{Counts: []recount.Count{{Product: "lamp", Counted: 1}}}); err != nil || replayed == nil {
		t.Errorf("the same key again: %v, %v", replayed, err)
	}
	if n := one[int](s, `SELECT count(*) FROM stocktakes`); n != 1 {
		t.Errorf("%d stock-takes", n)
	}
	s.tells("stock:1:lamp", "1 inventory.updated restocked lamp+50=50/0", "2 inventory.updated stocktake lamp-2=48/0")
	s.conserves()
}

// Orders go on while people count: what was sold since is not missing.
func TestStockTakeOfAnEarlierTime(t *testing.T) {
	t.Parallel()
	s := open(t)
	counted := one[time.Time](s, `SELECT clock_timestamp()`)
	s.reserve(pin("o", mugs(10)))
	s.mustFollow(paid("o", mugs(10)))
	lines, _, err := s.takeStock("k", recount.Take{CountedAt: counted, Counts: []recount.Count{{Product: "mug", Counted: 99}}})
	if err != nil {
		t.Fatal(err)
	}
	want := []recount.Line{{Product: "mug", Counted: 99, Expected: 100, Difference: -1, Outcome: recount.Booked, OnHand: 89}}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	s.has("mug", 89, 0)
	s.conserves()
}

func TestStockTakeOfUnknownProducts(t *testing.T) {
	t.Parallel()
	s := open(t)
	_, _, err := s.takeStock("k", recount.Take{Counts: []recount.Count{{Product: "car", Counted: 1}, {Product: "lamp", Counted: 1}}})
	var unknown postgres.UnknownProducts
	if !errors.As(err, &unknown) || len(unknown) != 1 || unknown[0] != "car" {
		t.Errorf("got %v", err)
	}
	s.has("lamp", 50, 0)
}

func TestRestockRefused(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.reserve(pin("o", mugs(10)))
	restock := func(key, product string, delta int64) error {
		_, _, err := s.Restock(t.Context(), stock.Adjustment{Key: stock.Key{Tenant: 1, Product: product}, Document: "restock:" + newID(), Op: stock.Restocked, Delta: delta},
			*newKey("/inventory/restock", key, 1), func(stock.Product, error) *inbox.Response { return nil })
		return err
	}
	if err := restock("a", "mug", -91); !errors.Is(err, stock.ErrBelowReserved) {
		t.Errorf("below what is reserved: %v", err)
	}
	if err := restock("b", "car", 1); !errors.Is(err, stock.ErrUnknownProduct) {
		t.Errorf("unknown: %v", err)
	}
	if err := restock("c", "mug", -90); err != nil {
		t.Errorf("down to what is reserved: %v", err)
	}
	s.has("mug", 10, 10)
	s.conserves()
}

func TestMovements(t *testing.T) {
	t.Parallel()
	s := open(t)
	for i := range 3 {
		id := fmt.Sprint(i)
		s.reserve(pin(id, mugs(1)))
		s.mustFollow(paid(id, mugs(1)))
	}
	var got []string
	f := postgres.MovementFilter{Tenant: 1, Product: "mug", Limit: 2}
	for range 3 {
		page, err := s.Movements(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page {
			got = append(got, fmt.Sprintf("%s%s %+d=%d", m.OrderID, m.Document, m.Delta, m.Balance))
			f.Before = m.ID
		}
	}
	if diff := cmp.Diff([]string{"2 -1=97", "1 -1=98", "0 -1=99", "seed +100=100"}, got); diff != "" {
		t.Error(diff)
	}
	if page, err := s.Movements(t.Context(), postgres.MovementFilter{Tenant: 1, OrderID: "1", Limit: 10}); err != nil || len(page) != 1 {
		t.Errorf("of one order: %v, %v", page, err)
	}
	if page, err := s.Movements(t.Context(), postgres.MovementFilter{Tenant: 2, OrderID: "1", Limit: 10}); err != nil || len(page) != 0 {
		t.Errorf("of another tenant: %v, %v", page, err)
	}
}

func TestDrift(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.reserve(pin("o", mugs(10)))
	c := postgres.Comparison{Store: s.Store, Raise: raised{}}
	if found, err := c.Drift(t.Context()); err != nil || len(found) != 0 {
		t.Fatalf("sound stock: %v, %v", found, err)
	}
	s.exec(`UPDATE products SET on_hand = on_hand + 1 WHERE product_id = 'lamp'`)
	s.exec(`UPDATE products SET reserved = reserved - 1 WHERE product_id = 'mug'`)
	found, err := c.Drift(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []recount.Drift{
		{Tenant: 1, Product: "lamp", OnHand: 51, Ledger: 50},
		{Tenant: 1, Product: "mug", OnHand: 100, Ledger: 100, Reserved: 9, Reservations: 10},
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Error(diff)
	}
	if n := one[int](s, `SELECT count(*) FROM raised WHERE kind = 'stock_drift'`); n != 2 {
		t.Errorf("%d interventions", n)
	}
}

// What a program can get wrong, the database refuses.
func TestDatabaseRefuses(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.reserve(pin("o", mugs(1)))
	s.mustFollow(paid("o", mugs(1)))
	for _, sql := range []string{
		`UPDATE stock_ledger SET delta = 7`,
		`DELETE FROM stock_ledger`,
		`TRUNCATE stock_ledger`,
		`INSERT INTO stock_ledger (tenant, product_id, order_id, op, delta, balance) VALUES (1, 'mug', 'o', 'confirmed', -1, 98)`, // twice
		`INSERT INTO stock_ledger (tenant, product_id, order_id, op, delta, balance) VALUES (1, 'mug', 'x', 'confirmed', 1, 98)`,  // sold upwards
		`INSERT INTO stock_ledger (tenant, product_id, op, delta, balance) VALUES (1, 'mug', 'restocked', 1, 98)`,                 // without a cause
		`UPDATE products SET on_hand = -1 WHERE product_id = 'mug'`,
		`UPDATE products SET reserved = -1 WHERE product_id = 'mug'`,
		`UPDATE products SET reserved = on_hand + 1 WHERE product_id = 'mug'`,
		`UPDATE reservations SET state = 'HELD'`,      // without a due time
		`UPDATE reservations SET state = 'RELEASED'`,  // with a confirmation
		`UPDATE reservations SET confirmed_at = NULL`, // without one
		`UPDATE reservations SET state = 'SHIPPED'`,
		`UPDATE reservations SET quantities = '{}'`,
	} {
		if _, err := s.pool.Exec(t.Context(), sql); !pg.Permanent(err) {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestPutProduct(t *testing.T) {
	t.Parallel()
	s := open(t)
	k := stock.Key{Tenant: 1, Product: "plate"}
	put := func(name string, price int64) (stock.Product, bool) {
		t.Helper()
		p, created, _, err := s.PutProduct(t.Context(), stock.Product{Key: k, Name: name, Price: price, Currency: "EUR"}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p, created
	}
	if p, created := put("Plate", 100); !created || p.OnHand != 0 {
		t.Errorf("made: %+v, %v", p, created)
	}
	for range 2 { // the second changes nothing and says nothing
		if p, created := put("Plate", 150); created || p.Price != 150 {
			t.Errorf("changed: %+v, %v", p, created)
		}
	}
	s.tells("stock:1:plate", "1 inventory.updated catalogue plate+0=0/0", "2 inventory.updated catalogue plate+0=0/0")

	// A price that changes does not change what was reserved before.
	s.reserve(pin("o", mugs(2)))
	if _, _, _, err := s.PutProduct(t.Context(), stock.Product{Key: stock.Key{Tenant: 1, Product: "mug"}, Name: "mug", Price: 600, Currency: "EUR"}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := s.reserve(pin("o", mugs(2))); got.Outcome != stock.OutcomePinned || got.Total != 1000 {
		t.Errorf("asked again: %+v", got.Answer)
	}
	if got := s.reserve(pin("new", mugs(2))); got.Outcome != stock.OutcomeMismatch || got.Total != 1200 {
		t.Errorf("a new order at the old price: %+v", got.Answer)
	}
}

func TestSeedIsIdempotent(t *testing.T) {
	t.Parallel()
	s := open(t) // has seeded
	s.exec(`UPDATE products SET price = 1, reserved = 0 WHERE product_id = 'mug'`)
	more := []stock.Product{
		{Key: stock.Key{Tenant: 1, Product: "mug"}, Name: "mug", Price: 500, Currency: "EUR", OnHand: 100},
		{Key: stock.Key{Tenant: 1, Product: "pan"}, Name: "pan", Price: 500, Currency: "EUR", OnHand: 3},
	}
	done := make(chan error, 4)
	for range 4 {
		go func() { done <- s.Seed(t.Context(), more) }()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	s.has("mug", 100, 0)
	s.has("pan", 3, 0)
	if got := one[int64](s, `SELECT price FROM products WHERE product_id = 'mug'`); got != 1 {
		t.Errorf("a product that exists is left alone, its price is %d", got)
	}
	s.conserves()
}
