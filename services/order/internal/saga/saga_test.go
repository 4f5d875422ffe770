package saga

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/testkit"
	inventoryv1 "github.com/waybill-dev/waybill/proto/gen/waybill/inventory/v1"
	paymentv1 "github.com/waybill-dev/waybill/proto/gen/waybill/payment/v1"
	shippingv1 "github.com/waybill-dev/waybill/proto/gen/waybill/shipping/v1"
	"github.com/waybill-dev/waybill/services/order/internal/order"
	"github.com/waybill-dev/waybill/services/order/internal/postgres"
	"github.com/waybill-dev/waybill/services/order/internal/stock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// records keeps what leaves with committed transactions.
type records struct {
	mu      sync.Mutex
	events  []event.Event
	tickets map[string]string // by subject; closed ones are empty
	fail    error             // of the next transaction, before it commits
}

func (r *records) Add(u *pg.Unit, events ...event.Event) {
	r.mu.Lock()
	fail := r.fail
	r.mu.Unlock()
	if fail != nil {
		u.BeforeCommit(func(context.Context) error { return fail })
	}
	u.AfterCommit(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, events...)
	})
}

func (r *records) Raise(u *pg.Unit, x inbox.Intervention) { r.ticket(u, x.Subject, x.Kind) }
func (r *records) Resolve(u *pg.Unit, _, subject, _ string) {
	r.ticket(u, subject, "")
}

func (r *records) ticket(u *pg.Unit, subject, kind string) {
	u.AfterCommit(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.tickets[subject] = kind
	})
}

// of lists what was published about an order, and checks its numbers.
func (r *records) of(t testing.TB, id string) (types []event.Type) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Subject != id {
			continue
		}
		types = append(types, e.Type)
		if e.Seq != int64(len(types)) {
			t.Errorf("%s is number %d of %s, after %d others", e.Type, e.Seq, id, len(types)-1)
		}
	}
	return types
}

type bench struct {
	t     testing.TB
	pool  *pgxpool.Pool
	saga  *Saga
	out   *records
	store postgres.Store
	seq   map[string]int64
}

func setup(t *testing.T) *bench {
	t.Parallel()
	pool, _ := testkit.Postgres(t, inbox.Migrations, postgres.Migrations)
	b := &bench{t: t, pool: pool, out: &records{tickets: map[string]string{}}, store: postgres.Store{Pool: pool}, seq: map[string]int64{}}
	b.saga = b.another(time.Minute)
	return b
}

// another is a replica on the same database.
func (b *bench) another(deadline time.Duration) *Saga {
	s := New(Options{Pool: b.pool, Outbox: b.out, Log: testkit.Log(b.t), Registry: prometheus.NewRegistry(), Deadline: deadline, AskAfter: time.Millisecond})
	s.SetTickets(b.out)
	return s
}

func newOrder(id string, items ...order.Item) *order.Order {
	o := &order.Order{ID: id, Tenant: 1, Customer: "customer", Amount: 5990, Currency: "EUR", Method: "card", Email: "a@example.com", Status: order.Pending,
		Items: items, CreatedAt: time.Now().UTC().Truncate(time.Microsecond), Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
	if len(items) > 0 {
		o.Address = &order.Address{Name: "A. Buyer", Line1: "1 Main St", City: "Berlin", PostalCode: "10115", Country: "DE"}
	}
	return o
}

var one = order.Item{ProductID: "sku-1", Quantity: 2}

func (b *bench) create(orders ...*order.Order) {
	b.t.Helper()
	if err := b.saga.Create(b.t.Context(), orders); err != nil {
		b.t.Fatal(err)
	}
}

// status reads an order.
func (b *bench) status(id string) string {
	b.t.Helper()
	o, err := b.store.Head(b.t.Context(), id, postgres.Viewer{All: true})
	if err != nil {
		b.t.Fatal(err)
	}
	if o.Reason != "" {
		return fmt.Sprint(o.Status, " ", o.Reason)
	}
	return string(o.Status)
}

func (b *bench) want(id, status string, sent ...event.Type) {
	b.t.Helper()
	if got := b.status(id); got != status {
		b.t.Errorf("%s is %s, want %s", id, got, status)
	}
	if diff := cmp.Diff(sent, b.out.of(b.t, id)); diff != "" {
		b.t.Errorf("published about %s: want - got +\n%s", id, diff)
	}
}

// event is one of another service.
func (b *bench) event(typ event.Type, id string, m proto.Message) event.Event {
	b.seq[typ.Topic()+id]++
	e := event.New(context.Background(), typ, id, 1, b.seq[typ.Topic()+id], m)
	e.Source = "/waybill/" + typ.Topic()
	return e
}

func (b *bench) handle(events ...event.Event) error {
	return pg.Do(b.t.Context(), b.pool, func(ctx context.Context, u *pg.Unit) error { return b.saga.Handle(ctx, u, events) })
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) initiated(id string) event.Event {
	return b.event(event.PaymentInitiated, id, &paymentv1.PaymentInitiated{OrderId: id, Amount: 5990, Currency: "EUR"})
}

func (b *bench) processed(id string) event.Event {
	return b.event(event.PaymentProcessed, id, &paymentv1.PaymentProcessed{OrderId: id, Amount: 5990, Currency: "EUR"})
}

// A whole life of many orders in three batches: all of an order's events at once are as good as one after the other.
func TestBatchesHoldManyEventsOfOneOrder(t *testing.T) {
	b := setup(t)
	const n = 100
	var orders []*order.Order
	for i := range n {
		orders = append(orders, newOrder(fmt.Sprintf("o-%03d", i), one))
	}
	b.create(orders...)
	var answers []Fact
	for _, o := range orders {
		answers = append(answers, Fact{Fact: order.Fact{Event: order.StockReserved}, OrderID: o.ID})
	}
	_, err := b.saga.Apply(t.Context(), answers)
	b.must(err)
	var events []event.Event
	for _, o := range orders {
		id := o.ID
		events = append(events, b.initiated(id), b.processed(id),
			b.event(event.InventoryUpdated, id, &inventoryv1.InventoryUpdated{OrderId: id, Reason: "confirmed"}),
			b.event(event.ShippingRequested, id, &shippingv1.ShippingRequested{OrderId: id, Attempt: 1}),
			b.event(event.ShippingProgress, id, &shippingv1.ShippingProgress{OrderId: id, Attempt: 1, Status: "accepted"}),
			b.event(event.ShippingCompleted, id, &shippingv1.ShippingCompleted{OrderId: id, Attempt: 1}))
	}
	b.must(b.handle(events...))
	for _, o := range orders {
		b.want(o.ID, "completed", event.OrderCreated, event.OrderPaymentRequested, event.OrderPaymentProcessed, event.OrderCompleted)
	}
	_, lines, err := b.store.Order(t.Context(), "o-042", postgres.Viewer{All: true})
	b.must(err)
	var got []string
	for _, l := range lines {
		got = append(got, l.Event+" "+string(l.Status))
	}
	if diff := cmp.Diff([]string{"order.created pending", "stock.reserved paying", "payment.initiated paying", "payment.processed paid", "inventory.updated paid",
		"shipping.requested shipping", "shipping.progress shipping", "shipping.completed completed"}, got); diff != "" {
		t.Errorf("timeline: want - got +\n%s", diff)
	}
	// Each event keeps the trace of its order's request.
	for _, e := range b.out.events {
		if e.Type == event.OrderPaymentRequested && e.Traceparent != orders[0].Traceparent {
			t.Errorf("%s has trace %s", e.Type, e.Traceparent)
		}
	}
}

func TestWhatIsNoOrderIsOnlyCounted(t *testing.T) {
	b := setup(t)
	b.create(newOrder("mine", one))
	foreign := b.event(event.InventoryReserved, "mine", &inventoryv1.InventoryReserved{OrderId: "mine", State: "pinned", Total: 5990, Currency: "EUR",
		Items: []*inventoryv1.Item{{ProductId: "sku-1", Quantity: 2}}})
	foreign.Tenant = 2
	b.must(b.handle(
		b.event(event.InventoryUpdated, "stock:1:sku-1", &inventoryv1.InventoryUpdated{Reason: "restocked"}),
		b.event(event.InventoryReserved, "nobody", &inventoryv1.InventoryReserved{OrderId: "nobody", State: "held"}),
		foreign))
	b.want("mine", "pending", event.OrderCreated)
	_, lines, err := b.store.Order(t.Context(), "mine", postgres.Viewer{All: true})
	b.must(err)
	if len(lines) != 1 {
		t.Errorf("another tenant's event is in the timeline: %v", lines)
	}
}

func TestReservedByEvent(t *testing.T) {
	b := setup(t)
	reserved := func(id, state string, total, quantity int64) event.Event {
		return b.event(event.InventoryReserved, id, &inventoryv1.InventoryReserved{OrderId: id, State: state, Total: total, Currency: "EUR",
			Items: []*inventoryv1.Item{{ProductId: "sku-1", Quantity: quantity}}})
	}
	b.create(newOrder("pinned", one), newOrder("held", one), newOrder("dear", one), newOrder("other", one))
	b.must(b.handle(reserved("pinned", "pinned", 5990, 2), reserved("held", "held", 5990, 2), reserved("dear", "pinned", 6990, 2), reserved("other", "pinned", 5990, 3)))
	b.want("pinned", "paying", event.OrderCreated, event.OrderPaymentRequested)
	for _, id := range []string{"held", "dear", "other"} { // our own question settles these
		b.want(id, "pending", event.OrderCreated)
	}
	// The answer that the event has overtaken leaves no second line.
	_, err := b.saga.Apply(t.Context(), []Fact{{Fact: order.Fact{Event: order.StockReserved}, OrderID: "pinned"}})
	b.must(err)
	_, lines, err := b.store.Order(t.Context(), "pinned", postgres.Viewer{All: true})
	b.must(err)
	if len(lines) != 2 {
		t.Errorf("timeline: %v", lines)
	}
}

func TestImpossibleEventsArePermanentErrors(t *testing.T) {
	b := setup(t)
	b.create(newOrder("o-1"))
	for name, e := range map[string]event.Event{
		"refund that nobody asked for": b.event(event.PaymentRefunded, "o-1", &paymentv1.PaymentRefunded{OrderId: "o-1", Amount: 5990, Currency: "EUR", Attempt: 1}),
		"other amount":                 b.event(event.PaymentProcessed, "o-1", &paymentv1.PaymentProcessed{OrderId: "o-1", Amount: 5991, Currency: "EUR"}),
		"shipment of nothing":          b.event(event.ShippingCompleted, "o-1", &shippingv1.ShippingCompleted{OrderId: "o-1", Attempt: 1}),
		"not what its type says":       {Type: event.PaymentFailed, Subject: "o-1", Tenant: 1, Seq: 9, Data: []byte{0xff, 0xff}},
	} {
		if err := b.handle(e); err == nil || pg.Retryable(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.want("o-1", "paying", event.OrderCreated, event.OrderPaymentRequested)
}

func TestOlderAttemptsAreStale(t *testing.T) {
	b := setup(t)
	b.create(newOrder("o-1", one))
	apply := func(e order.Event, f order.Fact) {
		t.Helper()
		f.Event = e
		_, err := b.saga.Apply(t.Context(), []Fact{{Fact: f, OrderID: "o-1"}})
		b.must(err)
	}
	apply(order.StockReserved, order.Fact{})
	b.must(b.handle(b.processed("o-1"), b.event(event.ShippingFailed, "o-1", &shippingv1.ShippingFailed{OrderId: "o-1", Attempt: 1, Reason: "lost"})))
	if b.out.tickets["o-1"] != TicketShipping {
		t.Errorf("ticket %q", b.out.tickets["o-1"])
	}
	apply(order.PersonResend, order.Fact{Goods: order.GoodsReturned, Address: &order.Address{Name: "A", Line1: "2 Side St", City: "Bonn", PostalCode: "53111", Country: "DE"}})
	if b.out.tickets["o-1"] != "" {
		t.Errorf("ticket %q is still open", b.out.tickets["o-1"])
	}
	o, err := b.store.Head(t.Context(), "o-1", postgres.Viewer{All: true})
	b.must(err)
	if o.Address.City != "Bonn" || o.Shipment != 2 {
		t.Errorf("resent to %+v as number %d", o.Address, o.Shipment)
	}
	// The first parcel turns up after all: news, but not of this shipment.
	b.must(b.handle(b.event(event.ShippingCompleted, "o-1", &shippingv1.ShippingCompleted{OrderId: "o-1", Attempt: 1})))
	if got := b.status("o-1"); got != "paid" {
		t.Errorf("an older shipment took the order to %s", got)
	}
	b.must(b.handle(b.event(event.ShippingCompleted, "o-1", &shippingv1.ShippingCompleted{OrderId: "o-1", Attempt: 2})))
	b.want("o-1", "completed", event.OrderCreated, event.OrderPaymentRequested, event.OrderPaymentProcessed, event.OrderAttention, event.OrderShippingRequested, event.OrderCompleted)
}

// shelf is an inventory that remembers what it was asked.
type shelf struct {
	mu    sync.Mutex
	asked map[string]int
	away  bool
}

func (s *shelf) Reserve(_ context.Context, orders []*order.Order) ([]stock.Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var answers []stock.Answer
	for _, o := range orders {
		s.asked[o.ID]++
		answers = append(answers, stock.Answer{OrderID: o.ID, Outcome: stock.Pinned, Total: o.Amount, Currency: o.Currency})
	}
	if s.away {
		return nil, errors.New("time-out after the effect")
	}
	return answers, nil
}

// running runs reservers until the test ends.
func running(t testing.TB, rs ...*Reserver) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, r := range rs {
		wg.Go(func() { _ = r.Run(ctx) })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// A process that dies between commit and call leaves a pending order behind; so does a call whose answer is lost. Two replicas
// sweep, and each order is paid for once.
func TestSweepersFindWhatWasNotAnswered(t *testing.T) {
	b := setup(t)
	var orders []*order.Order
	for i := range 300 {
		orders = append(orders, newOrder(fmt.Sprintf("o-%03d", i), one))
	}
	b.create(orders...)
	sh := &shelf{asked: map[string]int{}, away: true}
	first, second := NewReserver(b.saga, sh), NewReserver(b.another(time.Minute), sh)
	running(t, first, second)
	sweepers := []*Sweeper{NewSweeper(b.saga, first), NewSweeper(second.saga, second)}
	sweep := func() {
		var wg sync.WaitGroup
		for _, w := range sweepers {
			wg.Go(func() {
				if err := w.Sweep(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	sweep()
	testkit.Eventually(t, 10*time.Second, func() bool {
		sh.mu.Lock()
		defer sh.mu.Unlock()
		return len(sh.asked) == len(orders)
	}, "not all are asked for")
	for id, n := range sh.asked {
		if n != 1 {
			t.Errorf("%s was asked for %d times at once", id, n)
		}
	}
	for _, o := range orders[:3] {
		b.want(o.ID, "pending", event.OrderCreated) // nothing is concluded from silence
	}
	// Nothing is due until the next question's time has come; then it is asked again.
	sweep()
	sh.mu.Lock()
	if sh.asked["o-000"] != 1 {
		t.Error("asked again at once")
	}
	sh.away = false
	sh.mu.Unlock()
	_, err := b.pool.Exec(t.Context(), `UPDATE order_watch SET due_at = due_at - interval '5 seconds'`)
	b.must(err)
	testkit.Eventually(t, 20*time.Second, func() bool {
		sweep()
		var n int
		return b.pool.QueryRow(t.Context(), `SELECT count(*) FROM orders WHERE status = 'paying'`).Scan(&n) == nil && n == len(orders)
	}, "not all are answered")
	for _, o := range orders {
		b.want(o.ID, "paying", event.OrderCreated, event.OrderPaymentRequested)
	}
}

// Deadlines are decided under the order's lock: what is paid meanwhile stays paid, and two sweepers cancel once.
func TestDeadlinesAgainstPayments(t *testing.T) {
	b := setup(t)
	b.saga = b.another(time.Millisecond)
	other := b.another(time.Millisecond)
	sh := &shelf{asked: map[string]int{}}
	var orders []*order.Order
	for i := range 60 {
		if i%2 == 0 {
			orders = append(orders, newOrder(fmt.Sprintf("o-%03d", i))) // charge-only: paying at once
		} else {
			orders = append(orders, newOrder(fmt.Sprintf("o-%03d", i), one))
		}
	}
	b.create(orders...)
	var wg sync.WaitGroup
	for _, s := range []*Saga{b.saga, other} {
		w := NewSweeper(s, NewReserver(s, sh))
		wg.Go(func() {
			if err := w.Sweep(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	var paid []event.Event
	for i := 0; i < len(orders); i += 2 {
		paid = append(paid, b.processed(orders[i].ID))
	}
	for _, e := range paid {
		wg.Go(func() {
			if err := b.handle(e); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, o := range orders {
		got := b.status(o.ID)
		switch {
		case i%2 == 1:
			b.want(o.ID, "cancelled expired", event.OrderCreated, event.OrderCancelled)
		case got == "completed":
			b.want(o.ID, got, event.OrderCreated, event.OrderPaymentRequested, event.OrderPaymentProcessed, event.OrderCompleted)
		default:
			b.want(o.ID, "cancelling expired", event.OrderCreated, event.OrderPaymentRequested, event.OrderRefundRequested)
		}
	}
}

func TestCreateFreeFindsWhatIsTaken(t *testing.T) {
	b := setup(t)
	first := newOrder("a", one)
	first.Fingerprint[0] = 1
	keyed := newOrder("b")
	keyed.Key = "k"
	b.create(first, keyed)
	if err := b.saga.Create(t.Context(), []*order.Order{newOrder("a"), newOrder("new")}); err == nil {
		t.Error("a taken id was stored twice")
	} else if _, taken := pg.UniqueViolation(err); !taken {
		t.Errorf("not a unique violation: %v", err)
	}
	again := newOrder("c")
	again.Key = "k"
	stored, taken, err := b.saga.CreateFree(t.Context(), []*order.Order{newOrder("a"), again, newOrder("d", one), newOrder("e")})
	b.must(err)
	if diff := cmp.Diff(map[string]bool{"d": true, "e": true}, stored); diff != "" {
		t.Errorf("stored: want - got +\n%s", diff)
	}
	got := map[string]string{}
	for _, x := range taken {
		got[x.ID] = x.Key
	}
	if diff := cmp.Diff(map[string]string{"a": "", "b": "k"}, got); diff != "" {
		t.Errorf("taken: want - got +\n%s", diff)
	}
	b.want("d", "pending", event.OrderCreated)
	b.want("e", "paying", event.OrderCreated, event.OrderPaymentRequested)
	if sent := b.out.of(t, "c"); sent != nil {
		t.Errorf("published about an order that was not stored: %v", sent)
	}
}

// A transaction that fails leaves nothing: no order, no line, no event, and no memory that a second try could fall over.
func TestNothingIsHalfWritten(t *testing.T) {
	b := setup(t)
	b.out.fail = errors.New("the process dies before COMMIT")
	if err := b.saga.Create(t.Context(), []*order.Order{newOrder("o-1")}); err == nil {
		t.Fatal("it did not fail")
	}
	for _, table := range []string{"orders", "order_history", "order_watch"} {
		var n int
		if err := b.pool.QueryRow(t.Context(), `SELECT count(*) FROM `+table).Scan(&n); err != nil || n != 0 {
			t.Errorf("%s has %d rows, %v", table, n, err)
		}
	}
	b.out.fail = nil
	b.create(newOrder("o-1"))
	b.out.fail = errors.New("again")
	if _, err := b.saga.Apply(t.Context(), []Fact{{Fact: order.Fact{Event: order.PaymentFailed, Amount: 5990, Currency: "EUR"}, OrderID: "o-1"}}); err == nil {
		t.Fatal("it did not fail")
	}
	b.out.fail = nil
	b.want("o-1", "paying", event.OrderCreated, event.OrderPaymentRequested)
}

// The database knows the rules too: whoever writes around the saga is refused.
func TestSchemaRefusesWhatCannotBe(t *testing.T) {
	b := setup(t)
	b.create(newOrder("o-1", one))
	for name, sql := range map[string]string{
		"unknown status":        `UPDATE orders SET status = 'lost'`,
		"final without its end": `UPDATE orders SET status = 'completed'`,
		"an end without final":  `UPDATE orders SET finished_at = now()`,
		"failed for no reason":  `UPDATE orders SET status = 'failed', finished_at = now()`,
		"reason for nothing":    `UPDATE orders SET reason = 'expired'`,
		"goods eaten":           `UPDATE orders SET goods = 'eaten'`,
		"no amount":             `UPDATE orders SET amount = 0`,
		"items without address": `UPDATE orders SET address = NULL`,
		"items without number":  `UPDATE orders SET quantities = '{}'`,
		"negative quantity":     `UPDATE orders SET quantities = '{-1}'`,
		"id of a way":           `UPDATE orders SET order_id = 'a/b'`,
	} {
		if _, err := b.pool.Exec(t.Context(), sql); !pg.Permanent(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The same decision twice at once, under one key: both have looked for an answer before there is one, and wait for the
// order. One decides, the other hears what was decided, although by then the order would refuse it.
func TestSameDecisionAtOnce(t *testing.T) {
	b := setup(t)
	b.create(newOrder("o-1", one))
	_, err := b.saga.Apply(t.Context(), []Fact{{Fact: order.Fact{Event: order.StockReserved}, OrderID: "o-1"}})
	b.must(err)
	b.must(b.handle(b.processed("o-1"), b.event(event.ShippingFailed, "o-1", &shippingv1.ShippingFailed{OrderId: "o-1", Attempt: 1, Reason: "lost"})))
	lock, err := b.pool.Begin(t.Context())
	b.must(err)
	_, err = lock.Exec(t.Context(), `SELECT FROM orders WHERE order_id = 'o-1' FOR UPDATE`)
	b.must(err)

	type heard struct {
		answer   inbox.Response
		replayed bool
		err      error
	}
	answers := make(chan heard, 2)
	for range 2 {
		go func() {
			var h heard
			h.answer, h.replayed, h.err = b.saga.Decide(t.Context(), Decision{
				Key: &inbox.Request{Caller: "1/olga", Route: "POST /orders/{order_id}/resolve", Key: "k-1"},
				Fact: Fact{OrderID: "o-1", Fact: order.Fact{Event: order.PersonRefund, Goods: order.GoodsLost}, Allow: func(o *order.Order) error {
					if o.Status != order.Attention {
						return errors.New("no decision is awaited")
					}
					return nil
				}},
				Render: func(r Result) (inbox.Response, error) {
					return inbox.Response{Status: 202, ContentType: "application/json", Body: []byte("{}")}, r.Err
				},
			})
			answers <- h
		}()
	}
	testkit.Eventually(t, 20*time.Second, func() bool {
		var waiting int
		err := b.pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting)
		return err == nil && waiting == 2
	}, "two decisions that wait")
	b.must(lock.Commit(t.Context()))
	replays := 0
	for range 2 {
		h := <-answers
		if h.err != nil || h.answer.Status != 202 {
			t.Errorf("%+v", h)
		}
		if h.replayed {
			replays++
		}
	}
	if replays != 1 {
		t.Errorf("%d of 2 heard a repeated answer", replays)
	}
	b.want("o-1", "cancelling shipping_failed", event.OrderCreated, event.OrderPaymentRequested, event.OrderPaymentProcessed, event.OrderAttention, event.OrderRefundRequested)
}
