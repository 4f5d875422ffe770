// Package httpapi is the HTTP interface of the order service. openapi.yaml describes it, and the tests hold both together.
package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/order/internal/live"
	"github.com/waybill-dev/waybill/services/order/internal/order"
	"github.com/waybill-dev/waybill/services/order/internal/postgres"
	"github.com/waybill-dev/waybill/services/order/internal/saga"
)

// Intake stores new orders.
type Intake interface {
	Submit(ctx context.Context, o *order.Order) (stored *order.Order, replayed bool, err error)
}

// Decider applies what somebody wants of an order.
type Decider interface {
	Decide(ctx context.Context, d saga.Decision) (answer inbox.Response, replayed bool, err error)
}

// Payments asks the payment service.
type Payments interface {
	Status(ctx context.Context, orderID string) (json.RawMessage, error)
}

// Options are the parts behind the interface.
type Options struct {
	Intake        Intake
	Saga          Decider
	Store         postgres.Store
	Hub           *live.Hub
	Payments      Payments
	Interventions http.Handler
	Authenticate  func(http.Handler) http.Handler
	OpenAPI       []byte
	Draining      <-chan struct{} // closed when streams must end
	Now           func() time.Time
}

type api struct{ Options }

// users may use the interface at all; which orders they see is decided per order.
var users = []string{"customer", "merchant", "operator", "admin"}

// New makes the handler.
func New(o Options) http.Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &api{o}
	r := chi.NewRouter()
	r.NotFound(problem.NotFound)
	r.MethodNotAllowed(problem.MethodNotAllowed)
	r.Get("/openapi.yaml", a.document)
	r.Group(func(r chi.Router) {
		r.Use(o.Authenticate)
		// Another service may look at one order: inventory asks whether a pinned reservation is still wanted.
		r.With(auth.Require(func(p auth.Principal) bool { return p.Service != "" || p.Has(users...) })).
			Get("/orders/{order_id}", problem.Handler(a.get))
		r.Group(func(r chi.Router) {
			r.Use(auth.RequireRole(users...))
			r.Post("/orders", problem.Handler(a.create))
			r.Get("/orders", problem.Handler(a.list))
			r.Get("/orders/{order_id}/events", problem.Handler(a.stream))
			r.Post("/orders/{order_id}/cancel", problem.Handler(a.cancel))
			r.Get("/payment/{order_id}", problem.Handler(a.payment))
		})
		r.With(auth.RequireRole("operator", "admin")).Post("/orders/{order_id}/resolve", problem.Handler(a.resolve))
		if o.Interventions != nil {
			r.Mount("/interventions", o.Interventions)
		}
	})
	return r
}

func init() { problem.Classify(classify) }

// classify finds the problem in errors that come from below.
func classify(err error) *problem.Problem {
	var invalid *order.Invalid
	switch {
	case errors.As(err, &invalid):
		p := problem.New(http.StatusUnprocessableEntity, invalid.Slug, "the request was understood and cannot be accepted")
		for _, f := range invalid.Fields {
			p.Field(f.Pointer, f.Detail)
		}
		return p
	case errors.Is(err, postgres.ErrNotFound):
		return problem.ErrNotFound()
	case errors.Is(err, context.Canceled):
		return problem.Unavailable()
	}
	return nil
}

func (a *api) document(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	w.Header().Set("Cache-Control", "max-age=300")
	_, _ = w.Write(a.OpenAPI)
}

// viewer is whose eyes the request sees with.
func viewer(p auth.Principal) postgres.Viewer {
	switch {
	case p.Service != "" || p.Has("operator", "admin"):
		return postgres.Viewer{All: true}
	case p.Has("merchant"):
		return postgres.Viewer{Tenant: p.Tenant}
	}
	return postgres.Viewer{Tenant: p.Tenant, Customer: p.Subject}
}

// orderID reads the id out of the path. One that cannot be an order's is a mistake of the caller, not a missing order.
func orderID(r *http.Request) (string, error) {
	id := chi.URLParam(r, "order_id")
	if !order.ValidID(id) {
		return "", problem.New(http.StatusBadRequest, "invalid-field", "no order can have this id").Field("order_id", "1 to 64 of A-Z a-z 0-9 . _ -")
	}
	return id, nil
}

// noBody accepts a request without a body, or with an empty object.
func noBody(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength == 0 {
		return nil
	}
	_, err := problem.Decode[struct{}](w, r)
	return err
}
