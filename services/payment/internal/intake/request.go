package intake

import (
	"context"
	"errors"
	"net/http"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/payment/internal/payment"
)

// Request asks for a payment over HTTP.
type Request struct {
	Principal   auth.Principal
	Key         inbox.Request
	KeyGiven    bool // by the caller; otherwise the order id stands in
	OrderID     string
	Amount      string // decimal in major units
	Currency    string // empty: the order's
	Method      string
	Traceparent string
	// Render makes the answer of an accepted request.
	Render func(p payment.Payment) (inbox.Response, error)

	response inbox.Response
	replayed bool
	err      error
}

// Pay takes a request in and returns its answer; replayed says that it was given before.
func (i *Intake) Pay(ctx context.Context, r *Request) (answer inbox.Response, replayed bool, err error) {
	if err := i.requests.Do(ctx, r); err != nil {
		return inbox.Response{}, false, err
	}
	return r.response, r.replayed, r.err
}

// pay takes concurrent requests in, in one transaction.
func (i *Intake) pay(ctx context.Context, requests []*Request) error {
	ids := make([]string, len(requests))
	keys := make([]inbox.Request, len(requests))
	for n, r := range requests {
		ids[n], keys[n] = r.OrderID, r.Key
	}
	run := func(ctx context.Context, u *pg.Unit) error {
		stored := inbox.FindResponses(u, keys)
		all, err := i.store.Load(ctx, u, ids, true)
		if err != nil {
			return err
		}
		type slot struct{ caller, route, key string }
		fresh := map[slot]*Request{} // the same key twice in one batch is the same request twice
		var newKeys []inbox.Request
		var newResponses []inbox.Response
		for _, r := range requests {
			r.response, r.replayed, r.err = inbox.Response{}, false, nil
			at := slot{r.Key.Caller, r.Key.Route, r.Key.Key}
			a := all[r.OrderID]
			amount, err := r.check(a)
			if err != nil && (!r.KeyGiven || errors.Is(err, problem.ErrNotFound())) {
				r.err = err
				continue
			}
			if first := fresh[at]; first != nil && first.err == nil {
				if first.Key.Fingerprint != r.Key.Fingerprint {
					r.err = problem.New(http.StatusUnprocessableEntity, "idempotency-key-reused", "this key came with another request before")
				}
				r.response, r.replayed = first.response, true
				continue
			}
			response, found, keyErr := stored.Get(r.Key)
			switch {
			case keyErr != nil:
				r.err = keyErr
			case found:
				r.response, r.replayed = response, true
			case err != nil:
				r.err = err
			default:
				r.err = asProblem(a.Requested(payment.Request{Amount: amount, Method: r.Method, Traceparent: r.Traceparent}))
				if r.err == nil {
					r.response, r.err = r.Render(*a.Payment)
				}
				if r.err == nil {
					fresh[at] = r
					newKeys, newResponses = append(newKeys, r.Key), append(newResponses, r.response)
				}
			}
		}
		inbox.StoreResponses(u, newKeys, newResponses) // before the effect: a duplicate elsewhere waits here
		work := i.store.Save(u, all, i.queue.Room())
		u.AfterCommit(func() { i.queue.Take(work) })
		return nil
	}
	err := pg.Do(ctx, i.store.Pool(), run)
	if _, lost := pg.UniqueViolation(err); lost { // against another replica: now what it wrote can be seen
		err = pg.Do(ctx, i.store.Pool(), run)
	}
	return err
}

// check compares the request with the order.
func (r *Request) check(a *payment.Account) (amount int64, err error) {
	o := a.Order
	if o == nil || !Visible(r.Principal, o.Tenant, o.Customer) {
		return 0, problem.ErrNotFound()
	}
	amount, err = payment.ParseAmount(r.Amount, o.Currency)
	if err != nil {
		return 0, problem.New(http.StatusUnprocessableEntity, "invalid-field", "the request has an invalid member").
			Field("/amount", "must be above 0 and have at most the currency's decimal places")
	}
	if amount != o.Amount || (r.Currency != "" && r.Currency != o.Currency) {
		return 0, asProblem(payment.ErrAmountMismatch)
	}
	return amount, nil
}

func asProblem(err error) error {
	switch {
	case errors.Is(err, payment.ErrNoOrder):
		return problem.ErrNotFound()
	case errors.Is(err, payment.ErrOrderClosed):
		return problem.New(http.StatusConflict, "order-closed", "the order has failed or was cancelled")
	case errors.Is(err, payment.ErrAmountMismatch):
		return problem.New(http.StatusUnprocessableEntity, "amount-mismatch", "amount and currency must be the order's").
			Field("/amount", "differs from the order's")
	}
	return err
}

// Visible says whether the caller may see the payment of an order: customers their own, merchants their tenant's, operators
// and admins all. The order service sees all, because it has checked its own caller.
func Visible(p auth.Principal, tenant int64, customer string) bool {
	switch {
	case p.Service != "":
		return p.Service == "order"
	case p.Has("operator", "admin"):
		return true
	case p.Tenant != tenant:
		return false
	case p.Has("merchant"):
		return true
	}
	return p.Has("customer") && customer != "" && customer == p.Subject
}
