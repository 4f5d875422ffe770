package intake

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/order/internal/order"
	"github.com/waybill-dev/waybill/services/order/internal/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// creator is a table of orders in memory.
type creator struct {
	mu      sync.Mutex
	rows    map[string]postgres.Taken
	batches []int
	poison  string // this order fails, and whatever shares its transaction
	gone    error  // every transaction fails so
	gate    chan struct{}
}

var errTaken = &pgconn.PgError{Code: "23505"}

func (c *creator) Create(_ context.Context, orders []*order.Order) error {
	if c.gate != nil {
		<-c.gate
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batches = append(c.batches, len(orders))
	if err := c.fails(orders); err != nil {
		return err
	}
	for _, o := range orders {
		if _, taken := c.rows[o.ID]; taken {
			return errTaken
		}
	}
	for _, o := range orders {
		c.rows[o.ID] = postgres.Taken{Order: o, Key: o.Key, Fingerprint: o.Fingerprint}
	}
	return nil
}

func (c *creator) fails(orders []*order.Order) error {
	for _, o := range orders {
		if o.ID == c.poison {
			return &pgconn.PgError{Code: "23514", Message: "check"}
		}
	}
	return c.gone
}

func (c *creator) CreateFree(_ context.Context, orders []*order.Order) (stored map[string]bool, taken []postgres.Taken, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fails(orders); err != nil {
		return nil, nil, err
	}
	stored = map[string]bool{}
next:
	for _, o := range orders {
		for _, row := range c.rows {
			if row.ID == o.ID || (o.Key != "" && row.Key == o.Key && row.Customer == o.Customer) {
				taken = append(taken, row)
				continue next
			}
		}
		c.rows[o.ID] = postgres.Taken{Order: o, Key: o.Key, Fingerprint: o.Fingerprint}
		stored[o.ID] = true
	}
	return stored, taken, nil
}

func wishOf(id, customer, key string, print byte) *order.Order {
	return &order.Order{ID: id, Customer: customer, Key: key, Fingerprint: [32]byte{print}}
}

type result struct {
	id       string
	replayed bool
	err      error
}

// submit sends orders at once while the first transaction is held up, so that all but the first share the second.
func submit(t *testing.T, c *creator, orders ...*order.Order) (results []result, accepted map[string]int) {
	t.Helper()
	accepted = map[string]int{}
	results = make([]result, len(orders))
	synctest.Test(t, func(t *testing.T) {
		c.gate = make(chan struct{})
		i := New(c, func(o *order.Order) { accepted[o.ID]++ }, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = i.Run(ctx) }()
		go func() { _, _, _ = i.Submit(t.Context(), wishOf("first", "x", "", 0)) }()
		synctest.Wait()
		var wg sync.WaitGroup
		for n, o := range orders {
			wg.Go(func() {
				got, replayed, err := i.Submit(t.Context(), o)
				results[n] = result{replayed: replayed, err: err}
				if got != nil {
					results[n].id = got.ID
				}
			})
			synctest.Wait() // in the order of the slice
		}
		close(c.gate)
		wg.Wait()
		cancel()
		<-done
	})
	return results, accepted
}

func TestRequestsShareATransaction(t *testing.T) {
	c := &creator{rows: map[string]postgres.Taken{}}
	var orders []*order.Order
	for n := range 300 {
		orders = append(orders, wishOf(fmt.Sprint("o-", n), "a", "", 1))
	}
	results, accepted := submit(t, c, orders...)
	for n, r := range results {
		if r.err != nil || r.replayed || r.id != orders[n].ID || accepted[r.id] != 1 {
			t.Fatalf("order %d: %+v, accepted %d times", n, r, accepted[r.id])
		}
	}
	if len(c.batches) != 3 || c.batches[1] != 256 || c.batches[2] != 44 {
		t.Errorf("transactions of %v", c.batches)
	}
}

func TestDuplicatesWithinABatch(t *testing.T) {
	c := &creator{rows: map[string]postgres.Taken{}}
	results, accepted := submit(t, c,
		wishOf("a", "me", "", 1), wishOf("a", "me", "", 1), wishOf("a", "me", "", 2), wishOf("a", "you", "", 1),
		wishOf("b", "me", "k", 1), wishOf("c", "me", "k", 1), wishOf("d", "me", "k", 2), wishOf("e", "you", "k", 1))
	conflict := problem.New(http.StatusConflict, "order-exists", "")
	reused := problem.New(http.StatusUnprocessableEntity, "idempotency-key-reused", "")
	for n, want := range []result{{"a", false, nil}, {"a", true, nil}, {"", true, conflict}, {"", true, conflict},
		{"b", false, nil}, {"b", true, nil}, {"", true, reused}, {"e", false, nil}} {
		got := results[n]
		if got.id != want.id || (want.err == nil && (got.err != nil || got.replayed != want.replayed)) || (want.err != nil && !errors.Is(got.err, want.err)) {
			t.Errorf("wish %d: %+v, want %+v", n, got, want)
		}
	}
	for _, id := range []string{"a", "b", "e"} {
		if accepted[id] != 1 {
			t.Errorf("%s was accepted %d times", id, accepted[id])
		}
	}
}

// One order that cannot be stored fails alone.
func TestOneBadOrderFailsAlone(t *testing.T) {
	c := &creator{rows: map[string]postgres.Taken{}, poison: "bad"}
	results, accepted := submit(t, c, wishOf("a", "me", "", 1), wishOf("bad", "me", "", 1), wishOf("b", "me", "", 1))
	if results[0].err != nil || results[2].err != nil || results[1].err == nil {
		t.Errorf("%+v", results)
	}
	if errors.Is(results[1].err, problem.Unavailable()) {
		t.Error("a bad order is no outage")
	}
	if accepted["a"] != 1 || accepted["b"] != 1 || accepted["bad"] != 0 {
		t.Errorf("accepted %v", accepted)
	}
}

// While the database is away everybody waits 2 s, all in all, and is told to come again.
func TestDatabaseAway(t *testing.T) {
	c := &creator{rows: map[string]postgres.Taken{}, gone: &pgconn.PgError{Code: "57P03"}}
	results, accepted := submit(t, c, wishOf("a", "me", "", 1), wishOf("b", "me", "", 1))
	for _, r := range results {
		if p := problem.From(r.err); p.Status != http.StatusServiceUnavailable || p.RetryAfter <= 0 {
			t.Errorf("%+v", r)
		}
	}
	if len(accepted) != 0 || len(c.rows) != 0 {
		t.Errorf("stored %v, accepted %v", c.rows, accepted)
	}
	if n := len(c.batches); n < 10 || n > 30 {
		t.Errorf("%d tries in twice 2 s", n)
	}
}

// A client that hangs up before its order is taken has not ordered; the others of the batch are not touched.
func TestAClientHangsUp(t *testing.T) {
	c := &creator{rows: map[string]postgres.Taken{}}
	synctest.Test(t, func(t *testing.T) {
		c.gate = make(chan struct{})
		i := New(c, func(*order.Order) {}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = i.Run(ctx) }()
		go func() { _, _, _ = i.Submit(t.Context(), wishOf("first", "x", "", 0)) }()
		synctest.Wait()
		client, hangUp := context.WithCancel(t.Context())
		errs := make(chan error, 2)
		go func() { _, _, err := i.Submit(client, wishOf("gone", "me", "", 1)); errs <- err }()
		synctest.Wait()
		hangUp()
		if err := <-errs; err == nil {
			t.Error("an answer for nobody")
		}
		go func() { _, _, err := i.Submit(t.Context(), wishOf("stays", "me", "", 1)); errs <- err }()
		synctest.Wait()
		close(c.gate)
		if err := <-errs; err != nil {
			t.Error(err)
		}
		cancel()
		<-done
		if _, err := submitOnce(t, i); err == nil {
			t.Error("an intake that has ended takes orders")
		}
	})
	if _, there := c.rows["gone"]; there {
		t.Error("stored for a client that was gone")
	}
}

func submitOnce(t *testing.T, i *Intake) (*order.Order, error) {
	o, _, err := i.Submit(t.Context(), wishOf("late", "me", "", 1))
	return o, err
}
