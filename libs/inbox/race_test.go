package inbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/testkit"
)

// TestEverythingAtOnce has two consumers of the same log, as after a rebalance that one of them missed, two that settle, one
// that redrives, and events that turn bad and good, all at the same time. When it is over and everything is good and has
// been redriven, each key has applied its events once and in order.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const keys, length = 6, 30
	var log []event.Event
	for seq := range int64(length) {
		for n := range keys {
			log = append(log, ev(fmt.Sprintf("k-%d", n), seq+1))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg, delivering sync.WaitGroup
	for n := range 2 {
		in := b.another(nil)
		r := rand.New(rand.NewPCG(uint64(n), 7))
		delivering.Go(func() {
			for range 4 {
				for at := 0; at < len(log); {
					end := min(at+1+r.IntN(40), len(log))
					batch := slices.Clone(log[at:end])
					if r.IntN(3) == 0 {
						r.Shuffle(len(batch), func(a, b int) { batch[a], batch[b] = batch[b], batch[a] })
					}
					err := in.Consume(ctx, records(batch...))
					switch {
					case err == nil:
						at = end
					case in.Healthy() != nil: // a restart
						in = b.another(nil)
						fallthrough
					case permanent(err): // what parked too fast, or lost twice
						continue
					}
				}
			}
		})
	}
	background := func(f func(in *Inbox, r *rand.Rand)) {
		in := b.another(nil)
		r := rand.New(rand.NewPCG(3, 7))
		wg.Go(func() {
			for ctx.Err() == nil {
				f(in, r)
			}
		})
	}
	for range 2 {
		background(func(in *Inbox, _ *rand.Rand) {
			if err := in.settle(ctx); err != nil && ctx.Err() == nil && in.Healthy() == nil {
				t.Logf("settle: %v", err) // it is tried again
			}
		})
	}
	background(func(in *Inbox, r *rand.Rand) {
		_, _ = b.pool.Exec(ctx, `UPDATE parked_keys SET opened_at = opened_at - interval '61 s'`) // no flood is meant
		open, err := in.list(ctx, &filter{before: time.Unix(1<<40, 0)}, "open", [16]byte{0xff}, 10)
		if err != nil || len(open) == 0 {
			return
		}
		x := open[r.IntN(len(open))]
		if _, err := in.act(ctx, x, act{id: x.ID, action: "redrive", actor: "op"}); err != nil && ctx.Err() == nil {
			t.Logf("redrive: %v", err)
		}
	})
	background(func(_ *Inbox, r *rand.Rand) {
		var err error
		if r.IntN(2) == 0 {
			err = Permanent(errors.New("bad"))
		}
		b.poisons(fmt.Sprintf("k-%d", r.IntN(keys)), 1+r.Int64N(length), err)
		if r.IntN(50) == 0 {
			_, _ = b.pool.Exec(ctx, `UPDATE early_events SET queued_at = queued_at - interval '61 s'`)
		}
	})
	delivering.Wait()
	cancel()
	wg.Wait()

	b.mu.Lock()
	clear(b.poison)
	b.mu.Unlock()
	b.exec(`UPDATE parked_keys SET opened_at = opened_at - interval '61 s'`)
	b.consume(log...)
	b.settle()
	for n := range keys {
		s := fmt.Sprintf("k-%d", n)
		if query[int](b, `SELECT count(*) FROM parked_keys WHERE subject = $1 AND closed_at IS NULL`, s)[0] > 0 {
			b.redrive(s)
		}
	}
	var want []string
	for n := range keys {
		for seq := range length {
			want = append(want, fmt.Sprintf("k-%d/%d", n, seq+1))
		}
	}
	b.applied(want...)
	b.parked()
	if n := query[int](b, `SELECT (SELECT count(*) FROM early_events) + (SELECT count(*) FROM parked_events)`)[0]; n != 0 {
		t.Errorf("%d events still wait", n)
	}
}

// trips counts what is sent to the server.
type trips struct{ batches, queries atomic.Int64 }

func (c *trips) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.queries.Add(1)
	return ctx
}
func (c *trips) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (c *trips) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	c.batches.Add(1)
	return ctx
}
func (c *trips) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (c *trips) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

func TestABatchCostsTwoRoundTrips(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, url := testkit.Postgres(t, Migrations, effects)
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	var c trips
	config.ConnConfig.Tracer = &c
	if b.pool, err = pgxpool.NewWithConfig(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.pool.Close)
	b.in = b.another(nil)
	b.consume(ev("first", 1)) // meets the partition
	c.batches.Store(0)
	c.queries.Store(0)
	var batch []event.Event
	for n := range 256 {
		batch = append(batch, ev(fmt.Sprintf("o-%d", n), 1))
	}
	b.consume(batch...)
	if c.batches.Load() != 2 || c.queries.Load() != 0 {
		t.Errorf("256 events cost %d pipelines and %d queries, want 2 and 0", c.batches.Load(), c.queries.Load())
	}
}

// An event that comes while its key is being closed waits for that, and then finds the key flowing. Diverted at that moment
// it would lie in a queue that nobody looks at.
func TestNoEventSlipsIntoAQueueThatIsBeingClosed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.poisons("o-1", 1, Permanent(errors.New("bad")))
	b.consume(ev("o-1", 1))
	b.poisons("o-1", 1, nil)
	inside, held := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	t.Cleanup(release)
	closing := b.another(func([]event.Event) { inside <- struct{}{}; <-held })
	x := b.intervention("o-1")
	var wg sync.WaitGroup
	wg.Go(func() {
		if r, err := closing.act(t.Context(), x, act{id: x.ID, action: "redrive", actor: "op"}); err != nil || r.Status != "redriven" {
			t.Errorf("redrive: %+v, %v", r, err)
		}
	})
	<-inside
	wg.Go(func() {
		if err := b.in.Consume(t.Context(), records(ev("o-1", 2))); err != nil {
			t.Errorf("consume: %v", err)
		}
	})
	testkit.Eventually(t, 10*time.Second, func() bool {
		return query[int](b, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)[0] == 1
	}, "the consumer waits for the key to be closed")
	release()
	wg.Wait()
	b.applied("o-1/1", "o-1/2")
	b.parked()
	if n := query[int](b, `SELECT count(*) FROM parked_events`)[0]; n != 0 {
		t.Errorf("%d events are queued for a key that flows", n)
	}
}
