package httpapi

import (
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/order/internal/order"
	"github.com/waybill-dev/waybill/services/order/internal/saga"
)

// answer is the response to a decision: the order as it stands now.
func answer(status int, o *order.Order) (inbox.Response, error) {
	body, err := json.Marshal(summaryOf(o))
	return inbox.Response{Status: status, ContentType: "application/json", Location: "/orders/" + o.ID, Body: append(body, '\n')}, err
}

// respond writes what was decided, now or when the key was used first.
func respond(w http.ResponseWriter, a inbox.Response, replayed bool) error {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	return a.Write(w, replayed)
}

// key is the idempotency key of a decision, or nil: without one, the order's status is what makes a second one harmless.
func key(r *http.Request, route, id string, body any) (*inbox.Request, error) {
	if len(r.Header.Values("Idempotency-Key")) == 0 {
		return nil, nil
	}
	k, err := inbox.KeyFrom(r, "")
	if err != nil {
		return nil, err
	}
	p := auth.From(r.Context())
	return &inbox.Request{Caller: strconv.FormatInt(p.Tenant, 10) + "/" + p.Subject, Route: "POST " + route, Key: k,
		Fingerprint: inbox.Fingerprint(http.MethodPost, route, p.Subject, map[string]any{"order_id": id, "body": body})}, nil
}

// cancel undoes an order before it is paid: 200 once it is undone, 202 while a payment's outcome is awaited.
func (a *api) cancel(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	id, err := orderID(r)
	if err != nil {
		return err
	}
	if err := noBody(w, r); err != nil {
		return err
	}
	k, err := key(r, "/orders/{order_id}/cancel", id, nil)
	if err != nil {
		return err
	}
	v := viewer(auth.From(r.Context()))
	out, replayed, err := a.Saga.Decide(r.Context(), saga.Decision{
		Key: k,
		Fact: saga.Fact{
			OrderID: id, Fact: order.Fact{Event: order.Cancel}, Traceparent: event.Traceparent(r.Context()),
			Allow: func(o *order.Order) error {
				if !v.Sees(o) {
					return problem.ErrNotFound()
				}
				return nil
			},
		},
		Render: func(res saga.Result) (inbox.Response, error) {
			switch {
			case !res.Found:
				return inbox.Response{}, problem.ErrNotFound()
			case res.Err != nil:
				return inbox.Response{}, res.Err
			case res.Outcome == order.Moved && res.Order.Status == order.Cancelling:
				return answer(http.StatusAccepted, res.Order)
			case res.Order.Status == order.Cancelled, res.Order.Status == order.Cancelling:
				return answer(http.StatusOK, res.Order)
			}
			return inbox.Response{}, problem.New(http.StatusConflict, "not-cancellable", "the order is "+string(res.Order.Status))
		},
	})
	if err != nil {
		return err
	}
	return respond(w, out, replayed)
}

type resolveBody struct {
	Action  string      `json:"action"`
	Goods   order.Goods `json:"goods"`
	Reason  string      `json:"reason"`
	Address *address    `json:"address"`
}

// actions are what a person can do about an order with a ticket.
var actions = map[string]order.Event{"resend": order.PersonResend, "refund": order.PersonRefund, "write_off": order.PersonWriteOff}

// check says what is wrong with the body by itself.
func (b *resolveBody) check() error {
	p := problem.New(http.StatusUnprocessableEntity, "invalid-field", "the request was understood and cannot be accepted")
	if _, ok := actions[b.Action]; !ok {
		p.Field("/action", "resend, refund or write_off")
	}
	if b.Goods != order.GoodsUnknown && b.Goods != order.GoodsReturned && b.Goods != order.GoodsLost {
		p.Field("/goods", "returned or lost")
	}
	if b.Address != nil && b.Action != "resend" {
		p.Field("/address", "goes with resend only")
	}
	if len(p.Errors) > 0 {
		return p
	}
	if err := order.CheckNote(b.Reason); err != nil {
		return err
	}
	if b.Address != nil {
		a := order.Address(*b.Address)
		return order.CheckAddress(&a)
	}
	return nil
}

// allow says whether the decision fits the order, which is locked.
func (b *resolveBody) allow(o *order.Order) error {
	switch {
	case o.Status != order.Attention:
		return problem.New(http.StatusConflict, "not-resolvable", "the order is "+string(o.Status)+": no decision is awaited")
	case b.Action == "resend" && !o.Resendable(b.Goods):
		return problem.New(http.StatusConflict, "not-resendable", "a parcel is sent again only if it came back and no refund was asked for")
	case b.Goods == order.GoodsUnknown && o.NeedsGoods():
		return problem.New(http.StatusUnprocessableEntity, "invalid-field", "the goods had left").Field("/goods", "returned or lost")
	}
	return nil
}

// resolve takes a person's decision about an order that needs one.
func (a *api) resolve(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	id, err := orderID(r)
	if err != nil {
		return err
	}
	body, err := problem.Decode[resolveBody](w, r)
	if err != nil {
		return err
	}
	if err := body.check(); err != nil {
		return err
	}
	k, err := key(r, "/orders/{order_id}/resolve", id, body)
	if err != nil {
		return err
	}
	p := auth.From(r.Context())
	fact := saga.Fact{
		OrderID: id, Fact: order.Fact{Event: actions[body.Action], Goods: body.Goods}, Detail: string(body.Goods),
		Note: body.Action + " by " + p.Subject + ": " + body.Reason, Traceparent: event.Traceparent(r.Context()), Allow: body.allow,
	}
	if body.Address != nil {
		a := order.Address(*body.Address)
		fact.Address = &a
	}
	out, replayed, err := a.Saga.Decide(r.Context(), saga.Decision{Key: k, Fact: fact, Render: func(res saga.Result) (inbox.Response, error) {
		switch {
		case !res.Found:
			return inbox.Response{}, problem.ErrNotFound()
		case res.Err != nil:
			return inbox.Response{}, res.Err
		}
		return answer(http.StatusAccepted, res.Order)
	}})
	if err != nil {
		return err
	}
	return respond(w, out, replayed)
}
