package saga

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/order/internal/order"
	"github.com/waybill-dev/waybill/services/order/internal/postgres"
)

// Create stores new orders with their order.created in one round trip. An order without items has its payment requested in
// the same transaction. Where an id or a key is taken, all of it fails with 23505 (see CreateFree).
func (s *Saga) Create(ctx context.Context, orders []*order.Order) error {
	return pg.Do(ctx, s.pool, func(_ context.Context, u *pg.Unit) error {
		t, fresh, err := s.begin(orders)
		if err != nil {
			return err
		}
		postgres.Insert(u, fresh)
		t.finish(u, fresh)
		return nil
	})
}

// CreateFree is Create for orders some of whose ids or keys may be taken. Those are left out, and whatever has taken them
// is returned.
func (s *Saga) CreateFree(ctx context.Context, orders []*order.Order) (stored map[string]bool, taken []postgres.Taken, err error) {
	err = pg.Do(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		t, fresh, err := s.begin(orders)
		if err != nil {
			return err
		}
		stored, taken = postgres.InsertFree(u, fresh), nil
		if err := u.Flush(ctx); err != nil {
			return fmt.Errorf("insert orders: %w", err)
		}
		if len(stored) < len(fresh) {
			found := postgres.FindTaken(u, slices.DeleteFunc(slices.Clone(fresh), func(o *order.Order) bool { return stored[o.ID] }))
			if err := u.Fetch(ctx); err != nil {
				return fmt.Errorf("find what has the id: %w", err)
			}
			taken = *found
		}
		fresh = slices.DeleteFunc(fresh, func(o *order.Order) bool { return !stored[o.ID] })
		t.lines = slices.DeleteFunc(t.lines, func(l postgres.Line) bool { return !stored[l.OrderID] })
		t.events = slices.DeleteFunc(t.events, func(e event.Event) bool { return !stored[e.Subject] })
		if len(fresh) > 0 {
			t.finish(u, fresh)
		}
		return nil
	})
	return stored, taken, err
}

// begin takes copies of the orders to where their creation leaves them: the unit may run twice.
func (s *Saga) begin(orders []*order.Order) (*step, []*order.Order, error) {
	s.metrics.batch.WithLabelValues("create").Observe(float64(len(orders)))
	fresh := make([]*order.Order, len(orders))
	t := newStep(s, make(map[string]*order.Order, len(orders)))
	for i, o := range orders {
		c := *o
		c.Deadline = c.CreatedAt.Add(s.deadline)
		fresh[i] = &c
	}
	// Two replicas that store the same ids do not wait for each other in a circle.
	slices.SortFunc(fresh, func(a, b *order.Order) int { return strings.Compare(a.ID, b.ID) })
	for _, o := range fresh {
		t.orders[o.ID] = o
		t.now = o.CreatedAt
		born := Fact{OrderID: o.ID, Line: string(event.OrderCreated)}
		t.line(o, &born)
		t.send(o, &born, order.Change{Sends: []event.Type{event.OrderCreated}})
		if len(o.Items) == 0 {
			if _, err := t.take(&Fact{Fact: order.Fact{Event: order.ChargeOnly}, OrderID: o.ID}); err != nil {
				return nil, nil, err
			}
		}
	}
	clear(t.before) // what has changed is in the inserted row
	return t, fresh, nil
}

// finish queues what goes with inserted orders.
func (t *step) finish(u *pg.Unit, fresh []*order.Order) {
	due := make([]time.Time, len(fresh))
	for i, o := range fresh {
		due[i] = o.CreatedAt.Add(t.s.askAfter)
		t.before[o.ID] = postgres.Changed{Order: o} // counted, not saved
	}
	lines, events := t.lines, t.events
	postgres.Watch(u, fresh, due)
	postgres.Append(u, lines)
	t.s.out.Add(u, events...)
	u.AfterCommit(func() { t.s.metrics.count(t) })
}
