package inbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/libs/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// effects is what the handler of these tests does: a row per event, so that a second application shows.
var effects = pg.Migrations{Name: "effects", FS: fstest.MapFS{"00001_effects.sql": {Data: []byte(`-- +goose Up
CREATE TABLE effects (n bigint GENERATED ALWAYS AS IDENTITY, source text, subject text, seq bigint, event_id uuid);`)}}}

const sourceOrder, sourcePayment = "/waybill/order", "/waybill/payment"

// bench is an inbox over a database of its own.
type bench struct {
	t    testing.TB
	pool *pgxpool.Pool
	in   *Inbox

	mu     sync.Mutex
	poison map[string]error // by subject/seq: what the handler says
	runs   int              // of the handler
}

func setup(t testing.TB) *bench {
	t.Helper()
	pool, _ := testkit.Postgres(t, Migrations, effects)
	b := &bench{t: t, pool: pool, poison: map[string]error{}}
	b.in = b.another(nil)
	return b
}

// another makes a further replica on the same database. The hook runs inside its handler.
func (b *bench) another(hook func(batch []event.Event)) *Inbox {
	return New(Options{
		Group: "order-service", Pool: b.pool, Log: testkit.Log(b.t), Registry: prometheus.NewRegistry(),
		Wants: []event.Type{event.OrderCreated, event.OrderCompleted, event.PaymentProcessed},
		Handler: func(ctx context.Context, u *pg.Unit, batch []event.Event) error {
			b.mu.Lock()
			b.runs++
			b.mu.Unlock()
			if hook != nil {
				hook(batch)
			}
			for _, e := range batch {
				b.mu.Lock()
				err := b.poison[fmt.Sprintf("%s/%d", e.Subject, e.Seq)]
				b.mu.Unlock()
				if err != nil {
					return fmt.Errorf("apply %s %d: %w", e.Subject, e.Seq, err)
				}
				u.Write(`INSERT INTO effects (source, subject, seq, event_id) VALUES ($1, $2, $3, $4)`, e.Source, e.Subject, e.Seq, e.ID)
			}
			return nil
		},
		Redrive: map[string]func(context.Context, *pg.Unit, uuid.UUID, string) error{
			"ticket": func(_ context.Context, u *pg.Unit, _ uuid.UUID, subject string) error {
				b.mu.Lock()
				defer b.mu.Unlock()
				u.Write(`INSERT INTO effects (source, subject, seq) VALUES ('ticket', $1, 1)`, subject)
				return b.poison[subject]
			},
		},
	})
}

func (b *bench) poisons(subject string, seq int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.poison[fmt.Sprintf("%s/%d", subject, seq)] = err
}

// ev is event number seq of an order. Its id is always the same, as it is on each delivery.
func ev(subject string, seq int64) event.Event {
	return from(sourceOrder, event.OrderCreated, subject, seq)
}

func from(source string, typ event.Type, subject string, seq int64) event.Event {
	return event.Event{
		ID:   uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "%s/%s/%d", source, subject, seq)),
		Type: typ, Source: source, Subject: subject, Seq: seq, Tenant: 1,
		Time: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
}

func records(events ...event.Event) []stream.Message {
	var ms []stream.Message
	for _, e := range events {
		ms = append(ms, stream.Encode(e))
	}
	return ms
}

func (b *bench) consume(events ...event.Event) {
	b.t.Helper()
	if err := b.in.Consume(b.t.Context(), records(events...)); err != nil {
		b.t.Fatalf("consume: %v", err)
	}
}

func (b *bench) settle() {
	b.t.Helper()
	if err := b.in.settle(b.t.Context()); err != nil {
		b.t.Fatalf("settle: %v", err)
	}
}

// minuteLater is what early events look like when nothing came for a minute.
func (b *bench) minuteLater() {
	b.t.Helper()
	b.exec(`UPDATE early_events SET queued_at = queued_at - interval '61 s'`)
}

func (b *bench) exec(sql string, args ...any) {
	b.t.Helper()
	if _, err := b.pool.Exec(b.t.Context(), sql, args...); err != nil {
		b.t.Fatal(err)
	}
}

func query[T any](b *bench, sql string, args ...any) []T {
	b.t.Helper()
	rows, _ := b.pool.Query(b.t.Context(), sql, args...)
	out, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// applied compares what had an effect, in order per key, with want ("o-1/1").
func (b *bench) applied(want ...string) {
	b.t.Helper()
	got := query[string](b, `SELECT subject || '/' || seq FROM effects ORDER BY subject, source, n`)
	if diff := cmp.Diff(append([]string{}, want...), append([]string{}, got...)); diff != "" {
		b.t.Errorf("effects (-want +got):\n%s", diff)
	}
}

// parked compares the open parked keys and their queues with want ("poison o-1: 2 3").
func (b *bench) parked(want ...string) {
	b.t.Helper()
	got := query[string](b, `SELECT kind || ' ' || subject || ': ' || coalesce((SELECT string_agg(seq::text, ' ' ORDER BY seq) FROM parked_events e
		WHERE e.grp = k.grp AND e.source = k.source AND e.subject = k.subject), '') FROM parked_keys k WHERE closed_at IS NULL ORDER BY subject, source`)
	if diff := cmp.Diff(append([]string{}, want...), append([]string{}, got...)); diff != "" {
		b.t.Errorf("parked keys (-want +got):\n%s", diff)
	}
}

func (b *bench) last(subject string) int64 {
	b.t.Helper()
	rows := query[int64](b, `SELECT last_seq FROM inbox WHERE subject = $1 AND source = $2`, subject, sourceOrder)
	if len(rows) == 0 {
		return 0
	}
	return rows[0]
}

// intervention returns the latest one of a subject.
func (b *bench) intervention(subject string) item {
	b.t.Helper()
	rows, _ := b.pool.Query(b.t.Context(), `SELECT `+itemColumns+` FROM interventions WHERE subject = $1 ORDER BY id DESC LIMIT 1`, subject)
	x, err := pgx.CollectExactlyOneRow(rows, scanItem)
	if err != nil {
		b.t.Fatalf("intervention of %s: %v", subject, err)
	}
	return x
}

func (b *bench) redrive(subject string) Result {
	b.t.Helper()
	x := b.intervention(subject)
	r, err := b.in.act(b.t.Context(), x, act{id: x.ID, action: "redrive", actor: "op"})
	if err != nil {
		b.t.Fatalf("redrive: %v", err)
	}
	return r
}

func (b *bench) discard(subject string) Result {
	b.t.Helper()
	x := b.intervention(subject)
	r, err := b.in.act(b.t.Context(), x, act{id: x.ID, action: "discard", actor: "op", reason: "broken"})
	if err != nil {
		b.t.Fatalf("discard: %v", err)
	}
	return r
}

func TestDuplicatesHaveNoEffect(t *testing.T) {
	t.Parallel()
	b := setup(t)
	batch := []event.Event{ev("o-1", 1), ev("o-2", 1), ev("o-1", 2), from(sourcePayment, event.PaymentProcessed, "o-1", 1)}
	for range 3 {
		b.consume(append(batch, batch...)...)
	}
	b.applied("o-1/1", "o-1/2", "o-1/1", "o-2/1")
	if b.runs != 1 {
		t.Errorf("the handler ran %d times; batches of duplicates do not reach it", b.runs)
	}
	if got := testutil.ToFloat64(b.in.metrics.events.WithLabelValues("duplicate", "order.created")); got != 3+6+6 {
		t.Errorf("%v duplicates counted, want 15", got)
	}
}

func TestUnwantedTypesAdvanceTheSequence(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.consume(ev("o-1", 1), from(sourceOrder, event.OrderCancelled, "o-1", 2), from(sourceOrder, event.OrderCompleted, "o-1", 3))
	b.applied("o-1/1", "o-1/3")
	b.consume(from(sourceOrder, event.OrderCancelled, "o-1", 4))
	if got := b.last("o-1"); got != 4 {
		t.Errorf("last sequence %d, want 4", got)
	}
	if got := testutil.ToFloat64(b.in.metrics.events.WithLabelValues("ignored", "order.cancelled")); got != 2 {
		t.Errorf("%v ignored, want 2", got)
	}
}

func TestABatchOutOfOrderIsAppliedInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.consume(ev("o-1", 3), ev("o-1", 2), ev("o-2", 1), ev("o-1", 1), ev("o-1", 4))
	b.applied("o-1/1", "o-1/2", "o-1/3", "o-1/4", "o-2/1")
	if n := query[int](b, `SELECT count(*) FROM early_events`)[0]; n != 0 {
		t.Errorf("%d events wait", n)
	}
}

func TestAGapHealsWhenThePredecessorComes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.consume(ev("o-1", 1))
	b.consume(ev("o-1", 3), ev("o-1", 5))
	b.consume(ev("o-1", 3), ev("o-1", 4))
	b.applied("o-1/1")
	b.consume(ev("o-1", 2), ev("o-1", 6))
	b.applied("o-1/1", "o-1/2", "o-1/3", "o-1/4", "o-1/5", "o-1/6")
	if n := query[int](b, `SELECT count(*) FROM early_events`)[0]; n != 0 {
		t.Errorf("%d events wait", n)
	}
}

// A consumer that had not seen the early event may have applied its predecessor.
func TestRunHealsWhatNobodySaw(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.consume(ev("o-1", 1), ev("o-1", 3), ev("o-1", 4))
	b.exec(`UPDATE inbox SET was_seq = 1, last_seq = 2`)
	b.settle()
	b.applied("o-1/1", "o-1/3", "o-1/4")
	b.exec(`UPDATE inbox SET was_seq = 4, last_seq = 9`)
	b.consume(ev("o-1", 11))
	b.exec(`UPDATE inbox SET was_seq = 4, last_seq = 12`)
	b.settle()
	if n := query[int](b, `SELECT count(*) FROM early_events`)[0]; n != 0 {
		t.Errorf("%d events wait that are not above the last sequence", n)
	}
}

func TestAGapIsParkedAfterAMinuteAndHealsItself(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.consume(ev("o-1", 1), ev("o-1", 3))
	b.settle()
	b.parked()
	b.minuteLater()
	b.settle()
	b.parked("gap o-1: 3")
	b.consume(ev("o-1", 5), ev("o-2", 1))
	b.parked("gap o-1: 3 5")
	if r := b.redrive("o-1"); r.Applied != 0 || r.Status != "open" || r.Left != 2 {
		t.Errorf("redrive across a gap: %+v", r)
	}
	b.consume(ev("o-1", 2))
	b.settle()
	b.applied("o-1/1", "o-1/2", "o-1/3", "o-2/1")
	b.parked("gap o-1: 5")
	b.consume(ev("o-1", 4))
	b.settle()
	b.applied("o-1/1", "o-1/2", "o-1/3", "o-1/4", "o-1/5", "o-2/1")
	b.parked()
	if x := b.intervention("o-1"); x.Status != "redriven" || x.ClosedAt == nil {
		t.Errorf("the intervention is %+v", x)
	}
}

func TestDiscardOfAGapSkipsTheMissing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.consume(ev("o-1", 1), ev("o-1", 4), ev("o-1", 5))
	b.minuteLater()
	b.settle()
	if r := b.discard("o-1"); r.Status != "discarded" || r.Applied != 2 {
		t.Errorf("discard: %+v", r)
	}
	b.applied("o-1/1", "o-1/4", "o-1/5")
	b.consume(ev("o-1", 2), ev("o-1", 6)) // the missing one comes too late
	b.applied("o-1/1", "o-1/4", "o-1/5", "o-1/6")
	b.parked()
}

func TestTheFirstEventOfAKeyIsNumberOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	consume := func(in *Inbox, part int32, offset int64, e event.Event) {
		t.Helper()
		m := stream.Encode(e)
		m.Partition, m.Offset = part, offset
		if err := in.Consume(t.Context(), []stream.Message{m}); err != nil {
			t.Fatal(err)
		}
	}
	consume(b.in, 0, 0, ev("o-1", 1))
	consume(b.in, 0, 7, ev("o-2", 2)) // a gap: partition 0 was whole when we met it
	consume(b.in, 1, 7, ev("o-3", 5)) // older records of partition 1 have been deleted
	b.applied("o-1/1", "o-3/5")
	restarted := b.another(nil)
	consume(restarted, 0, 9, ev("o-4", 2))
	consume(restarted, 1, 0, ev("o-5", 2))
	b.applied("o-1/1", "o-3/5", "o-5/2")
	asking := b.another(nil)
	asking.o.Oldest = func(context.Context, string, int32) (int64, error) { return 0, nil }
	consume(asking, 2, 7, ev("o-6", 2)) // the broker still has everything
	b.applied("o-1/1", "o-3/5", "o-5/2")
	asking.o.Oldest = func(context.Context, string, int32) (int64, error) { return 0, errors.New("no leader") }
	if err := asking.Consume(t.Context(), []stream.Message{{Topic: "orders", Partition: 3}}); err == nil {
		t.Error("a partition was met without knowing its oldest offset")
	}
}

func TestPoisonParksItsKeyAndNothingElse(t *testing.T) {
	t.Parallel()
	for name, cause := range map[string]error{
		"said by the handler": Permanent(errors.New("no such thing")),
		"malformed":           fmt.Errorf("decode: %w", event.ErrMalformed),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.poisons("o-3", 2, cause)
			var batch []event.Event
			var want []string
			for seq := range int64(4) {
				for n := range 8 {
					batch = append(batch, ev(fmt.Sprintf("o-%d", n), seq+1))
				}
			}
			for n := range 8 {
				for seq := range 4 {
					if n != 3 || seq == 0 {
						want = append(want, fmt.Sprintf("o-%d/%d", n, seq+1))
					}
				}
			}
			for range 2 { // and again: the second time everything is a duplicate or parked already
				b.consume(batch...)
				b.applied(want...)
				b.parked("poison o-3: 2 3 4")
				if got := b.last("o-3"); got != 1 {
					t.Errorf("last sequence of the parked key is %d, want 1", got)
				}
			}
			b.consume(ev("o-3", 5), ev("o-4", 5))
			b.parked("poison o-3: 2 3 4 5")
			if x := b.intervention("o-3"); !strings.Contains(x.Error, cause.Error()) || x.Type != "order.created" || x.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" {
				t.Errorf("intervention %+v", x)
			}
		})
	}
}

func TestConstraintsPanicsAndUnknownTypesArePoison(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.in = b.another(func(batch []event.Event) {
		for _, e := range batch {
			if e.Subject == "o-panic" {
				panic("a bug in a handler")
			}
		}
	})
	b.exec(`ALTER TABLE effects ADD CHECK (subject <> 'o-sql')`)
	unknown := ev("o-new", 1)
	unknown.Type = "order.unheard_of"
	b.consume(ev("o-1", 1), ev("o-sql", 1), ev("o-2", 1), ev("o-panic", 1), unknown, ev("o-3", 1))
	b.applied("o-1/1", "o-2/1", "o-3/1")
	b.parked("poison o-new: 1", "poison o-panic: 1", "poison o-sql: 1")
}

func TestTroubleIsNotPoison(t *testing.T) {
	t.Parallel()
	b := setup(t)
	trouble := errors.New("connection refused")
	b.poisons("o-2", 1, trouble)
	batch := records(ev("o-1", 1), ev("o-2", 1), ev("o-3", 1))
	for range 2 {
		if err := b.in.Consume(t.Context(), batch); !errors.Is(err, trouble) {
			t.Fatalf("consume: %v, want %v", err, trouble)
		}
	}
	b.applied()
	b.parked()
	b.poisons("o-2", 1, nil)
	b.consume(ev("o-1", 1), ev("o-2", 1), ev("o-3", 1))
	b.applied("o-1/1", "o-2/1", "o-3/1")
}

// The early event fails, not the one that completes the row.
func TestAPoisonousEarlyEventIsParkedAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.poisons("o-1", 2, Permanent(errors.New("bad")))
	b.consume(ev("o-1", 2), ev("o-1", 3))
	b.consume(ev("o-1", 1))
	b.settle()
	b.applied("o-1/1")
	b.parked("poison o-1: 2 3")
}

func TestRedriveGoesInOrderAndOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.poisons("o-1", 2, Permanent(errors.New("bad")))
	b.poisons("o-1", 4, Permanent(errors.New("bad too")))
	b.consume(ev("o-1", 1), ev("o-1", 2))
	b.consume(ev("o-1", 5), ev("o-1", 3)) // parked in another order than they are numbered
	b.consume(ev("o-1", 4))
	if r := b.redrive("o-1"); r.Status != "open" || r.Applied != 0 || r.Left != 4 || !strings.Contains(r.Error, "bad") {
		t.Errorf("redrive of what is still poison: %+v", r)
	}
	b.poisons("o-1", 2, nil)
	if r := b.redrive("o-1"); r.Status != "open" || r.Applied != 2 || r.Left != 2 || !strings.Contains(r.Error, "bad too") {
		t.Errorf("redrive up to the next poison: %+v", r)
	}
	b.parked("poison o-1: 4 5")
	b.poisons("o-1", 4, nil)
	for range 3 {
		b.redrive("o-1")
		b.consume(ev("o-1", 1), ev("o-1", 2), ev("o-1", 3), ev("o-1", 4), ev("o-1", 5))
	}
	b.applied("o-1/1", "o-1/2", "o-1/3", "o-1/4", "o-1/5")
	b.parked()
	if x := b.intervention("o-1"); x.Status != "redriven" {
		t.Errorf("the intervention is %+v", x)
	}
	b.consume(ev("o-1", 6))
	if got := b.last("o-1"); got != 6 {
		t.Errorf("last sequence %d, want 6: the key flows again", got)
	}
}

// What a redrive leaves behind because something is missing is a gap from then on, and heals itself.
func TestAfterPartOfARedriveTheRestIsAGap(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.poisons("o-1", 1, Permanent(errors.New("bad")))
	b.consume(ev("o-1", 1), ev("o-1", 3))
	b.redrive("o-1")
	b.poisons("o-1", 1, nil)
	if r := b.redrive("o-1"); r.Applied != 1 || r.Left != 1 || r.Status != "open" {
		t.Errorf("redrive: %+v", r)
	}
	b.parked("gap o-1: 3")
	if x := b.intervention("o-1"); x.Attempts != 0 {
		t.Errorf("%d attempts are held against another event", x.Attempts)
	}
	b.consume(ev("o-1", 2))
	b.settle()
	b.applied("o-1/1", "o-1/2", "o-1/3")
	b.parked()
}

// Bisecting leaves early events where they are, so some of them may be applied by the time that their key is parked.
func TestAppliedEarlyEventsAreNotParked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.poisons("o-1", 3, Permanent(errors.New("bad")))
	b.consume(ev("o-1", 2), ev("o-1", 3))
	b.consume(ev("o-1", 1), ev("o-1", 2), ev("o-1", 3))
	b.applied("o-1/1", "o-1/2")
	b.parked("poison o-1: 3")
}

func TestDryRunChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.poisons("o-1", 1, Permanent(errors.New("bad")))
	b.consume(ev("o-1", 1), ev("o-1", 2))
	b.poisons("o-1", 1, nil)
	x := b.intervention("o-1")
	r, err := b.in.act(t.Context(), x, act{id: x.ID, action: "dry_run", actor: "op", dry: true})
	if err != nil || r.Applied != 2 || r.Status != "open" || !r.DryRun {
		t.Errorf("dry run: %+v, %v", r, err)
	}
	b.applied()
	b.parked("poison o-1: 1 2")
}

func TestDiscardGivesUpOneEvent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, seq := range []int64{2, 4} {
		b.poisons("o-1", seq, Permanent(errors.New("bad")))
	}
	for seq := range int64(5) {
		b.consume(ev("o-1", seq+1))
	}
	x := b.intervention("o-1")
	if _, err := b.in.skip(t.Context(), key{x.Source, x.Subject}, act{id: x.ID, action: "discard", head: 3}); !errors.Is(err, errHead) {
		t.Errorf("discard of an event that is not the first: %v", err)
	}
	if r := b.discard("o-1"); r.Status != "open" || r.Applied != 1 || r.Left != 2 {
		t.Errorf("first discard: %+v", r)
	}
	b.parked("poison o-1: 4 5")
	if r := b.discard("o-1"); r.Status != "discarded" || r.Applied != 1 {
		t.Errorf("second discard: %+v", r)
	}
	b.applied("o-1/1", "o-1/3", "o-1/5")
	b.consume(ev("o-1", 2), ev("o-1", 4), ev("o-1", 6))
	b.applied("o-1/1", "o-1/3", "o-1/5", "o-1/6")
}

// Two consumers hold the same batch, as after a pause longer than the session: both have read that nothing was applied.
func TestAZombieHasNoEffect(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var once [2]sync.Once
	var reading, consuming sync.WaitGroup
	reading.Add(2)
	for n := range 2 {
		await := func() { once[n].Do(func() { reading.Done(); reading.Wait() }) }
		in := b.another(func([]event.Event) { await() })
		consuming.Go(func() {
			defer await() // it failed before it came so far: let the other one end
			if err := in.Consume(t.Context(), records(ev("o-1", 1), ev("o-1", 2), ev("o-2", 1))); err != nil {
				t.Errorf("consumer %d: %v", n, err)
			}
		})
	}
	consuming.Wait()
	b.applied("o-1/1", "o-1/2", "o-2/1")
	b.parked()
}

// Two consumers meet a partition at once: the second waits for the first one's row, which its own snapshot does not have.
func TestTwoConsumersMeetAPartition(t *testing.T) {
	t.Parallel()
	b := setup(t)
	record := records(ev("o-1", 1))
	tx, err := b.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), `INSERT INTO inbox_partitions (grp, topic, part, oldest) VALUES ($1, $2, $3, 0)`,
		b.in.o.Group, record[0].Topic, record[0].Partition); err != nil {
		t.Fatal(err)
	}
	met := make(chan error, 1)
	go func() { met <- b.in.Consume(t.Context(), record) }()
	testkit.Eventually(t, 10*time.Second, func() bool {
		return query[int](b, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)[0] == 1
	}, "the second consumer does not wait for the row")
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-met; err != nil {
		t.Errorf("the second consumer: %v", err)
	}
	b.applied("o-1/1")
}

// A unique violation that was lost to another consumer is a duplicate on the second look.
func TestALostRaceIsNotPoison(t *testing.T) {
	t.Parallel()
	for _, batch := range [][]event.Event{{ev("o-1", 1)}, {ev("o-1", 1), ev("o-2", 1)}} {
		t.Run(fmt.Sprintf("%d events", len(batch)), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.exec(`CREATE UNIQUE INDEX ON effects (event_id)`)
			other := b.another(nil)
			var once sync.Once
			b.in = b.another(func([]event.Event) {
				once.Do(func() {
					if err := other.Consume(context.Background(), records(batch...)); err != nil {
						t.Error(err)
					}
				})
			})
			b.consume(batch...)
			if n := query[int](b, `SELECT count(*) FROM effects`)[0]; n != len(batch) {
				t.Errorf("%d effects of %d events", n, len(batch))
			}
			b.parked()
		})
	}
}

func TestWhatWasAppliedIsNotParked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.consume(ev("o-1", 1), ev("o-1", 2))
	for _, e := range []event.Event{ev("o-1", 1), ev("o-1", 2)} {
		if err := b.in.park(t.Context(), poison, e, "bad"); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.in.park(t.Context(), gap, ev("o-1", 3), "its predecessor came just now"); err != nil {
		t.Fatal(err)
	}
	b.parked()
}

func TestAFloodOfPoisonStopsTheConsumer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var batch []event.Event
	for n := range parkLimit + 5 {
		subject := fmt.Sprintf("o-%02d", n)
		b.poisons(subject, 1, Permanent(errors.New("bad")))
		batch = append(batch, ev(subject, 1))
	}
	err := b.in.Consume(t.Context(), records(batch...))
	if err == nil || b.in.Healthy() == nil {
		t.Fatalf("consume: %v, healthy: %v; want both to refuse", err, b.in.Healthy())
	}
	if n := query[int](b, `SELECT count(*) FROM parked_keys`)[0]; n != parkLimit {
		t.Errorf("%d keys parked, want %d", n, parkLimit)
	}
	if err := b.in.Consume(t.Context(), records(ev("fine", 1))); err == nil {
		t.Error("a stopped consumer went on")
	}
	b.applied()
	// Started again a minute later, it goes on where it was.
	b.exec(`UPDATE parked_keys SET opened_at = opened_at - interval '61 s'`)
	b.in = b.another(nil)
	b.consume(append(batch, ev("fine", 1))...)
	b.applied("fine/1")
	if n := query[int](b, `SELECT count(*) FROM parked_keys`)[0]; n != parkLimit+5 {
		t.Errorf("%d keys parked, want %d", n, parkLimit+5)
	}
}

func TestRecordsThatAreNoEventsAreDeadLetters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	garbage := stream.Message{Topic: "orders", Offset: 1, Key: []byte("k"), Value: []byte{0xff, 0}, Time: time.Unix(1, 0),
		Headers: []stream.Header{{Key: "ce_id\x00", Value: []byte{0xfe, 0}}}}
	long := stream.Encode(ev(strings.Repeat("x", 3000), 1))
	long.Offset = 2
	nul := stream.Encode(ev("o\x00", 1))
	nul.Offset = 3
	none := stream.Encode(ev("o-9", 0))
	none.Offset = 4
	batch := append(records(ev("o-1", 1)), garbage, long, nul, none)
	batch = append(batch, records(ev("o-2", 1))...)
	for range 2 {
		if err := b.in.Consume(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	b.applied("o-1/1", "o-2/1")
	if got := query[string](b, `SELECT subject FROM interventions WHERE kind = 'dead_letter' ORDER BY subject`); !cmp.Equal(got,
		[]string{"orders/0/1", "orders/0/2", "orders/0/3", "orders/0/4"}) {
		t.Errorf("dead letters: %v", got)
	}
	if r := b.redrive("orders/0/1"); r.Status != "open" || r.Error == "" {
		t.Errorf("redrive of garbage: %+v", r)
	}
	// A later version understands it.
	m := stream.Encode(ev("o-3", 1))
	x := b.intervention("orders/0/1")
	b.exec(`UPDATE dead_letters SET key = $2, value = $3, headers = $4 WHERE id = $1`, x.ID, m.Key, []byte{}, m.Headers)
	for range 3 {
		if r := b.redrive("orders/0/1"); r.Status != "redriven" {
			t.Errorf("redrive: %+v", r)
		}
	}
	b.applied("o-1/1", "o-2/1", "o-3/1")
}

// unordered makes a group whose handler knows by itself what it has seen.
func (b *bench) unordered() *Inbox {
	i := b.another(nil)
	i.o.Unordered = true
	i.o.Handler = func(_ context.Context, u *pg.Unit, batch []event.Event) error {
		for _, e := range batch {
			if err := b.poison[fmt.Sprintf("%s/%d", e.Subject, e.Seq)]; err != nil {
				return err
			}
			u.Write(`INSERT INTO effects (source, subject, seq, event_id) SELECT $1, $2, $3, $4
				WHERE NOT EXISTS (SELECT FROM effects WHERE event_id = $4)`, e.Source, e.Subject, e.Seq, e.ID)
		}
		return nil
	}
	return i
}

func TestAnUnorderedGroupKeepsNoSequences(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.in = b.unordered()
	b.consume(ev("o-1", 3), ev("o-1", 1), ev("o-1", 3))
	b.consume(ev("o-1", 1), ev("o-1", 2))
	b.applied("o-1/3", "o-1/1", "o-1/2")
	if n := query[int](b, `SELECT (SELECT count(*) FROM inbox) + (SELECT count(*) FROM early_events)`)[0]; n != 0 {
		t.Errorf("%d rows were kept", n)
	}
}

func TestPoisonOfAnUnorderedGroupIsADeadLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.in = b.unordered()
	b.poisons("o-1", 2, Permanent(errors.New("poison")))
	batch := records(ev("o-1", 1), ev("o-1", 2), ev("o-1", 3))
	for n := range batch {
		batch[n].Offset = int64(n)
	}
	if err := b.in.Consume(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	b.applied("o-1/1", "o-1/3")
	b.parked()
	if r := b.redrive("orders/0/1"); r.Status != "open" || !strings.Contains(r.Error, "poison") {
		t.Errorf("redrive of what is poison still: %+v", r)
	}
	delete(b.poison, "o-1/2")
	if r := b.redrive("orders/0/1"); r.Status != "redriven" {
		t.Errorf("redrive: %+v", r)
	}
	b.applied("o-1/1", "o-1/3", "o-1/2")
}

func TestAFloodOfPoisonStopsAnUnorderedGroup(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.in = b.unordered()
	var batch []stream.Message
	for n := range parkLimit + 1 {
		subject := fmt.Sprintf("o-%02d", n)
		b.poisons(subject, 1, Permanent(errors.New("poison")))
		m := stream.Encode(ev(subject, 1))
		m.Offset = int64(n)
		batch = append(batch, m)
	}
	if err := b.in.Consume(t.Context(), batch); err == nil || b.in.Healthy() == nil {
		t.Errorf("after %d dead letters the consumer goes on: %v", len(batch), err)
	}
	if n := query[int](b, `SELECT count(*) FROM dead_letters`)[0]; n != parkLimit {
		t.Errorf("%d dead letters, want %d", n, parkLimit)
	}
}

func TestRunWakesForWhatItIsNudged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.in.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	b.consume(ev("o-1", 1), ev("o-1", 3))
	b.minuteLater()
	testkit.Eventually(t, 10*time.Second, func() bool {
		return query[int](b, `SELECT count(*) FROM parked_keys`)[0] == 1
	}, "the gap is parked")
	b.consume(ev("o-1", 2))
	testkit.Eventually(t, 10*time.Second, func() bool { return b.last("o-1") == 3 }, "the gap heals")
	cancel()
	wg.Wait()
	b.applied("o-1/1", "o-1/2", "o-1/3")
	b.parked()
}
