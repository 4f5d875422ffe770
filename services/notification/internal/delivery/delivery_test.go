package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/notification/internal/delivery"
	"github.com/waybill-dev/waybill/services/notification/internal/notice"
	"github.com/waybill-dev/waybill/services/notification/internal/postgres"
	"github.com/waybill-dev/waybill/services/notification/internal/smtp"
)

// world is a queue and a mail server in memory.
type world struct {
	mu       sync.Mutex
	queue    []notice.Notice
	outcomes []postgres.Outcome
	answer   func(ctx context.Context, n notice.Notice) error
}

func (w *world) Claim(_ context.Context, limit int) ([]notice.Notice, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(limit, len(w.queue))
	claimed := w.queue[:n]
	w.queue = w.queue[n:]
	return claimed, nil
}

func (w *world) Settle(ctx context.Context, outcomes []postgres.Outcome, _ func(*pg.Unit, inbox.Intervention)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outcomes = append(w.outcomes, outcomes...)
	return ctx.Err()
}

func (w *world) Backlog(context.Context) (int, time.Duration, error) { return 0, 0, nil }

func (w *world) Send(ctx context.Context, ns []notice.Notice) []error {
	errs := make([]error, len(ns))
	for i, n := range ns {
		errs[i] = w.answer(ctx, n)
	}
	return errs
}

func (w *world) settled() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.outcomes)
}

func (w *world) run(rate int) (stop func()) {
	d := delivery.New(delivery.Options{
		Queue: w, Mailer: w, Wake: make(chan struct{}, 1), PerSecond: rate, Log: zap.NewNop(), Registry: prometheus.NewRegistry(),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = d.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func TestTheRateIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{answer: func(context.Context, notice.Notice) error { return nil }}
		w.queue = make([]notice.Notice, 5000)
		stop := w.run(100)
		time.Sleep(10 * time.Second)
		if n := w.settled(); n < 900 || n > 1150 { // 100 are begun at once, as the first share
			t.Errorf("%d messages in 10 s, allowed are 100 a second", n)
		}
		stop()
	})
}

func TestAnOutagePutsFewMessagesOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var until time.Time
		w := &world{answer: func(context.Context, notice.Notice) error {
			if time.Now().Before(until) {
				return &smtp.Failure{Broken: true}
			}
			return nil
		}}
		until = time.Now().Add(5 * time.Minute)
		w.queue = make([]notice.Notice, 100_000)
		stop := w.run(100)
		time.Sleep(5 * time.Minute)
		if n := w.settled(); n > 2000 { // 4 workers, batches of 25, after 1, 2, 4, 8, 16, 30, 30 … s
			t.Errorf("%d messages were tried in an outage of five minutes", n)
		}
		before := w.settled()
		time.Sleep(time.Minute)
		if n := w.settled() - before; n < 2500 {
			t.Errorf("%d messages in the minute after the outage, want most of 6000", n)
		}
		stop()
	})
}

func TestOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{answer: func(_ context.Context, n notice.Notice) error {
			switch n.OrderID {
			case "refused":
				return fmt.Errorf("for the test: %w", &smtp.Failure{Permanent: true})
			case "later":
				return errors.New("451")
			}
			return nil
		}}
		for _, id := range []string{"fine", "refused", "later"} {
			w.queue = append(w.queue, notice.Notice{EventID: uuid.New(), OrderID: id, Tries: 3})
		}
		stop := w.run(100)
		time.Sleep(2 * time.Second)
		stop()
		if o := w.outcomes[0]; o.Error != "" {
			t.Errorf("a message that was taken: %+v", o)
		}
		if o := w.outcomes[1]; !o.Permanent || o.Error == "" {
			t.Errorf("a message that was refused: %+v", o)
		}
		if o := w.outcomes[2]; o.Permanent || o.Error != "451" {
			t.Errorf("a message that was not taken now: %+v", o)
		}
		if o := w.outcomes[2]; o.Again < 4*time.Second || o.Again > 8*time.Second {
			t.Errorf("after the third try the pause is %s, want 4 s to 8 s", o.Again)
		}
	})
}

func TestLeavingKeepsTheOutcomeAndCostsNoPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{answer: func(ctx context.Context, n notice.Notice) error {
			if n.OrderID == "second" {
				<-ctx.Done()
				return errors.New("not tried in time")
			}
			return nil
		}}
		w.queue = []notice.Notice{{OrderID: "first"}, {OrderID: "second", Tries: 9}}
		stop := w.run(100)
		time.Sleep(2 * time.Second)
		stop()
		if len(w.outcomes) != 2 || w.outcomes[0].Error != "" || w.outcomes[1].Error == "" || w.outcomes[1].Again != 0 {
			t.Errorf("outcomes %+v", w.outcomes)
		}
	})
}

func TestPause(t *testing.T) {
	for _, tt := range []struct {
		tries int
		most  time.Duration
	}{{1, 2 * time.Second}, {2, 4 * time.Second}, {11, 2048 * time.Second}, {12, time.Hour}, {500, time.Hour}} {
		for range 50 {
			if d := delivery.Pause(tt.tries); d < tt.most/2 || d > tt.most {
				t.Errorf("after %d tries: %s, want %s to %s", tt.tries, d, tt.most/2, tt.most)
			}
		}
	}
}
