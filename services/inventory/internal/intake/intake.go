// Package intake gathers reservations of concurrent requests into shared transactions.
//
// One worker takes what waits, up to a bound, and decides it in one unit of work; what arrives meanwhile waits for the
// next. Under load the batches grow and the cost of an order falls; alone, a request waits for nobody. The transaction
// does not belong to any of the requests: a client that goes away takes nothing with it, and a batch that fails is tried
// again request by request, so that no request fails because of another one.
package intake

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
)

const (
	// maxAsks per transaction. Beyond a few hundred the cost of an order does not fall any more, and all of them wait for
	// the slowest.
	maxAsks = 512
	// maxWaiting requests; with 512 orders each 5 ms, the last of them waits well under the callers' time-outs.
	maxWaiting = 256
	// patience of one transaction: its locks take 2 s at most, and a lost one is run again.
	patience = 8 * time.Second
)

// ErrStopped answers requests that came after the worker has ended.
var ErrStopped = errors.New("intake has ended")

// Reserve decides asks in one transaction.
type Reserve func(ctx context.Context, asks []postgres.Ask) ([]postgres.Reply, error)

// Intake is the queue before the store.
type Intake struct {
	reserve Reserve
	queue   chan request
	ended   chan struct{}
	size    prometheus.Histogram
}

type request struct {
	asks []postgres.Ask
	done chan result // has room for one, so that the worker never waits for a client
}

type result struct {
	replies []postgres.Reply
	err     error
}

// New makes an intake; it works once Run does.
func New(reserve Reserve, reg prometheus.Registerer) *Intake {
	return &Intake{
		reserve: reserve, queue: make(chan request, maxWaiting), ended: make(chan struct{}),
		size: promauto.With(reg).NewHistogram(prometheus.HistogramOpts{
			Name: "waybill_inventory_reserve_batch_orders", Help: "Orders decided in one transaction.", Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
	}
}

// Reserve has the asks decided together with those of other requests.
func (i *Intake) Reserve(ctx context.Context, asks []postgres.Ask) ([]postgres.Reply, error) {
	r := request{asks: asks, done: make(chan result, 1)}
	select {
	case <-i.ended:
		return nil, problem.Unavailable().Because(ErrStopped)
	default:
	}
	select {
	case i.queue <- r:
	default:
		return nil, problem.New(503, "overloaded", "Too many reservations are waiting.").After(time.Second)
	}
	select {
	case res := <-r.done:
		return res.replies, res.err
	case <-i.ended:
		select { // it may have been among the last
		case res := <-r.done:
			return res.replies, res.err
		default:
			return nil, problem.Unavailable().Because(ErrStopped)
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Run decides until ctx ends, and then what is still waiting.
func (i *Intake) Run(ctx context.Context) error {
	defer close(i.ended)
	for {
		select {
		case r := <-i.queue:
			i.decide(i.gather(r))
		case <-ctx.Done():
			for {
				select {
				case r := <-i.queue:
					i.decide(i.gather(r))
				default:
					return nil
				}
			}
		}
	}
}

// gather takes what else is waiting.
func (i *Intake) gather(first request) []request {
	batch := []request{first}
	n := len(first.asks)
	for n < maxAsks {
		select {
		case r := <-i.queue:
			batch = append(batch, r)
			n += len(r.asks)
		default:
			return batch
		}
	}
	return batch
}

func (i *Intake) decide(batch []request) {
	var all []postgres.Ask
	for _, r := range batch {
		all = append(all, r.asks...)
	}
	i.size.Observe(float64(len(all)))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	replies, err := i.reserve(ctx, all)
	cancel()
	if err != nil && len(batch) > 1 && !pg.Unavailable(err) {
		for _, r := range batch {
			i.decide([]request{r})
		}
		return
	}
	for _, r := range batch {
		if err != nil {
			r.done <- result{err: err}
			continue
		}
		n := len(r.asks)
		r.done <- result{replies: replies[:n:n]}
		replies = replies[n:]
	}
}
