package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/testkit"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	"github.com/waybill-dev/waybill/services/notification/internal/notice"
	"github.com/waybill-dev/waybill/services/notification/internal/postgres"
)

type bundle struct {
	t      *testing.T
	pool   *pgxpool.Pool
	store  *postgres.Store
	raised []inbox.Intervention
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{t: t}
	b.pool, _ = testkit.Postgres(t, postgres.Migrations)
	b.store = postgres.New(b.pool, func() {})
	return b
}

const to = "jane@example.com"

func told(typ event.Type, id string, seq int64) event.Event {
	var m proto.Message
	switch typ {
	case event.OrderPaymentProcessed:
		m = &orderv1.OrderPaymentProcessed{Email: to, Items: []*orderv1.Item{{ProductId: "sku-0001", Quantity: 1}}, Currency: "EUR"}
	case event.OrderCancelled:
		m = &orderv1.OrderCancelled{Email: to, Reason: "customer_request", Currency: "EUR"}
	case event.OrderCompleted:
		m = &orderv1.OrderCompleted{Email: to, Currency: "EUR"}
	case event.OrderAttention:
		m = &orderv1.OrderAttention{Email: to, Reason: "shipping_failed", Currency: "EUR"}
	case event.OrderShippingRequested:
		m = &orderv1.OrderShippingRequested{Email: to, Attempt: 2, Currency: "EUR"}
	case event.OrderRefundRequested:
		m = &orderv1.OrderRefundRequested{Email: to, Attempt: 1, Currency: "EUR"}
	}
	return event.Event{Tenant: 1}.Next(typ, id, seq, m)
}

func (b *bundle) consume(events ...event.Event) {
	b.t.Helper()
	err := pg.Do(context.Background(), b.pool, func(ctx context.Context, u *pg.Unit) error { return b.store.Consume(ctx, u, events) })
	if err != nil {
		b.t.Fatal(err)
	}
}

// claim returns the claimed messages, and in short which.
func (b *bundle) claim() ([]notice.Notice, []string) {
	b.t.Helper()
	got, err := b.store.Claim(context.Background(), 100)
	if err != nil {
		b.t.Fatal(err)
	}
	short := []string{}
	for _, n := range got {
		short = append(short, fmt.Sprintf("%s %d", strings.Fields(n.Subject)[len(strings.Fields(n.Subject))-1], n.Tries))
	}
	return got, short
}

func (b *bundle) settle(outcomes ...postgres.Outcome) {
	b.t.Helper()
	err := b.store.Settle(context.Background(), outcomes, func(_ *pg.Unit, x inbox.Intervention) { b.raised = append(b.raised, x) })
	if err != nil {
		b.t.Fatal(err)
	}
}

// states lists an order's notices as kind and status.
func (b *bundle) states(id string) []string {
	b.t.Helper()
	ns, err := b.store.Find(context.Background(), id, 0, 0, 100)
	if err != nil {
		b.t.Fatal(err)
	}
	out := []string{}
	for _, n := range ns {
		out = append(out, string(n.Kind)+" "+n.Status)
	}
	return out
}

func (b *bundle) expect(what string, got, want []string) {
	b.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func (b *bundle) pass(d time.Duration) {
	b.t.Helper()
	if _, err := b.pool.Exec(context.Background(), `UPDATE notices SET due_at = due_at - $1::interval, give_up_at = give_up_at - $1::interval`, d); err != nil {
		b.t.Fatal(err)
	}
}

func TestTellingInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.consume(told(event.OrderPaymentProcessed, "o-1", 3), told(event.OrderCompleted, "o-1", 4))
	first, short := b.claim()
	b.expect("first claim", short, []string{"confirmed 1"})
	if n := first[0]; n.Recipient != to || n.Text == "" || n.Channel != notice.Email || n.OrderID != "o-1" || n.Tenant != 1 {
		t.Errorf("claimed %+v", n)
	}
	_, short = b.claim()
	b.expect("while it is in flight", short, []string{})
	b.settle(postgres.Outcome{Notice: first[0]})
	second, short := b.claim()
	b.expect("once it is told", short, []string{"complete 1"})
	b.settle(postgres.Outcome{Notice: second[0]})
	b.expect("at the end", b.states("o-1"), []string{"confirmed sent", "completed sent"})
	var kept int
	if err := b.pool.QueryRow(t.Context(), `SELECT count(*) FROM notices WHERE recipient <> ''`).Scan(&kept); err != nil || kept != 0 {
		t.Errorf("%d addresses are kept (%v)", kept, err)
	}
}

func TestAPromiseIsNotToldAfterItsReversal(t *testing.T) {
	t.Parallel()
	t.Run("waiting", func(t *testing.T) {
		b := setup(t)
		b.consume(told(event.OrderPaymentProcessed, "o-1", 3))
		got, _ := b.claim()
		b.settle(postgres.Outcome{Notice: got[0], Error: "451", Again: time.Hour})
		b.consume(told(event.OrderCancelled, "o-1", 4))
		_, short := b.claim()
		b.expect("the reversal does not wait for the hour", short, []string{"cancelled 1"})
		b.expect("states", b.states("o-1"), []string{"confirmed superseded", "cancelled pending"})
	})
	t.Run("in flight", func(t *testing.T) {
		b := setup(t)
		b.consume(told(event.OrderShippingRequested, "o-1", 3))
		got, _ := b.claim()
		b.consume(told(event.OrderRefundRequested, "o-1", 4))
		_, short := b.claim()
		b.expect("the reversal waits for the outcome", short, []string{})
		b.settle(postgres.Outcome{Notice: got[0], Error: "451", Again: time.Hour})
		_, short = b.claim()
		b.expect("and not for the next try", short, []string{"o-1 1"})
		b.expect("states", b.states("o-1"), []string{"resent superseded", "refunding pending"})
	})
	t.Run("lease over", func(t *testing.T) {
		b := setup(t)
		b.consume(told(event.OrderPaymentProcessed, "o-1", 3))
		b.claim() // by a process that dies
		b.consume(told(event.OrderCancelled, "o-1", 4))
		b.pass(postgres.Lease)
		_, short := b.claim()
		b.expect("claimed", short, []string{"cancelled 1"})
	})
	t.Run("in one batch", func(t *testing.T) {
		b := setup(t)
		b.consume(told(event.OrderPaymentProcessed, "o-1", 3), told(event.OrderCancelled, "o-1", 4))
		_, short := b.claim()
		b.expect("claimed", short, []string{"cancelled 1"})
	})
	t.Run("other messages stay", func(t *testing.T) {
		b := setup(t)
		b.consume(told(event.OrderAttention, "o-1", 3), told(event.OrderCancelled, "o-1", 4))
		_, short := b.claim()
		b.expect("claimed", short, []string{"o-1 1"})
		b.expect("states", b.states("o-1"), []string{"attention pending", "cancelled pending"})
	})
}

func TestRetriesAndGivingUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.consume(told(event.OrderCompleted, "o-1", 3), told(event.OrderCompleted, "o-2", 3))
	got, _ := b.claim()
	b.settle(postgres.Outcome{Notice: got[0], Error: "451", Again: 10 * time.Second}, postgres.Outcome{Notice: got[1], Error: "550", Permanent: true})
	_, short := b.claim()
	b.expect("before the pause is over", short, []string{})
	b.pass(10 * time.Second)
	got2, short := b.claim()
	b.expect("after it", short, []string{"complete 2"})
	b.pass(24 * time.Hour)
	b.settle(postgres.Outcome{Notice: got2[0], Error: "451", Again: time.Second})
	b.expect("given up", b.states(got[0].OrderID), []string{"completed failed"})
	if len(b.raised) != 2 {
		t.Fatalf("raised %+v, want one for each", b.raised)
	}
	for i, id := range []string{got[1].OrderID, got[0].OrderID} {
		if x := b.raised[i]; x.Kind != postgres.Intervention || x.Subject != id || x.Tenant != 1 || strings.Contains(fmt.Sprint(x), to) {
			t.Errorf("intervention %d is %+v", i, x)
		}
	}
	err := pg.Do(t.Context(), b.pool, func(ctx context.Context, u *pg.Unit) error { return b.store.Redrive(ctx, u, uuid.Nil, "o-1") })
	if err != nil {
		t.Fatal(err)
	}
	again, short := b.claim()
	b.expect("after the redrive", short, []string{"complete 1"})
	b.settle(postgres.Outcome{Notice: again[0]})
	b.expect("told at last", b.states("o-1"), []string{"completed sent"})
}

func TestARedrivenPromiseStaysTrue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.consume(told(event.OrderPaymentProcessed, "o-1", 3))
	got, _ := b.claim()
	b.settle(postgres.Outcome{Notice: got[0], Error: "550", Permanent: true})
	b.consume(told(event.OrderCancelled, "o-1", 4))
	got, _ = b.claim()
	b.settle(postgres.Outcome{Notice: got[0]})
	err := pg.Do(t.Context(), b.pool, func(ctx context.Context, u *pg.Unit) error { return b.store.Redrive(ctx, u, uuid.Nil, "o-1") })
	if err != nil {
		t.Fatal(err)
	}
	_, short := b.claim()
	b.expect("claimed", short, []string{})
	b.expect("states", b.states("o-1"), []string{"confirmed superseded", "cancelled sent"})
}

func TestReplicasDoNotMeet(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var batch []event.Event
	for i := range 200 {
		id := fmt.Sprintf("o-%d", i)
		batch = append(batch, told(event.OrderPaymentProcessed, id, 3), told(event.OrderCompleted, id, 4))
	}
	b.consume(batch...)
	var mu sync.Mutex
	last := map[string]notice.Notice{}
	sent := 0
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for idle := 0; idle < 3; {
				got, err := b.store.Claim(context.Background(), 20)
				if err != nil {
					t.Error(err)
					return
				}
				if len(got) == 0 {
					idle++
					continue
				}
				var outcomes []postgres.Outcome
				mu.Lock()
				for _, n := range got {
					if before, ok := last[n.OrderID]; ok && (before.EventID == n.EventID || strings.Contains(before.Subject, "complete")) {
						t.Errorf("%q after %q", n.Subject, before.Subject)
					}
					last[n.OrderID] = n
					sent++
					outcomes = append(outcomes, postgres.Outcome{Notice: n})
				}
				mu.Unlock()
				if err := b.store.Settle(context.Background(), outcomes, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if sent != 400 {
		t.Errorf("%d of 400 messages were told", sent)
	}
}

// Whatever comes, fails and is tried in whatever order: the messages of an order are told in the order of its events, and no
// promise behind its reversal.
func TestAnyHistoryIsToldInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := 0
	types := []event.Type{event.OrderPaymentProcessed, event.OrderShippingRequested, event.OrderAttention, event.OrderRefundRequested, event.OrderCancelled}
	promises, reversals := strings.Join(notice.Promises, " "), strings.Join(notice.Reversals, " ")
	rapid.Check(t, func(rt *rapid.T) {
		n++
		id := fmt.Sprintf("o-%d", n)
		if _, err := b.pool.Exec(context.Background(), `TRUNCATE notices`); err != nil {
			rt.Fatal(err)
		}
		var heard, inFlight []notice.Notice
		kinds := map[uuid.UUID]notice.Notice{}
		seq := int64(0)
		rt.Repeat(map[string]func(*rapid.T){
			"event": func(rt *rapid.T) {
				seq++
				e := told(rapid.SampledFrom(types).Draw(rt, "type"), id, seq)
				x, _, _ := notice.From(e)
				kinds[e.ID] = x
				b.consume(e)
			},
			"claim": func(*rapid.T) {
				got, _ := b.claim()
				for _, x := range got {
					if x.OrderID == id {
						inFlight = append(inFlight, kinds[x.EventID])
					}
				}
			},
			"settle": func(rt *rapid.T) {
				for _, x := range inFlight {
					if rapid.Bool().Draw(rt, "told") {
						heard = append(heard, x)
						b.settle(postgres.Outcome{Notice: x})
					} else {
						b.settle(postgres.Outcome{Notice: x, Error: "451", Again: rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(rt, "pause")})
					}
				}
				inFlight = nil
			},
			"": func(rt *rapid.T) {
				if len(inFlight) > 1 {
					rt.Fatalf("two messages of one order are in flight: %+v", inFlight)
				}
				for i := 1; i < len(heard); i++ {
					if heard[i].Seq <= heard[i-1].Seq {
						rt.Fatalf("%s (%d) was told after %s (%d)", heard[i].Kind, heard[i].Seq, heard[i-1].Kind, heard[i-1].Seq)
					}
				}
				for i, x := range heard {
					for _, y := range heard[:i] {
						if strings.Contains(promises, string(x.Kind)) && strings.Contains(reversals, string(y.Kind)) && y.Seq > x.Seq {
							rt.Fatalf("%s after %s", x.Kind, y.Kind)
						}
					}
				}
			},
		})
	})
}

func TestFindKeepsToTheTenant(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.consume(told(event.OrderPaymentProcessed, "o-1", 3), told(event.OrderCompleted, "o-1", 4))
	for _, tt := range []struct {
		tenant, after int64
		limit, want   int
	}{{0, 0, 10, 2}, {1, 0, 10, 2}, {2, 0, 10, 0}, {1, 3, 10, 1}, {1, 0, 1, 1}} {
		if got, err := b.store.Find(t.Context(), "o-1", tt.tenant, tt.after, tt.limit); err != nil || len(got) != tt.want {
			t.Errorf("%+v: %d, %v", tt, len(got), err)
		}
	}
	if waiting, _, err := b.store.Backlog(t.Context()); err != nil || waiting != 2 {
		t.Errorf("backlog %d, %v; want 2", waiting, err)
	}
}
