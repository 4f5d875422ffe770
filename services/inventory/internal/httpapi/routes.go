package httpapi

import (
	"context"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

// Options are what the interface stands on.
type Options struct {
	Store         *postgres.Store
	Intake        reserver
	Interventions Interventions
	Authenticate  func(http.Handler) http.Handler // auth.Verifier's Middleware
	OpenAPI       []byte
}

// reserver decides reservations: the intake, or in tests one that fails.
type reserver interface {
	Reserve(ctx context.Context, asks []postgres.Ask) ([]postgres.Reply, error)
}

// Interventions is the inbox.
type Interventions interface {
	postgres.Interventions
	Routes() http.Handler
}

var _ Interventions = (*inbox.Inbox)(nil)

type api struct{ Options }

// New makes the handler.
func New(o Options) http.Handler {
	a := api{o}
	r := chi.NewRouter()
	r.NotFound(problem.NotFound)
	r.MethodNotAllowed(problem.MethodNotAllowed)
	r.Get("/openapi.yaml", a.document)
	r.Group(func(r chi.Router) {
		r.Use(o.Authenticate)
		r.Get("/products", problem.Handler(a.listProducts))
		r.Get("/products/{product_id}", problem.Handler(a.getProduct))
		r.Group(func(r chi.Router) {
			r.Use(auth.RequireRole("merchant", "operator", "admin"))
			r.Put("/products/{product_id}", problem.Handler(a.putProduct))
			r.Post("/inventory/reserve", problem.Handler(a.reserve))
			r.Post("/inventory/release", problem.Handler(a.release))
			r.Post("/inventory/restock", problem.Handler(a.restock))
			r.Post("/inventory/stocktakes", problem.Handler(a.takeStock))
			r.Get("/inventory/movements", problem.Handler(a.listMovements))
		})
		r.With(auth.RequireService("order")).Post("/inventory/reservations", problem.Handler(a.reserveBatch))
		r.Mount("/interventions", o.Interventions.Routes())
	})
	return r
}

func (a api) document(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(a.OpenAPI)
}

// tenantOf is whose stockroom a request is about: the caller's, or the one that an operator or admin names by ?tenant=.
func tenantOf(r *http.Request) (int64, error) {
	p := auth.From(r.Context())
	named := r.URL.Query().Get("tenant")
	if named == "" {
		return p.Tenant, nil
	}
	tenant, err := parseTenant(named)
	if err != nil {
		return 0, err
	}
	if tenant != p.Tenant && !p.Has("operator", "admin") {
		return 0, problem.ErrNotFound()
	}
	return tenant, nil
}

// productOf is the product that the path names.
func productOf(r *http.Request) (stock.Key, error) {
	tenant, err := tenantOf(r)
	if err != nil {
		return stock.Key{}, err
	}
	id := chi.URLParam(r, "product_id")
	if !validID(id) {
		return stock.Key{}, problem.New(http.StatusBadRequest, "invalid-field", "A product id is "+idRule).Field("product_id", idRule)
	}
	return stock.Key{Tenant: tenant, Product: id}, nil
}
