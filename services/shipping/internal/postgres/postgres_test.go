package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/testkit"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	shippingv1 "github.com/waybill-dev/waybill/proto/gen/waybill/shipping/v1"
	"github.com/waybill-dev/waybill/services/shipping/internal/postgres"
	"github.com/waybill-dev/waybill/services/shipping/internal/shipment"
)

// published stands in for the outbox: it keeps what was committed.
type published struct {
	mu     sync.Mutex
	events []event.Event
}

func (p *published) Add(u *pg.Unit, events ...event.Event) {
	u.AfterCommit(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.events = append(p.events, events...)
	})
}

// of lists what was told about an order, and checks that its sequence has no gap.
func (p *published) of(t *testing.T, id string) []string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, e := range p.events {
		if e.Subject != id {
			continue
		}
		if e.Seq != int64(len(out)+1) {
			t.Errorf("%s is number %d of %s, want %d", e.Type, e.Seq, id, len(out)+1)
		}
		out = append(out, string(e.Type))
	}
	return out
}

type bundle struct {
	pool  *pgxpool.Pool
	store *postgres.Store
	out   *published
	woken int
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{out: &published{}}
	b.pool, _ = testkit.Postgres(t, postgres.Migrations)
	b.store = postgres.New(b.pool, b.out, func() { b.woken++ })
	return b
}

// consume hands events to the store as the inbox does.
func (b *bundle) consume(t testing.TB, events ...event.Event) {
	t.Helper()
	err := pg.Do(context.Background(), b.pool, func(ctx context.Context, u *pg.Unit) error { return b.store.Consume(ctx, u, events) })
	if err != nil {
		t.Fatal(err)
	}
}

var (
	address = &orderv1.Address{Name: "A. Buyer", Line1: "1 Main St", City: "Berlin", PostalCode: "10115", Country: "DE"}
	items   = []*orderv1.Item{{ProductId: "sku-0001", Quantity: 2}}
)

const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func told(typ event.Type, id string, seq int64, m proto.Message) event.Event {
	return event.Event{Tenant: 1, Traceparent: trace}.Next(typ, id, seq, m)
}

func created(id string) event.Event {
	return told(event.OrderCreated, id, 1, &orderv1.OrderCreated{OrderId: id, Customer: "customer", Items: items, Address: address})
}

func paid(id string) event.Event {
	return told(event.OrderPaymentProcessed, id, 3, &orderv1.OrderPaymentProcessed{OrderId: id, Items: items, Address: address})
}

func again(id string, attempt int32) event.Event {
	return told(event.OrderShippingRequested, id, 5, &orderv1.OrderShippingRequested{OrderId: id, Attempt: attempt, Items: items, Address: address})
}

func report(id string, attempt int32, s shipment.Status) shipment.Change {
	r := shipment.Report{Key: shipment.Key{OrderID: id, Attempt: attempt}, Status: s, Tracking: "WB1"}
	if s == shipment.Failed {
		r.Reason = "parcel_lost"
	}
	return shipment.Change{Report: r}
}

func (b *bundle) apply(t testing.TB, cs ...shipment.Change) []bool {
	t.Helper()
	known, err := b.store.Apply(context.Background(), cs)
	if err != nil {
		t.Fatal(err)
	}
	return known
}

func TestPaymentMakesAShipment(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.consume(t, created("o-1"), paid("o-1"), created("o-2"))
	b.consume(t, paid("o-2"), told(event.OrderPaymentProcessed, "o-3", 2, &orderv1.OrderPaymentProcessed{OrderId: "o-3"}))
	for _, id := range []string{"o-1", "o-2"} {
		if diff := cmp.Diff([]string{"shipping.requested"}, b.out.of(t, id)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", id, diff)
		}
		o, err := b.store.Find(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if !o.Paid || o.Customer != "customer" || o.Tenant != 1 || len(o.Shipments) != 1 {
			t.Fatalf("%s is %+v", id, o)
		}
		s := o.Shipments[0]
		if s.Status != shipment.Requested || s.Address.City != "Berlin" || !slices.Equal(s.Items, []shipment.Item{{ProductID: "sku-0001", Quantity: 2}}) {
			t.Errorf("shipment of %s is %+v", id, s)
		}
	}
	if o, err := b.store.Find(t.Context(), "o-3"); err != nil || !o.Paid || len(o.Shipments) != 0 || len(b.out.of(t, "o-3")) != 0 {
		t.Errorf("an order without items: %+v, %v; told %v", o, err, b.out.of(t, "o-3"))
	}
	if b.woken != 2 {
		t.Errorf("the dispatcher was woken %d times, want 2", b.woken)
	}
	if got := b.out.events[0].Traceparent; got != trace {
		t.Errorf("the event's trace is %s, its cause's %s", got, trace)
	}
}

func TestAnAttemptIsMadeOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.consume(t, created("o-1"), paid("o-1"))
	b.apply(t, report("o-1", 1, shipment.Failed))
	b.consume(t, again("o-1", 2))
	b.consume(t, again("o-1", 2)) // the inbox would not let it through; the key holds anyhow
	b.apply(t, report("o-1", 2, shipment.Accepted), report("o-1", 1, shipment.Delivered))
	want := []string{"shipping.requested", "shipping.failed", "shipping.requested", "shipping.progress"}
	if diff := cmp.Diff(want, b.out.of(t, "o-1")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var m shippingv1.ShippingProgress
	if err := b.out.events[3].Decode(&m); err != nil || m.Attempt != 2 || m.Status != "accepted" || m.Tracking != "WB1" {
		t.Errorf("progress says %v (%v)", &m, err)
	}
}

func TestMalformedEventsArePermanent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bad := again("o-1", 0)
	err := pg.Do(t.Context(), b.pool, func(ctx context.Context, u *pg.Unit) error { return b.store.Consume(ctx, u, []event.Event{bad}) })
	if err == nil {
		t.Error("attempt 0 was taken")
	}
}

// Reports in any order, in any batches, duplicated, end in the state that the order of the states says, with an event for
// each move and nothing behind a final one.
func TestReportsMoveAShipmentForwardOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		id := fmt.Sprintf("o-%d", n)
		b.consume(t, created(id), paid(id))
		statuses := rapid.SliceOfN(rapid.SampledFrom([]shipment.Status{
			shipment.Accepted, shipment.InTransit, shipment.Delivered, shipment.Failed,
		}), 1, 8).Draw(rt, "reports")
		state := shipment.Requested
		for len(statuses) > 0 {
			size := rapid.IntRange(1, len(statuses)).Draw(rt, "batch")
			var batch []shipment.Change
			for _, s := range statuses[:size] {
				if s.After(state) {
					state = s
				}
				batch = append(batch, report(id, 1, s))
			}
			statuses = statuses[size:]
			if known := b.apply(t, batch...); slices.Contains(known, false) {
				rt.Fatalf("a shipment is not known: %v", known)
			}
		}
		o, err := b.store.Find(context.Background(), id)
		if err != nil {
			rt.Fatal(err)
		}
		if got := o.Shipments[0].Status; got != state {
			rt.Fatalf("ends in %s, want %s", got, state)
		}
		told := b.out.of(t, id)
		last := map[shipment.Status]string{
			shipment.Accepted: "shipping.progress", shipment.InTransit: "shipping.progress",
			shipment.Delivered: "shipping.completed", shipment.Failed: "shipping.failed",
		}[state]
		if told[len(told)-1] != last {
			rt.Fatalf("told %v, want %s as the last", told, last)
		}
		for _, typ := range told[:len(told)-1] {
			if typ == "shipping.completed" || typ == "shipping.failed" {
				rt.Fatalf("told %v: something follows a final state", told)
			}
		}
	})
}

func TestUnknownShipmentsAreSaidToBe(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.consume(t, created("o-1"), paid("o-1"))
	known := b.apply(t, report("o-9", 1, shipment.Delivered), report("o-1", 2, shipment.Delivered), report("o-1", 1, shipment.Accepted))
	if diff := cmp.Diff([]bool{false, false, true}, known); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestConcurrentReportsTellOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var ids []string
	for i := range 20 {
		id := fmt.Sprintf("o-%d", i)
		ids = append(ids, id)
		b.consume(t, created(id), paid(id))
	}
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			batch := make([]shipment.Change, 0, len(ids))
			for i := range ids { // each in another order
				batch = append(batch, report(ids[(i*7+w*3)%len(ids)], 1, shipment.Delivered))
			}
			if _, err := b.store.Apply(context.Background(), batch); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, id := range ids {
		if diff := cmp.Diff([]string{"shipping.requested", "shipping.completed"}, b.out.of(t, id)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", id, diff)
		}
	}
}

func TestClaim(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var batch []event.Event
	for i := range 200 {
		id := fmt.Sprintf("o-%d", i)
		batch = append(batch, created(id), paid(id))
	}
	b.consume(t, batch...)
	var mu sync.Mutex
	claims := map[shipment.Key]int{}
	var all sync.WaitGroup
	for range 4 { // as many replicas
		all.Go(func() {
			for {
				got, err := b.store.Claim(context.Background(), 16)
				if err != nil {
					t.Error(err)
				}
				if len(got) == 0 {
					return
				}
				mu.Lock()
				for _, s := range got {
					claims[s.Key]++
					if s.Calls != 1 || s.Address.City != "Berlin" || s.Traceparent != trace {
						t.Errorf("claimed %+v", s)
					}
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(claims) != 200 {
		t.Errorf("%d of 200 shipments were claimed", len(claims))
	}
	for k, n := range claims {
		if n != 1 {
			t.Errorf("%s was claimed %d times", k, n)
		}
	}
}

func TestTheQueueFollowsTheState(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.consume(t, created("o-1"), paid("o-1"))
	claim := func() []shipment.Shipment {
		t.Helper()
		got, err := b.store.Claim(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	pass := func(d time.Duration) { // time passes for the queue
		t.Helper()
		if _, err := b.pool.Exec(t.Context(), `UPDATE shipments SET due_at = due_at - $1::interval, updated_at = updated_at - $1::interval`, d); err != nil {
			t.Fatal(err)
		}
	}
	if got := claim(); len(got) != 1 || got[0].Calls != 1 {
		t.Fatalf("first claim: %+v", got)
	}
	if got := claim(); len(got) != 0 {
		t.Errorf("claimed again within the lease: %+v", got)
	}
	pass(postgres.Lease)
	if got := claim(); len(got) != 1 || got[0].Calls != 2 {
		t.Errorf("after the lease: %+v", got)
	}
	b.apply(t, shipment.Change{Report: shipment.Report{Key: shipment.Key{OrderID: "o-1", Attempt: 1}}, Again: 3 * time.Second})
	pass(2 * time.Second)
	if got := claim(); len(got) != 0 {
		t.Errorf("claimed before its pause was over: %+v", got)
	}
	pass(time.Second)
	if got := claim(); len(got) != 1 || got[0].Calls != 3 {
		t.Errorf("after the pause: %+v", got)
	}
	b.apply(t, report("o-1", 1, shipment.Accepted))
	pass(4 * time.Second)
	if got := claim(); len(got) != 0 {
		t.Errorf("polled before 5 s: %+v", got)
	}
	pass(time.Second)
	if got := claim(); len(got) != 1 || got[0].Status != shipment.Accepted || got[0].Calls != 3 {
		t.Errorf("poll after 5 s: %+v", got)
	}
	nothing := report("o-1", 1, shipment.Accepted)
	nothing.Again = 5 * time.Second
	pass(10 * time.Minute)
	b.apply(t, nothing)
	pass(59 * time.Second)
	if got := claim(); len(got) != 0 {
		t.Errorf("an old parcel was polled before a minute: %+v", got)
	}
	pass(2 * time.Second)
	if got := claim(); len(got) != 1 {
		t.Error("an old parcel was not polled after a minute")
	}
	waiting, oldest, err := b.store.Backlog(t.Context())
	if err != nil || waiting != 0 || oldest != 0 {
		t.Errorf("backlog %d, %s, %v; want none", waiting, oldest, err)
	}
	b.apply(t, report("o-1", 1, shipment.Delivered))
	pass(time.Hour)
	if got := claim(); len(got) != 0 {
		t.Errorf("delivered, and in the queue: %+v", got)
	}
}

func TestTheDatabaseKnowsTheStates(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.consume(t, created("o-1"), paid("o-1"))
	for _, change := range []string{
		`status = 'lost'`,
		`status = 'delivered'`,
		`status = 'accepted'`,
		`status = 'failed', finished_at = now(), due_at = NULL`,
		`due_at = NULL`,
		`finished_at = now()`,
		`attempt = 0`,
		`items = '[]'`,
	} {
		if _, err := b.pool.Exec(t.Context(), `UPDATE shipments SET `+change); !pg.Permanent(err) {
			t.Errorf("SET %s: %v, want a broken constraint", change, err)
		}
	}
}
