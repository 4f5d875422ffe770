// Package httpapi is the shipping service's HTTP interface; openapi.yaml describes it.
package httpapi

import (
	"context"
	"fmt"
	"net/http"

	"github.com/go-chi/chi/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/shipping/internal/postgres"
	"github.com/waybill-dev/waybill/services/shipping/internal/shipment"
)

// Store is what the routes read.
type Store interface {
	Find(ctx context.Context, id string) (*postgres.Order, error)
	Answer(ctx context.Context, r inbox.Request, id string, decide func(*postgres.Order) (inbox.Response, error)) (inbox.Response, bool, error)
}

// Intake takes the carrier's reports.
type Intake interface {
	Apply(ctx context.Context, c shipment.Change) (known bool, err error)
}

// Options are the parts behind the routes.
type Options struct {
	Store         Store
	Intake        Intake
	Auth          func(http.Handler) http.Handler
	Secret        string // of the carrier's webhooks
	Interventions http.Handler
	Document      []byte // openapi.yaml
}

type api struct {
	Options
	verify *standardwebhooks.Webhook
}

// New makes the routes.
func New(o Options) (http.Handler, error) {
	verify, err := standardwebhooks.NewWebhook(o.Secret)
	if err != nil {
		return nil, fmt.Errorf("read the carrier's webhook secret: %w", err)
	}
	a := &api{o, verify}
	r := chi.NewRouter()
	r.NotFound(problem.NotFound)
	r.MethodNotAllowed(problem.MethodNotAllowed)
	r.Get("/openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(o.Document)
	})
	r.Post("/webhooks/shipping", problem.Handler(a.webhook)) // signed, so without a token
	r.Group(func(r chi.Router) {
		r.Use(o.Auth)
		r.With(auth.RequireRole("merchant", "operator", "admin")).Post("/shipping", problem.Handler(a.request))
		r.Get("/shipping/{order_id}", problem.Handler(a.find))
		r.Mount("/interventions", o.Interventions)
	})
	return r, nil
}
