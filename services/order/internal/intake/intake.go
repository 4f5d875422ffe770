// Package intake takes new orders in. Requests that come together share one transaction: what an order costs the database
// is round trips, a plan start per statement and a commit, and two hundred orders can have those together.
//
// The transaction belongs to nobody's request: once an order is in a batch, its client hanging up cannot stop the others'.
// Where the shared transaction fails for a reason that lies in one of the orders, each is tried alone.
package intake

import (
	"context"
	"errors"
	"net/http"

	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/failpoint"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/order/internal/order"
	"github.com/waybill-dev/waybill/services/order/internal/postgres"
)

const (
	// batchSize bounds a transaction, as everywhere on the platform.
	batchSize = 256
	// queueSize is more than the server lets requests in at once.
	queueSize = 4096
)

// Creator stores orders: the saga.
type Creator interface {
	Create(ctx context.Context, orders []*order.Order) error
	CreateFree(ctx context.Context, orders []*order.Order) (stored map[string]bool, taken []postgres.Taken, err error)
}

// Intake stores orders in shared transactions.
type Intake struct {
	creator Creator
	// accepted is told of each stored order, after the commit. It must not block.
	accepted func(*order.Order)
	log      *zap.Logger
	queue    chan *wish
	stopped  chan struct{}
}

// New makes an intake. It works while Run runs.
func New(c Creator, accepted func(*order.Order), log *zap.Logger) *Intake {
	if log == nil {
		log = zap.NewNop()
	}
	return &Intake{creator: c, accepted: accepted, log: log, queue: make(chan *wish, queueSize), stopped: make(chan struct{})}
}

type wish struct {
	*order.Order
	ctx    context.Context
	answer chan answer
}

type answer struct {
	order    *order.Order
	replayed bool
	err      error
}

// Submit stores an order, or finds the one that the same request has stored before.
func (i *Intake) Submit(ctx context.Context, o *order.Order) (stored *order.Order, replayed bool, err error) {
	w := &wish{Order: o, ctx: ctx, answer: make(chan answer, 1)}
	select {
	case i.queue <- w:
	case <-ctx.Done():
		return nil, false, problem.Unavailable().Because(ctx.Err())
	case <-i.stopped:
		return nil, false, problem.Unavailable()
	}
	select {
	case a := <-w.answer:
		return a.order, a.replayed, a.err
	case <-ctx.Done(): // nobody listens any more; the order may well be stored
		return nil, false, problem.Unavailable().Because(ctx.Err())
	case <-i.stopped:
		select { // both may have happened
		case a := <-w.answer:
			return a.order, a.replayed, a.err
		default:
			return nil, false, problem.Unavailable()
		}
	}
}

// Run stores what is submitted until ctx ends; what is being stored then is finished.
func (i *Intake) Run(ctx context.Context) error {
	defer close(i.stopped)
	for {
		select {
		case w := <-i.queue:
			i.store(context.WithoutCancel(ctx), i.gather(w))
		case <-ctx.Done():
			return nil
		}
	}
}

// gather takes what waits. It does not wait for more: while one transaction commits, the next batch comes together.
func (i *Intake) gather(first *wish) []*wish {
	batch := []*wish{first}
	for len(batch) < batchSize {
		select {
		case w := <-i.queue:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

type callerKey struct {
	tenant        int64
	customer, key string
}

// store answers every wish of a batch. Wishes for the same id or under the same key go one after the other: the second
// one finds what the first one stored.
func (i *Intake) store(ctx context.Context, batch []*wish) {
	for len(batch) > 0 {
		ids, keys := map[string]bool{}, map[callerKey]bool{}
		var now, later []*wish
		for _, w := range batch {
			k := callerKey{w.Tenant, w.Customer, w.Key}
			switch {
			case w.ctx.Err() != nil: // gone before anything was done for it
				w.answer <- answer{err: problem.Unavailable().Because(w.ctx.Err())}
			case ids[w.ID] || (w.Key != "" && keys[k]):
				later = append(later, w)
			default:
				ids[w.ID], keys[k] = true, true
				now = append(now, w)
			}
		}
		if len(now) > 0 {
			i.together(ctx, now)
		}
		batch = later
	}
}

// together stores wishes in one transaction: first as if nothing of them were taken, which costs one round trip, and
// carefully where something is.
func (i *Intake) together(ctx context.Context, wishes []*wish) {
	orders := make([]*order.Order, len(wishes))
	for n, w := range wishes {
		orders[n] = w.Order
	}
	err := postgres.Patiently(ctx, func(ctx context.Context) error { return i.creator.Create(ctx, orders) })
	if err = failpoint.After(err, "order.after_tx"); err == nil {
		for _, w := range wishes {
			i.accepted(w.Order)
			w.answer <- answer{order: w.Order}
		}
		return
	}
	if away(err) {
		fail(wishes, err)
		return
	}
	i.carefully(ctx, wishes)
}

// carefully stores what is free and finds out about the rest. Where even that fails, one of the wishes is to blame, and
// each is tried alone.
func (i *Intake) carefully(ctx context.Context, wishes []*wish) {
	orders := make([]*order.Order, len(wishes))
	for n, w := range wishes {
		orders[n] = w.Order
	}
	var stored map[string]bool
	var taken []postgres.Taken
	err := postgres.Patiently(ctx, func(ctx context.Context) (err error) {
		stored, taken, err = i.creator.CreateFree(ctx, orders)
		return err
	})
	if err != nil {
		if away(err) || len(wishes) == 1 {
			i.log.Warn("orders not stored", zap.Int("orders", len(wishes)), zap.Error(err))
			fail(wishes, err)
			return
		}
		for n := range wishes {
			i.carefully(ctx, wishes[n:n+1])
		}
		return
	}
	for _, w := range wishes {
		if stored[w.ID] {
			i.accepted(w.Order)
			w.answer <- answer{order: w.Order}
			continue
		}
		a := answer{replayed: true}
		a.order, a.err = settle(w.Order, taken)
		w.answer <- a
	}
}

// settle decides about an order whose id or key is taken. The key counts first: it names the request. Without a match, the
// same order from the same caller is the stored one, under whatever key; anything else is told that the id is taken, and no more.
func settle(o *order.Order, taken []postgres.Taken) (*order.Order, error) {
	var other bool
	for _, t := range taken {
		mine := t.Tenant == o.Tenant && t.Customer == o.Customer
		same := mine && t.Fingerprint == o.Fingerprint
		switch {
		case mine && o.Key != "" && t.Key == o.Key:
			if same {
				return t.Order, nil
			}
			return nil, problem.New(http.StatusUnprocessableEntity, "idempotency-key-reused", "this Idempotency-Key belongs to another request")
		case t.ID == o.ID && same:
			return t.Order, nil
		case t.ID == o.ID:
			other = true
		}
	}
	if !other { // the one that took it was rolled back in between
		return nil, problem.Unavailable()
	}
	return nil, problem.New(http.StatusConflict, "order-exists", "there is an order with this id")
}

// away says that the error is about the database, not about an order.
func away(err error) bool {
	return pg.Retryable(err) || errors.Is(err, problem.Unavailable())
}

func fail(wishes []*wish, err error) {
	for _, w := range wishes {
		w.answer <- answer{err: err}
	}
}
