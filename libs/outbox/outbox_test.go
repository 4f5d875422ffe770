package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/outbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/libs/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// broker keeps what it is sent, or fails.
type broker struct {
	mu     sync.Mutex
	events []event.Event
	fail   int          // so many sends fail, each after its first half is written
	gate   sync.RWMutex // locked: no send gets through
}

func (b *broker) Send(_ context.Context, messages []stream.Message) error {
	b.gate.RLock()
	defer b.gate.RUnlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := map[string]bool{}
	for i, m := range messages {
		if seen[string(m.Key)] {
			panic("two records of a key in one batch")
		}
		seen[string(m.Key)] = true
		if b.fail > 0 && i >= len(messages)/2 {
			b.fail--
			return errors.New("half of it is gone")
		}
		e, err := stream.DecodeMessage(m)
		if err != nil {
			return err
		}
		b.events = append(b.events, e)
	}
	return nil
}

// check fails the test unless the first occurrences of each subject are 1, 2, … and returns how many events are there once.
func (b *broker) check(t *testing.T) (once int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	last := map[string]int64{}
	for _, e := range b.events {
		switch {
		case e.Seq == last[e.Subject]+1:
			last[e.Subject]++
			once++
		case e.Seq > last[e.Subject]:
			t.Fatalf("%s: %d came after %d", e.Subject, e.Seq, last[e.Subject])
		}
	}
	return once
}

func (b *broker) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.events)
}

// start runs o until the test ends or the returned function is called.
func start(t *testing.T, o *outbox.Outbox) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func newOutbox(t *testing.T, pool *pgxpool.Pool, url string, p outbox.Producer) *outbox.Outbox {
	return outbox.New(outbox.Options{Source: "order", Pool: pool, DatabaseURL: url, Producer: p, Log: testkit.Log(t)})
}

// add commits events first to last about subject in one transaction.
func add(t *testing.T, pool *pgxpool.Pool, o *outbox.Outbox, subject string, first, last int64) {
	t.Helper()
	err := pg.Do(t.Context(), pool, func(ctx context.Context, u *pg.Unit) error {
		for seq := first; seq <= last; seq++ {
			o.Add(u, event.New(ctx, event.OrderCreated, subject, 1, seq, wrapperspb.Int64(seq)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func unpublished(t *testing.T, pool *pgxpool.Pool) (n int) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM outbox WHERE published_at IS NULL`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestPublishesWhatWasThereAndWhatComes(t *testing.T) {
	t.Parallel()
	pool, url := testkit.Postgres(t, outbox.Migrations)
	b := &broker{}
	o := newOutbox(t, pool, url, b)
	add(t, pool, o, "a", 1, 3)
	add(t, pool, o, "b", 1, 1)
	start(t, o)
	testkit.Eventually(t, 10*time.Second, func() bool { return b.count() == 4 }, "events from before the start")
	for seq := int64(4); seq < 100; seq++ {
		add(t, pool, o, "a", seq, seq)
		add(t, pool, o, fmt.Sprint("c", seq), 1, 2)
	}
	testkit.Eventually(t, 10*time.Second, func() bool { return unpublished(t, pool) == 0 }, "all rows marked")
	if got, want := b.check(t), 4+96+2*96; got != want || b.count() != want {
		t.Errorf("published %d events, %d of them once; want %d", b.count(), got, want)
	}
}

func TestRollbackPublishesNothing(t *testing.T) {
	t.Parallel()
	pool, url := testkit.Postgres(t, outbox.Migrations)
	b := &broker{}
	o := newOutbox(t, pool, url, b)
	start(t, o)
	sorry := errors.New("changed my mind")
	err := pg.Do(t.Context(), pool, func(ctx context.Context, u *pg.Unit) error {
		o.Add(u, event.New(ctx, event.OrderCreated, "a", 1, 1, wrapperspb.Int64(1)))
		if err := u.Flush(ctx); err != nil {
			return err
		}
		return sorry
	})
	if !errors.Is(err, sorry) {
		t.Fatal(err)
	}
	add(t, pool, o, "b", 1, 1)
	testkit.Eventually(t, 10*time.Second, func() bool { return b.count() == 1 }, "the event that was committed")
	if b.events[0].Subject != "b" {
		t.Errorf("published %v", b.events[0])
	}
}

func TestFailedBatchesAreSentAgainInTheirSequence(t *testing.T) {
	t.Parallel()
	pool, url := testkit.Postgres(t, outbox.Migrations)
	b := &broker{fail: 5}
	o := newOutbox(t, pool, url, b)
	start(t, o)
	const keys, each = 20, 10
	for seq := int64(1); seq <= each; seq++ {
		for k := range keys {
			add(t, pool, o, fmt.Sprint("k", k), seq, seq)
		}
	}
	testkit.Eventually(t, 20*time.Second, func() bool { return unpublished(t, pool) == 0 }, "all rows marked")
	if got := b.check(t); got != keys*each {
		t.Errorf("published %d of %d events", got, keys*each)
	}
}

// More than memory holds waits in the table, and comes from there.
func TestHandOffOverflows(t *testing.T) {
	t.Parallel()
	pool, url := testkit.Postgres(t, outbox.Migrations)
	b := &broker{}
	o := newOutbox(t, pool, url, b)
	start(t, o)
	add(t, pool, o, "first", 1, 1)
	testkit.Eventually(t, 10*time.Second, func() bool { return b.count() == 1 }, "the relay works")
	b.gate.Lock()
	const rows, each, keys = 700, 100, 1000
	for n := range rows {
		err := pg.Do(t.Context(), pool, func(ctx context.Context, u *pg.Unit) error {
			for i := range each {
				at := n*each + i
				o.Add(u, event.New(ctx, event.OrderCreated, fmt.Sprint("k", at%keys), 1, int64(at/keys)+1, wrapperspb.Int64(1)))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	b.gate.Unlock()
	testkit.Eventually(t, time.Minute, func() bool { return unpublished(t, pool) == 0 }, "all rows marked")
	if got := b.check(t); got != rows*each+1 || b.count() != got {
		t.Errorf("published %d of %d events once, %d in all", got, rows*each+1, b.count())
	}
	add(t, pool, o, "first", 2, 2)
	testkit.Eventually(t, 10*time.Second, func() bool { return unpublished(t, pool) == 0 }, "the relay works on")
}

// BenchmarkRelay is the way from Add to the acknowledgement, per event: transactions of twenty events of twenty keys against
// PostgreSQL and a broker in this process.
func BenchmarkRelay(b *testing.B) {
	pool, url := testkit.Postgres(b, outbox.Migrations)
	brokers, _ := testkit.Kafka(b)
	producer, err := stream.NewProducer(b.Context(), stream.Config{Brokers: brokers, ClientID: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	defer producer.Close()
	o := outbox.New(outbox.Options{Source: "order", Pool: pool, DatabaseURL: url, Producer: producer})
	ctx, cancel := context.WithCancel(b.Context())
	var relay, writers sync.WaitGroup
	relay.Go(func() { _ = o.Run(ctx) })
	const each = 20
	data := wrapperspb.String(strings.Repeat("x", 120))
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	for range 3 {
		writers.Go(func() {
			for {
				n := next.Add(1)
				if n*each > int64(b.N)+each {
					return
				}
				err := pg.Do(ctx, pool, func(ctx context.Context, u *pg.Unit) error {
					for i := range each {
						o.Add(u, event.New(ctx, event.OrderCreated, fmt.Sprintf("0192f0c1-2b3c-7d4e-%04d-%012d", i, n), 1, 1, data))
					}
					return nil
				})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	testkit.Eventually(b, time.Minute, func() bool {
		var n int
		err := pool.QueryRow(ctx, `SELECT count(*) FROM (SELECT FROM outbox WHERE published_at IS NULL LIMIT 1) AS x`).Scan(&n)
		return err == nil && n == 0
	}, "all rows published")
	b.StopTimer()
	cancel()
	relay.Wait()
}
