package processor_test

import (
	"context"
	"fmt"
	"slices"
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
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	paymentv1 "github.com/waybill-dev/waybill/proto/gen/waybill/payment/v1"
	"github.com/waybill-dev/waybill/services/payment/internal/intake"
	"github.com/waybill-dev/waybill/services/payment/internal/payment"
	"github.com/waybill-dev/waybill/services/payment/internal/postgres"
	"github.com/waybill-dev/waybill/services/payment/internal/processor"
	"github.com/waybill-dev/waybill/services/payment/internal/provider"
	"github.com/waybill-dev/waybill/services/payment/internal/provider/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder stands in for outbox and interventions: what was committed, in its order.
type recorder struct {
	mu     sync.Mutex
	events []event.Event
	raised []inbox.Intervention
	closed []string
}

func (r *recorder) Add(u *pg.Unit, events ...event.Event) {
	u.AfterCommit(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, events...)
	})
}

func (r *recorder) Raise(u *pg.Unit, x inbox.Intervention) {
	u.AfterCommit(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.raised = append(r.raised, x)
	})
}

func (r *recorder) Resolve(u *pg.Unit, _, subject, _ string) {
	u.AfterCommit(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.closed = append(r.closed, subject)
	})
}

func (r *recorder) of(orderID string) []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []event.Event
	for _, e := range r.events {
		if e.Subject == orderID {
			all = append(all, e)
		}
	}
	// Callbacks of two commits may overtake each other; rows cannot.
	slices.SortFunc(all, func(a, b event.Event) int { return int(a.Seq - b.Seq) })
	return all
}

// types are the types of an order's events, and their numbers are 1, 2, 3 …
func (r *recorder) types(t *testing.T, orderID string) []event.Type {
	t.Helper()
	var all []event.Type
	for i, e := range r.of(orderID) {
		all = append(all, e.Type)
		if e.Seq != int64(i+1) {
			t.Errorf("event %d of %s has number %d", i+1, orderID, e.Seq)
		}
	}
	return all
}

// world is a database, a provider, and replicas of the service on them.
type world struct {
	t        *testing.T
	pool     *pgxpool.Pool
	provider *providertest.Server
	events   *recorder
	first    *replica
	seq      map[string]int64
}

type replica struct {
	store *postgres.Store
	queue *processor.Processor
	in    *intake.Intake
	stop  func()
}

func setup(t *testing.T, replicas int) *world {
	t.Helper()
	t.Parallel()
	pool, _ := testkit.Postgres(t, inbox.Migrations, postgres.Migrations)
	w := &world{t: t, pool: pool, provider: providertest.New(t), events: &recorder{}, seq: map[string]int64{}}
	for n := range replicas {
		r := w.replica(true)
		if n == 0 {
			w.first = r
		}
	}
	return w
}

// replica starts one more. One that does not run takes jobs and lets them lie: to the others it looks like a process that
// died after its commit.
func (w *world) replica(run bool) *replica {
	w.t.Helper()
	client, err := provider.NewClient(w.provider.URL, provider.Transport(processor.Parallel))
	if err != nil {
		w.t.Fatal(err)
	}
	r := &replica{store: postgres.New(w.pool, w.events)}
	r.store.Attach(w.events)
	r.queue = processor.New(r.store, client, testkit.Log(w.t), prometheus.NewRegistry())
	r.in = intake.New(r.store, r.queue)
	if !run {
		return r
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.queue.Run(ctx)
		client.CloseIdle()
	}()
	r.stop = sync.OnceFunc(func() { cancel(); <-done })
	w.t.Cleanup(r.stop)
	return r
}

func (w *world) event(t event.Type, orderID string, m proto.Message) event.Event {
	w.seq[orderID]++
	e := event.New(context.Background(), t, orderID, 1, w.seq[orderID], m)
	e.Source = "/waybill/order"
	return e
}

// deliver hands events to a replica as its inbox would.
func (w *world) deliver(r *replica, events ...event.Event) {
	w.t.Helper()
	err := pg.Do(context.Background(), w.pool, func(ctx context.Context, u *pg.Unit) error { return r.in.Events(ctx, u, events) })
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) created(id string) event.Event {
	return w.event(event.OrderCreated, id, &orderv1.OrderCreated{OrderId: id, Amount: 5990, Currency: "EUR", PaymentMethod: "card", Customer: "customer"})
}

func (w *world) requested(id, method string) event.Event {
	return w.event(event.OrderPaymentRequested, id, &orderv1.OrderPaymentRequested{OrderId: id, Amount: 5990, Currency: "EUR", PaymentMethod: method})
}

func (w *world) cancelled(id string, writtenOff bool) event.Event {
	return w.event(event.OrderCancelled, id, &orderv1.OrderCancelled{OrderId: id, Amount: 5990, Currency: "EUR", WrittenOff: writtenOff})
}

func (w *world) refund(id string, attempt int32) event.Event {
	return w.event(event.OrderRefundRequested, id, &orderv1.OrderRefundRequested{OrderId: id, Amount: 5990, Currency: "EUR", Attempt: attempt})
}

func (w *world) await(id string, status payment.Status) payment.Payment {
	w.t.Helper()
	var p payment.Payment
	testkit.Eventually(w.t, 20*time.Second, func() bool {
		var err error
		p, err = w.first.store.Find(context.Background(), id)
		return err == nil && p.Status == status
	}, fmt.Sprintf("%s never becomes %s", id, status))
	return p
}

func (w *world) same(what string, want, got any) {
	w.t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		w.t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// told waits for an order's events: a commit can be seen before its callback has run.
func (w *world) told(orderID string, want ...event.Type) {
	w.t.Helper()
	testkit.Eventually(w.t, 5*time.Second, func() bool { return len(w.events.of(orderID)) >= len(want) }, orderID+" lacks events")
	w.same("events", want, w.events.types(w.t, orderID))
}

// balance is debit minus credit of one account for an order.
func (w *world) balance(orderID, account string) (sum int64) {
	w.t.Helper()
	err := w.pool.QueryRow(context.Background(), `SELECT COALESCE(sum(debit - credit), 0) FROM ledger_entries WHERE order_id = $1 AND account = $2`,
		orderID, account).Scan(&sum)
	if err != nil {
		w.t.Fatal(err)
	}
	return sum
}

// expireLeases lets time pass for the rows that somebody has taken.
func (w *world) expireLeases() {
	w.t.Helper()
	for _, table := range []string{"payments", "refunds"} {
		if _, err := w.pool.Exec(context.Background(), `UPDATE `+table+` SET due_at = now() WHERE due_at IS NOT NULL`); err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestTestValues is the table of the test values: what the provider does, and with how many charge calls.
func TestTestValues(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method  string
		status  payment.Status
		charges int
		asks    int
		voids   int
		ledger  []string
		told    event.Type
	}{
		{"card", payment.Captured, 1, 0, 0, []string{"capture"}, event.PaymentProcessed},
		{"card_declined", payment.Declined, 1, 0, 0, []string{"decline"}, event.PaymentFailed},
		{"card_flaky", payment.Captured, 3, 2, 0, []string{"capture"}, event.PaymentProcessed},
		{"card_down", payment.Failed, 4, 3, 1, []string{"void"}, event.PaymentFailed},
		{"card_timeout", payment.Captured, 1, 1, 0, []string{"capture"}, event.PaymentProcessed},
		{"card_slow", payment.Captured, 1, 0, 0, []string{"capture"}, event.PaymentProcessed},
	} {
		t.Run(c.method, func(t *testing.T) {
			w := setup(t, 2)
			if c.method == "card_slow" {
				w.provider.Inject(providertest.Charge, "o", providertest.Fault{Delay: 2 * time.Second})
			}
			w.deliver(w.first, w.created("o"))
			w.deliver(w.first, w.requested("o", c.method))
			p := w.await("o", c.status)
			w.same("charge calls", c.charges, w.provider.Calls(providertest.Charge, "o"))
			w.same("attempts", c.charges, p.Attempts)
			w.same("questions", c.asks, w.provider.Calls(providertest.FindCharge, "o"))
			w.same("voids", c.voids, w.provider.Calls(providertest.Void, "o"))
			w.same("provider's ledger", c.ledger, w.provider.Kinds("o"))
			w.told("o", event.PaymentInitiated, c.told)
			want := int64(0)
			if c.status == payment.Captured {
				want = 5990
			}
			w.same("at the provider", want, w.balance("o", "provider"))
			w.same("for orders", -want, w.balance("o", "orders"))
			last := w.events.of("o")[1]
			if c.told == event.PaymentFailed {
				var m paymentv1.PaymentFailed
				if err := last.Decode(&m); err != nil || m.Status != string(c.status) || m.Reason == "" || m.Amount != 5990 {
					t.Errorf("payment.failed is %v, %v", &m, err)
				}
			} else {
				var m paymentv1.PaymentProcessed
				if err := last.Decode(&m); err != nil || int(m.Attempts) != c.charges || m.ProviderRef != "ch_o" || m.Currency != "EUR" {
					t.Errorf("payment.processed is %v, %v", &m, err)
				}
			}
		})
	}
}

// TestLies has the provider say something else than what it did. It never captures twice, and never is a capture taken for
// a failure.
func TestLies(t *testing.T) {
	t.Parallel()
	fault := func(f ...providertest.Fault) []providertest.Fault { return f }
	for _, c := range []struct {
		name    string
		faults  map[providertest.Call][]providertest.Fault
		status  payment.Status
		charges int
	}{
		{"500 after the charge", map[providertest.Call][]providertest.Fault{
			providertest.Charge: fault(providertest.Fault{Status: 500, After: true})}, payment.Captured, 1},
		{"500 after the charge, and asking fails at first", map[providertest.Call][]providertest.Fault{
			providertest.Charge:     fault(providertest.Fault{Status: 503, After: true}),
			providertest.FindCharge: fault(providertest.Fault{Status: 503})}, payment.Captured, 1},
		{"429", map[providertest.Call][]providertest.Fault{
			providertest.Charge: fault(providertest.Fault{Status: 429})}, payment.Captured, 2},
		{"nonsense instead of JSON", map[providertest.Call][]providertest.Fault{
			providertest.Charge: fault(providertest.Fault{Body: "<html>"})}, payment.Captured, 2},
		{"another charge's answer", map[providertest.Call][]providertest.Fault{
			providertest.Charge: fault(providertest.Fault{Body: `{"id":"x","key":"other:charge","order_id":"other","amount":1,"currency":"EUR","status":"captured"}`})}, payment.Captured, 2},
		{"another amount", map[providertest.Call][]providertest.Fault{
			providertest.Charge: fault(providertest.Fault{Body: `{"id":"x","key":"o:charge","order_id":"o","amount":1,"currency":"EUR","status":"captured"}`})}, payment.Captured, 2},
		{"refuses the request", map[providertest.Call][]providertest.Fault{
			providertest.Charge: fault(providertest.Fault{Status: 422})}, payment.Declined, 1},
		{"charges at the last try and says 503", map[providertest.Call][]providertest.Fault{
			providertest.Charge: fault(providertest.Fault{Status: 503}, providertest.Fault{Status: 503}, providertest.Fault{Status: 503},
				providertest.Fault{Status: 503, After: true})}, payment.Captured, 4},
		{"voiding is answered late", map[providertest.Call][]providertest.Fault{
			providertest.Charge: fault(providertest.Fault{Status: 503}, providertest.Fault{Status: 503}, providertest.Fault{Status: 503}, providertest.Fault{Status: 503}),
			providertest.Void:   fault(providertest.Fault{Status: 503, After: true})}, payment.Failed, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := setup(t, 2)
			for call, faults := range c.faults {
				w.provider.Inject(call, "o", faults...)
			}
			w.deliver(w.first, w.created("o"), w.requested("o", "card"))
			p := w.await("o", c.status)
			w.same("charge calls", c.charges, w.provider.Calls(providertest.Charge, "o"))
			w.same("attempts", c.charges, p.Attempts)
			captures := 0
			for _, k := range w.provider.Kinds("o") {
				if k == "capture" {
					captures++
				}
			}
			if (c.status == payment.Captured && captures != 1) || (c.status != payment.Captured && captures != 0) {
				t.Errorf("%d captures in status %s", captures, c.status)
			}
			testkit.Eventually(t, 5*time.Second, func() bool { return len(w.events.of("o")) == 2 }, "not two events")
		})
	}
}

func TestCancelledBeforeRequested(t *testing.T) {
	w := setup(t, 2)
	w.deliver(w.first, w.created("o"), w.cancelled("o", false))
	w.deliver(w.first, w.requested("o", "card"))
	w.await("o", payment.Failed)
	w.same("charge calls", 0, w.provider.Calls(providertest.Charge, "o"))
	w.told("o", event.PaymentFailed)
}

// TestCancelledBeforeSent: the payment waits in the table, not leased yet, when its order is cancelled.
func TestCancelledBeforeSent(t *testing.T) {
	w := setup(t, 0)
	w.first = w.replica(false)
	full := intake.New(w.first.store, noRoom{})
	r := &replica{store: w.first.store, in: full}
	w.deliver(r, w.created("o"), w.requested("o", "card"))
	w.deliver(r, w.cancelled("o", false))
	w.replica(true)
	w.await("o", payment.Failed)
	w.same("charge calls", 0, w.provider.Calls(providertest.Charge, "o"))
	w.told("o", event.PaymentInitiated, event.PaymentFailed)
}

type noRoom struct{}

func (noRoom) Room() int          { return 0 }
func (noRoom) Take(postgres.Work) {}

// TestLateCapture: the order is cancelled while the provider still thinks about the charge.
func TestLateCapture(t *testing.T) {
	for _, c := range []struct {
		name       string
		writtenOff bool
		ledger     []string
		outside    int64
	}{
		{"refunded once", false, []string{"capture", "refund"}, 0},
		{"written off", true, []string{"capture"}, -5990},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := setup(t, 2)
			gate := make(chan struct{})
			w.provider.Inject(providertest.Charge, "o", providertest.Fault{Gate: gate})
			w.deliver(w.first, w.created("o"), w.requested("o", "card"))
			testkit.Eventually(t, 5*time.Second, func() bool { return w.provider.Calls(providertest.Charge, "o") == 1 }, "no call")
			w.deliver(w.first, w.cancelled("o", c.writtenOff))
			close(gate)
			p := w.await("o", payment.Refunded)
			w.same("refunded", int64(5990), p.Refunded)
			w.same("provider's ledger", c.ledger, w.provider.Kinds("o"))
			w.told("o", event.PaymentInitiated, event.PaymentProcessed, event.PaymentRefunded)
			w.same("for orders", int64(0), w.balance("o", "orders"))
			w.same("outside", c.outside, w.balance("o", "outside"))
			var m paymentv1.PaymentRefunded
			if err := w.events.of("o")[2].Decode(&m); err != nil || m.Outside != c.writtenOff {
				t.Errorf("payment.refunded is %v, %v", &m, err)
			}
		})
	}
}

func TestRefunds(t *testing.T) {
	t.Parallel()
	captured := func(t *testing.T) *world {
		w := setup(t, 2)
		w.deliver(w.first, w.created("o"), w.requested("o", "card"))
		w.await("o", payment.Captured)
		return w
	}
	t.Run("asked for", func(t *testing.T) {
		w := captured(t)
		e := w.refund("o", 1)
		w.deliver(w.first, e, e)
		w.await("o", payment.Refunded)
		w.same("calls", 1, w.provider.Calls(providertest.Refund, "o"))
		w.deliver(w.first, e) // its outcome once more
		w.told("o", event.PaymentInitiated, event.PaymentProcessed, event.PaymentRefunded, event.PaymentRefunded)
		w.same("provider's ledger", []string{"capture", "refund"}, w.provider.Kinds("o"))
	})
	t.Run("happened, caller told otherwise", func(t *testing.T) {
		w := captured(t)
		w.provider.Inject(providertest.Refund, "o", providertest.Fault{Status: 503, After: true})
		w.deliver(w.first, w.refund("o", 1))
		w.await("o", payment.Refunded)
		w.same("calls", 1, w.provider.Calls(providertest.Refund, "o"))
		w.same("questions", 1, w.provider.Calls(providertest.FindRefund, "o"))
	})
	t.Run("refused for good, then asked for again", func(t *testing.T) {
		w := captured(t)
		w.provider.Inject(providertest.Refund, "o", providertest.Fault{Refuse: true})
		w.deliver(w.first, w.refund("o", 1))
		testkit.Eventually(t, 10*time.Second, func() bool { return len(w.events.of("o")) == 3 }, "the refusal is not told")
		w.deliver(w.first, w.refund("o", 2))
		w.await("o", payment.Refunded)
		w.told("o", event.PaymentInitiated, event.PaymentProcessed, event.PaymentRefundFailed, event.PaymentRefunded)
		w.same("provider's ledger", []string{"capture", "refund_failed", "refund"}, w.provider.Kinds("o"))
		w.same("the first attempt was asked about", 1, w.provider.Calls(providertest.FindRefund, "o"))
	})
	t.Run("refused for good on a closed order: a person, and a redrive", func(t *testing.T) {
		w := captured(t)
		w.provider.Inject(providertest.Refund, "o", providertest.Fault{Refuse: true})
		w.deliver(w.first, w.cancelled("o", false))
		testkit.Eventually(t, 10*time.Second, func() bool {
			w.events.mu.Lock()
			defer w.events.mu.Unlock()
			return len(w.events.raised) == 1
		}, "nobody is called")
		if x := w.events.raised[0]; x.Kind != postgres.RefundIntervention || x.Subject != "o" || x.Reason != "refund_refused" {
			t.Errorf("raised %+v", x)
		}
		w.told("o", event.PaymentInitiated, event.PaymentProcessed)
		err := pg.Do(t.Context(), w.pool, func(ctx context.Context, u *pg.Unit) error {
			return w.first.in.RefundAgain(ctx, u, [16]byte{}, "o")
		})
		if err != nil {
			t.Fatal(err)
		}
		w.await("o", payment.Refunded)
		w.told("o", event.PaymentInitiated, event.PaymentProcessed, event.PaymentRefunded)
		w.same("resolved", []string{"o"}, w.events.closed)
	})
}

// TestKilledBetweenCallAndOutcome: a process dies after its intent was committed; before its call, or after the provider
// had charged. Whoever takes the row over asks first.
func TestKilledBetweenCallAndOutcome(t *testing.T) {
	for _, c := range []struct {
		name   string
		called bool
	}{{"before the call", false}, {"after the call", true}} {
		t.Run(c.name, func(t *testing.T) {
			w := setup(t, 0)
			dead := w.replica(false)
			w.first = dead
			w.deliver(dead, w.created("o"), w.requested("o", "card"))
			if c.called {
				client, err := provider.NewClient(w.provider.URL, provider.Transport(1))
				if err != nil {
					t.Fatal(err)
				}
				defer client.CloseIdle()
				if _, err := client.Charge(t.Context(), provider.ChargeRequest{Key: payment.ChargeKey("o"), OrderID: "o", Amount: 5990, Currency: "EUR", Method: "card"}); err != nil {
					t.Fatal(err)
				}
			}
			w.replica(true)
			w.replica(true)
			w.expireLeases()
			w.await("o", payment.Captured)
			w.same("charge calls", 1, w.provider.Calls(providertest.Charge, "o"))
			w.same("questions", 1, w.provider.Calls(providertest.FindCharge, "o"))
			w.same("provider's ledger", []string{"capture"}, w.provider.Kinds("o"))
		})
	}
}

// TestDuplicates delivers everything three times, to two replicas, and has the webhook tell what the call told.
func TestDuplicates(t *testing.T) {
	w := setup(t, 1)
	second := w.replica(true)
	const orders = 60
	var ids []string
	for n := range orders {
		id := fmt.Sprintf("o-%02d", n)
		ids = append(ids, id)
		created, requested := w.created(id), w.requested(id, "card")
		var all sync.WaitGroup
		w.deliver(w.first, created)
		for k := range 3 {
			r := []*replica{w.first, second}[k%2]
			all.Go(func() { w.deliver(r, created, requested) })
		}
		all.Wait()
	}
	for _, id := range ids {
		w.await(id, payment.Captured)
		for k := range 3 {
			r := []*replica{w.first, second}[k%2]
			err := r.queue.Learn(t.Context(), &processor.Result{OrderID: id, WebhookID: "wh-" + id, Amount: 5990, Currency: "EUR",
				Charge: &payment.ChargeAnswer{Fact: payment.ChargeCaptured, Ref: "ch_" + id}})
			if err != nil {
				t.Fatal(err)
			}
		}
		w.same("charge calls", 1, w.provider.Calls(providertest.Charge, id))
		w.same("provider's ledger", []string{"capture"}, w.provider.Kinds(id))
		w.same("at the provider", int64(5990), w.balance(id, "provider"))
		testkit.Eventually(t, 5*time.Second, func() bool { return len(w.events.of(id)) >= 2 }, id+" lacks events")
		if types := w.events.types(t, id); types[0] != event.PaymentInitiated {
			t.Errorf("events %v", types)
		}
	}
}

// TestLedgerIsAppendOnly: the database refuses to change what is booked.
func TestLedgerIsAppendOnly(t *testing.T) {
	w := setup(t, 1)
	w.deliver(w.first, w.created("o"), w.requested("o", "card"))
	w.await("o", payment.Captured)
	for _, sql := range []string{
		`UPDATE ledger_entries SET debit = debit + 1`, `DELETE FROM ledger_entries`, `TRUNCATE ledger_entries`,
		`INSERT INTO ledger_entries (order_id, tenant_id, kind, account, debit, credit, currency, provider_key, provider_ref)
			VALUES ('o', 1, 'capture', 'provider', 5990, 0, 'EUR', '', '')`, // a second capture
		`UPDATE payments SET status = 'unknown'`, // a known outcome back into the queue, without its due date
	} {
		if _, err := w.pool.Exec(t.Context(), sql); !pg.Permanent(err) {
			t.Errorf("%s: %v", sql, err)
		}
	}
}
