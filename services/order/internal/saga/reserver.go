package saga

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/waybill-dev/waybill/services/order/internal/order"
	"github.com/waybill-dev/waybill/services/order/internal/postgres"
	"github.com/waybill-dev/waybill/services/order/internal/stock"
)

const (
	// batchSize is what inventory takes in one call.
	batchSize = 256
	// askers is how many calls are under way: one waits for inventory's commit while the other one's answers are stored.
	askers = 2
	// queueSize bounds what waits in memory, some 4 s of the platform's best throughput. More is left to the sweeper.
	queueSize = 8192
	// callTime is far above what a batch takes (10 ms) and below what keeps an asker from noticing that inventory is back.
	callTime = 5 * time.Second
)

// Stock is inventory.
type Stock interface {
	// Reserve asks for the items of up to 256 orders. An order without an answer was not decided.
	Reserve(ctx context.Context, orders []*order.Order) ([]stock.Answer, error)
}

// Reserver asks inventory for the items of orders, many in a call, and applies the answers.
type Reserver struct {
	saga  *Saga
	stock Stock
	queue chan *order.Order

	mu     sync.Mutex
	asking map[string]struct{} // waiting or in a call
}

// NewReserver makes a reserver. It works while Run runs.
func NewReserver(s *Saga, st Stock) *Reserver {
	return &Reserver{saga: s, stock: st, queue: make(chan *order.Order, queueSize), asking: map[string]struct{}{}}
}

// Offer has the items of a committed order reserved soon. It never blocks: what does not fit is found by the sweeper.
func (r *Reserver) Offer(o *order.Order) {
	if len(o.Items) == 0 {
		return
	}
	r.mu.Lock()
	_, known := r.asking[o.ID]
	if !known {
		r.asking[o.ID] = struct{}{}
	}
	r.mu.Unlock()
	if known {
		return
	}
	select {
	case r.queue <- o:
	default:
		r.saga.metrics.overflow.Inc()
		r.forget([]*order.Order{o})
	}
}

func (r *Reserver) forget(orders []*order.Order) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range orders {
		delete(r.asking, o.ID)
	}
}

// Run asks until ctx ends.
func (r *Reserver) Run(ctx context.Context) error {
	var g errgroup.Group
	for range askers {
		g.Go(func() error { r.work(ctx); return nil })
	}
	return g.Wait()
}

func (r *Reserver) work(ctx context.Context) {
	var pause time.Duration // after a failure, so that a dead inventory is not hammered with what waits
	for {
		var batch []*order.Order
		select {
		case o := <-r.queue:
			batch = append(batch, o)
		case <-ctx.Done():
			return
		}
	gather:
		for len(batch) < batchSize {
			select {
			case o := <-r.queue:
				batch = append(batch, o)
			default:
				break gather
			}
		}
		if r.ask(ctx, batch) {
			pause = 0
			continue
		}
		pause = min(max(2*pause, 50*time.Millisecond), 2*time.Second)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// ask makes one call and applies its answers. Whatever goes wrong, the orders stay pending and the sweeper brings them again: nothing
// is concluded from an answer that did not come.
func (r *Reserver) ask(ctx context.Context, batch []*order.Order) bool {
	defer r.forget(batch)
	r.saga.metrics.batch.WithLabelValues("reserve").Observe(float64(len(batch)))
	call, cancel := context.WithTimeout(ctx, callTime)
	answers, err := r.stock.Reserve(call, batch)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			r.saga.metrics.asked.WithLabelValues("no_answer").Add(float64(len(batch)))
			r.saga.log.Warn("inventory did not answer; orders stay pending", zap.Int("orders", len(batch)), zap.Error(err))
		}
		return false
	}
	r.saga.metrics.asked.WithLabelValues("answered").Add(float64(len(batch)))
	byID := make(map[string]*order.Order, len(batch))
	for _, o := range batch {
		byID[o.ID] = o
	}
	facts := make([]Fact, 0, len(answers))
	for _, a := range answers {
		if o := byID[a.OrderID]; o != nil {
			if f, ok := answerFact(o, a); ok {
				facts = append(facts, f)
			} else {
				r.saga.log.Error("inventory gave an answer that is not known", zap.String("order_id", o.ID), zap.String("outcome", string(a.Outcome)))
			}
		}
	}
	if err := r.apply(ctx, facts); err != nil {
		r.saga.log.Warn("reservations could not be stored; inventory will be asked again", zap.Int("orders", len(facts)), zap.Error(err))
		return false
	}
	return true
}

// apply stores answers together, and each alone where one of them cannot be stored.
func (r *Reserver) apply(ctx context.Context, facts []Fact) error {
	if len(facts) == 0 {
		return nil
	}
	err := postgres.Patiently(ctx, func(ctx context.Context) error { _, err := r.saga.Apply(ctx, facts); return err })
	if err == nil || len(facts) == 1 || ctx.Err() != nil {
		return err
	}
	var last error
	for i := range facts {
		if _, err := r.saga.Apply(ctx, facts[i:i+1]); err != nil {
			last = err
		}
	}
	return last
}

// answerFact reads an answer. What is pinned for another amount is a mismatch, whoever pinned it.
func answerFact(o *order.Order, a stock.Answer) (Fact, bool) {
	f := Fact{OrderID: o.ID, Tenant: o.Tenant, Traceparent: o.Traceparent, At: o.CreatedAt}
	switch {
	case a.Outcome == stock.Pinned && a.Total == o.Amount && a.Currency == o.Currency:
		f.Event = order.StockReserved
	case a.Outcome == stock.Pinned, a.Outcome == stock.Mismatch:
		f.Event, f.Reason = order.StockMismatch, order.AmountMismatch
	case a.Outcome == stock.Refused && a.Reason == string(order.UnknownProduct):
		f.Event, f.Reason = order.StockRefused, order.UnknownProduct
	case a.Outcome == stock.Refused:
		f.Event, f.Reason = order.StockRefused, order.OutOfStock
	case a.Outcome == stock.Closed:
		f.Event, f.Reason = order.StockClosed, order.ReservationExpired
	default:
		return f, false
	}
	f.Detail = string(f.Reason)
	return f, true
}
