package httpapi

import (
	"fmt"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-json-experiment/json"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/shipping/internal/postgres"
	"github.com/waybill-dev/waybill/services/shipping/internal/shipment"
)

// attemptBody is one attempt to bring the order.
type attemptBody struct {
	Attempt     int32           `json:"attempt"`
	Status      shipment.Status `json:"status"`
	Reason      string          `json:"reason"`
	Tracking    string          `json:"tracking"`
	RequestedAt string          `json:"requested_at"`
	UpdatedAt   string          `json:"updated_at"`
}

// shipmentBody shows the last attempt, and all of them.
type shipmentBody struct {
	OrderID  string           `json:"order_id"`
	Status   shipment.Status  `json:"status"`
	Reason   string           `json:"reason"`
	Attempt  int32            `json:"attempt"`
	Tracking string           `json:"tracking"`
	Address  shipment.Address `json:"address"`
	Items    []shipment.Item  `json:"items"`
	Attempts []attemptBody    `json:"attempts"`
}

const millis = "2006-01-02T15:04:05.000Z"

func show(id string, o *postgres.Order) shipmentBody {
	last := o.Shipments[len(o.Shipments)-1]
	b := shipmentBody{
		OrderID: id, Status: last.Status, Reason: last.Reason, Attempt: last.Attempt, Tracking: last.Tracking,
		Address: last.Address, Items: last.Items,
	}
	for _, s := range o.Shipments {
		b.Attempts = append(b.Attempts, attemptBody{
			Attempt: s.Attempt, Status: s.Status, Reason: s.Reason, Tracking: s.Tracking,
			RequestedAt: stamp(s.RequestedAt), UpdatedAt: stamp(s.UpdatedAt),
		})
	}
	return b
}

func stamp(t time.Time) string { return t.UTC().Format(millis) }

// sees says whether the caller may know of the order: customers of their own, merchants of their tenant's, operators and
// admins of all.
func sees(p auth.Principal, o *postgres.Order) bool {
	switch {
	case p.Has("operator", "admin"):
		return true
	case p.Has("merchant") && p.Tenant == o.Tenant:
		return true
	case p.Has("customer"):
		return p.Tenant == o.Tenant && p.Subject == o.Customer && o.Customer != ""
	}
	return false
}

func (a *api) find(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	id := chi.URLParam(r, "order_id")
	if !shipment.ValidID(id) {
		return problem.New(http.StatusBadRequest, "invalid-field", "no order can have this id").Field("order_id", "1 to 64 of A-Z a-z 0-9 . _ -")
	}
	o, err := a.Store.Find(r.Context(), id)
	switch {
	case err != nil:
		return err
	case o == nil || len(o.Shipments) == 0 || !sees(auth.From(r.Context()), o):
		return problem.ErrNotFound()
	}
	return problem.JSON(w, http.StatusOK, show(id, o))
}

// requestBody asks for the shipment of an order.
type requestBody struct {
	OrderID string           `json:"order_id"`
	Address shipment.Address `json:"address"`
	Items   []shipment.Item  `json:"items"`
}

func (b requestBody) check() error {
	p := problem.New(http.StatusUnprocessableEntity, "invalid-field", "the shipment cannot be requested like this")
	if !shipment.ValidID(b.OrderID) {
		p = p.Field("/order_id", "1 to 64 of letters, digits, dot, underscore, hyphen")
	}
	for _, e := range append(b.Address.Check(), shipment.CheckItems(b.Items)...) {
		p = p.Field(e.Pointer, e.Detail)
	}
	if len(p.Errors) > 0 {
		return p
	}
	return nil
}

// request asks for what order.payment_processed has asked for already: the order's shipment. That event marks the order paid
// and makes the shipment in one transaction, so a caller that comes before it gets 409, one that comes after it is the second
// caller and gets the first one's outcome.
func (a *api) request(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	in, err := problem.Decode[requestBody](w, r)
	if err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	key, err := inbox.KeyFrom(r, in.OrderID)
	if err != nil {
		return err
	}
	in.Items = shipment.Sum(in.Items) // two ways to write the same items are one request
	p := auth.From(r.Context())
	req := inbox.Request{
		Caller: fmt.Sprintf("%d/%s", p.Tenant, p.Subject), Route: "POST /shipping", Key: key,
		Fingerprint: inbox.Fingerprint(http.MethodPost, "/shipping", p.Subject, in),
	}
	out, replayed, err := a.Store.Answer(r.Context(), req, in.OrderID, func(o *postgres.Order) (inbox.Response, error) {
		return decide(p, in, o)
	})
	if err != nil {
		return err
	}
	return out.Write(w, replayed)
}

func decide(p auth.Principal, in requestBody, o *postgres.Order) (inbox.Response, error) {
	switch {
	case o != nil && !sees(p, o):
		return inbox.Response{}, problem.ErrNotFound()
	case o == nil || !o.Paid:
		return inbox.Response{}, problem.New(http.StatusConflict, "order-not-paid", "the order is not known to be paid").After(time.Second)
	case len(o.Shipments) == 0 || !shipment.SameItems(in.Items, o.Shipments[0].Items):
		return inbox.Response{}, problem.New(http.StatusUnprocessableEntity, "invalid-field", "the order has other items").
			Field("/items", "must be those of the order")
	}
	body, err := json.Marshal(show(in.OrderID, o))
	if err != nil {
		return inbox.Response{}, err
	}
	return inbox.Response{
		Status: http.StatusAccepted, ContentType: "application/json", Location: "/shipping/" + in.OrderID, Body: append(body, '\n'),
	}, nil
}
