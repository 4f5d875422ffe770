package httpapi

import (
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/failpoint"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/order/internal/order"
)

type createBody struct {
	OrderID  string        `json:"order_id"`
	Amount   order.Decimal `json:"amount"`
	Currency string        `json:"currency"`
	Method   string        `json:"payment_method"`
	Email    string        `json:"email"`
	Items    []item        `json:"items"`
	Address  *address      `json:"address"`
}

func (b *createBody) request() order.Request {
	r := order.Request{OrderID: b.OrderID, Amount: b.Amount, Currency: b.Currency, Method: b.Method, Email: b.Email,
		Items: make([]order.Item, len(b.Items))}
	for i, it := range b.Items {
		r.Items[i] = order.Item(it)
	}
	if b.Address != nil {
		a := order.Address(*b.Address)
		r.Address = &a
	}
	return r
}

// create accepts an order: 202 as soon as it is stored with its order.created. Everything else follows.
func (a *api) create(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	body, err := problem.Decode[createBody](w, r)
	if err != nil {
		return err
	}
	key, err := inbox.KeyFrom(r, body.OrderID)
	if err != nil {
		return err
	}
	request := body.request()
	o, err := request.Check()
	if err != nil {
		return err
	}
	p := auth.From(r.Context())
	o.Tenant, o.Customer = p.Tenant, p.Subject
	// PostgreSQL keeps microseconds; the first answer must not know more than the replayed one.
	o.CreatedAt = a.Now().UTC().Truncate(time.Microsecond)
	o.Traceparent = event.Traceparent(r.Context())
	if len(r.Header.Values("Idempotency-Key")) > 0 {
		o.Key = key // otherwise the id stands in for it, and the row is the record
	}
	if o.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		o.ID = id.String()
	}
	stored, replayed, err := a.Intake.Submit(r.Context(), o)
	if err != nil {
		return err
	}
	if err := failpoint.Hit("order.before_202"); err != nil {
		return err
	}
	if replayed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	w.Header().Set("Location", "/orders/"+stored.ID)
	return problem.JSON(w, http.StatusAccepted, accepted(stored))
}
