package saga

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/order/internal/order"
	"github.com/waybill-dev/waybill/services/order/internal/postgres"
)

// Decision is a fact that somebody asks for over HTTP, perhaps under an idempotency key. The answer is kept with its effect.
type Decision struct {
	Fact
	Key    *inbox.Request
	Render func(Result) (inbox.Response, error) // an error leaves everything as it was
}

// Decide applies a decision, or finds what was answered to its key before. While the database is away it tries for 2 s.
func (s *Saga) Decide(ctx context.Context, d Decision) (answer inbox.Response, replayed bool, err error) {
	err = postgres.Patiently(ctx, func(ctx context.Context) error {
		return again(func() error {
			return pg.Do(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
				var kept *inbox.Responses
				if d.Key != nil {
					kept = inbox.FindResponses(u, []inbox.Request{*d.Key})
					if err := u.Fetch(ctx); err != nil {
						return err
					}
					var err error
					if answer, replayed, err = kept.Get(*d.Key); replayed || err != nil {
						return err
					}
				}
				results, err := s.apply(ctx, u, []Fact{d.Fact})
				if err != nil {
					return err
				}
				if answer, err = d.Render(results[0]); err != nil {
					if d.Key == nil {
						return err
					}
					// The same request may have been decided while this one waited for the order's lock.
					kept = inbox.FindResponses(u, []inbox.Request{*d.Key})
					if failed := u.Fetch(ctx); failed != nil {
						return failed
					}
					var reused error
					if answer, replayed, reused = kept.Get(*d.Key); replayed || reused != nil {
						return reused
					}
					return err
				}
				if d.Key != nil {
					inbox.StoreResponses(u, []inbox.Request{*d.Key}, []inbox.Response{answer})
				}
				return nil
			})
		})
	})
	return answer, replayed, err
}

// again runs f a second time where a concurrent request with the same key was faster: then its answer is there.
func again(f func() error) error {
	err := f()
	if _, lost := pg.UniqueViolation(err); lost {
		return f()
	}
	return err
}

// RefundAgain is the redrive of a refund ticket: the next attempt, as if an operator had asked for it.
func (s *Saga) RefundAgain(ctx context.Context, u *pg.Unit, _ uuid.UUID, orderID string) error {
	results, err := s.apply(ctx, u, []Fact{{OrderID: orderID, Fact: order.Fact{Event: order.PersonRefund}, Redriven: true,
		Allow: func(o *order.Order) error {
			if ticketOf(o) != TicketRefund {
				return errors.New("the order waits for no refund")
			}
			return nil
		}}})
	if err != nil {
		return err
	}
	return inbox.Permanent(results[0].Err)
}
