package saga

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/failpoint"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/order/internal/order"
	"github.com/waybill-dev/waybill/services/order/internal/postgres"
)

const (
	// sweepEvery bounds how late a deadline or an unanswered reservation is noticed.
	sweepEvery = time.Second
	// askAgain is the time between two questions about a reservation that is not answered.
	askAgain = 5 * time.Second
	// countEvery is for the gauges: counting costs a look at each watched order.
	countEvery = 15 * time.Second
	// sweepSize is how many watched orders one transaction moves on.
	sweepSize = 1024
)

// Sweeper brings back what waits: reservations that were not answered, and orders past their deadline. Any number of
// replicas may run: each takes other entries of the watch, and what they do is decided again under the order's lock.
type Sweeper struct {
	saga     *Saga
	reserver *Reserver
	store    postgres.Store
	counted  time.Time
}

// NewSweeper makes a sweeper.
func NewSweeper(s *Saga, r *Reserver) *Sweeper {
	return &Sweeper{saga: s, reserver: r, store: postgres.Store{Pool: s.pool}}
}

// Run sweeps until ctx ends.
func (w *Sweeper) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := w.Sweep(ctx); err != nil && ctx.Err() == nil {
			level := w.saga.log.Error
			if pg.Retryable(err) {
				level = w.saga.log.Warn
			}
			level("watched orders not swept", zap.Error(err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Sweep goes through what is due once.
func (w *Sweeper) Sweep(ctx context.Context) error {
	for more := true; more && ctx.Err() == nil; {
		var due []postgres.Due
		var err error
		due, more, err = w.store.Sweep(ctx, askAgain, sweepSize)
		if err != nil {
			return err
		}
		if len(due) > 0 {
			if err := failpoint.Hit("sweep.after_select"); err != nil {
				return err
			}
		}
		var late []Fact
		for _, d := range due {
			switch {
			case d.Late:
				late = append(late, Fact{Fact: order.Fact{Event: order.Deadline}, OrderID: d.ID})
			default:
				w.reserver.Offer(d.Order)
			}
		}
		for len(late) > 0 {
			n := min(len(late), batchSize)
			if _, err := w.saga.Apply(ctx, late[:n]); err != nil {
				return err
			}
			late = late[n:]
		}
	}
	return w.count(ctx)
}

// count brings the gauges up to date.
func (w *Sweeper) count(ctx context.Context) error {
	if time.Since(w.counted) < countEvery {
		return nil
	}
	w.counted = time.Now()
	census, err := w.store.Census(ctx)
	if err != nil {
		return err
	}
	for _, s := range []order.Status{order.Pending, order.Paying} {
		w.saga.metrics.open.WithLabelValues(string(s)).Set(float64(census[s]))
	}
	return nil
}
