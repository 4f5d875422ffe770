package postgres

import (
	"context"
	"fmt"

	"github.com/waybill-dev/waybill/libs/failpoint"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

// Ask is an order that wants its items set aside, perhaps under an idempotency key.
type Ask struct {
	stock.Ask
	Key    *inbox.Request                     // of requests that carry one, else nil
	Render func(stock.Answer) *inbox.Response // the response to keep under Key; nil: a refusal that is not kept
}

// Reply is what became of an Ask.
type Reply struct {
	stock.Answer
	Replayed *inbox.Response // what was answered to this key before, instead of an Answer
	Err      error           // the key belongs to another request
}

// Reserve decides all asks in one transaction, in their order, each for itself: those that cannot be served leave the
// others alone. Asking again for an order gives the same answer again.
func (s *Store) Reserve(ctx context.Context, asks []Ask) ([]Reply, error) {
	var replies []Reply
	err := again(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		replies = make([]Reply, len(asks))
		b := stock.NewBook(s.terms)
		var w wants
		var keys []inbox.Request
		for _, a := range asks {
			w.orders = append(w.orders, a.OrderID)
			for _, it := range a.Items {
				w.lines = append(w.lines, stock.Key{Tenant: a.Tenant, Product: it.Product})
			}
			if a.Key != nil {
				keys = append(keys, *a.Key)
			}
		}
		w.freed = w.orders // a hold that is taken over gives its own items back
		load(u, b, w)
		kept := findResponses(u, keys)
		if err := u.Fetch(ctx); err != nil {
			return fmt.Errorf("lock reservations and products: %w", err)
		}
		if err := failpoint.Hit("inv.after_lock"); err != nil {
			return err
		}
		for i, a := range asks {
			r := &replies[i]
			if a.Key != nil {
				if r.Replayed, r.Err = kept.get(*a.Key); r.Replayed != nil || r.Err != nil {
					continue
				}
			}
			r.Answer = b.Reserve(a.Ask)
			if a.Key != nil {
				kept.put(*a.Key, a.Render(r.Answer))
			}
		}
		kept.store(u)
		s.save(ctx, u, b)
		return nil
	})
	if err = failpoint.After(err, "inv.after_tx"); err != nil {
		return nil, fmt.Errorf("reserve %d orders: %w", len(asks), err)
	}
	s.count.asked(replies)
	return replies, nil
}

// Release frees a hold, or writes the tombstone that refuses a reservation yet to come. With anyTenant the hold may be
// another tenant's than the news says.
func (s *Store) Release(ctx context.Context, n stock.News, anyTenant bool, key *inbox.Request, render func(stock.Settlement) *inbox.Response) (stock.Settlement, *inbox.Response, error) {
	var out stock.Settlement
	var replayed *inbox.Response
	err := again(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		b := stock.NewBook(s.terms)
		var keys []inbox.Request
		if key != nil {
			keys = append(keys, *key)
		}
		orders := []string{n.OrderID}
		load(u, b, wants{orders: orders, freed: orders})
		kept := findResponses(u, keys)
		if err := u.Fetch(ctx); err != nil {
			return fmt.Errorf("lock reservation: %w", err)
		}
		if key != nil {
			var err error
			if replayed, err = kept.get(*key); replayed != nil || err != nil {
				return err
			}
		}
		asked := n
		if r, ok := b.Reservation(n.OrderID); ok && anyTenant {
			asked.Tenant = r.Tenant
		}
		out = b.Settle(asked)
		if key != nil {
			kept.put(*key, render(out))
		}
		kept.store(u)
		s.save(ctx, u, b)
		return nil
	})
	if err != nil {
		return stock.Settlement{}, nil, fmt.Errorf("release reservation: %w", err)
	}
	if replayed == nil {
		s.count.settled([]stock.News{n}, []stock.Settlement{out})
	}
	return out, replayed, nil
}

// responses are the stored answers to idempotency keys within one unit of work.
type responses struct {
	found *inbox.Responses
	fresh []inbox.Request
	out   []inbox.Response
}

func findResponses(u *pg.Unit, keys []inbox.Request) *responses {
	if len(keys) == 0 {
		return &responses{}
	}
	return &responses{found: inbox.FindResponses(u, keys)}
}

// get returns the response kept under the key, by an earlier transaction or earlier in this one.
func (r *responses) get(key inbox.Request) (*inbox.Response, error) {
	for i, k := range r.fresh {
		if k.Caller != key.Caller || k.Route != key.Route || k.Key != key.Key {
			continue
		}
		if k.Fingerprint != key.Fingerprint {
			return nil, problem.New(422, "idempotency-key-reused", "The idempotency key belongs to another request.")
		}
		return &r.out[i], nil
	}
	kept, found, err := r.found.Get(key)
	if err != nil || !found {
		return nil, err
	}
	return &kept, nil
}

func (r *responses) put(key inbox.Request, response *inbox.Response) {
	if response != nil {
		r.fresh, r.out = append(r.fresh, key), append(r.out, *response)
	}
}

func (r *responses) store(u *pg.Unit) {
	if len(r.fresh) > 0 {
		inbox.StoreResponses(u, r.fresh, r.out)
	}
}
