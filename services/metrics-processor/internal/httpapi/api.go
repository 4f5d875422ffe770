// Package httpapi is the HTTP interface of the metrics processor. openapi.yaml describes it.
package httpapi

import (
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/exposition"
)

// Options are what the interface stands on.
type Options struct {
	Aggregator   *aggregate.Aggregator
	Authenticate func(http.Handler) http.Handler
	Draining     <-chan struct{} // closed when streams must end
	OpenAPI      []byte
	Sources      []*Source
}

type api struct {
	a        *aggregate.Aggregator
	draining <-chan struct{}
}

// New makes the handler. GET /metrics is open: it holds aggregates over all tenants and no more, for Prometheus on the same
// network. Questions are for operators and admins; each source has a token of its own.
func New(o Options) http.Handler {
	h := &api{o.Aggregator, o.Draining}
	r := chi.NewRouter()
	r.NotFound(problem.NotFound)
	r.MethodNotAllowed(problem.MethodNotAllowed)
	r.Get("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_ = exposition.Write(w, o.Aggregator)
	})
	r.Get("/openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(o.OpenAPI)
	})
	only := auth.RequireRole("operator", "admin")
	ask := r.With(o.Authenticate, only)
	// Every consumer is asked what waits for a person. Here nothing ever does: what cannot be read is counted and done with.
	ask.Get("/interventions", problem.Handler(func(w http.ResponseWriter, r *http.Request) error {
		if err := problem.Query(r, "kind", "type", "subject", "error", "opened_before", "status", "limit", "cursor"); err != nil {
			return err
		}
		return problem.JSON(w, http.StatusOK, map[string]any{"items": []struct{}{}})
	}))
	ask.Get("/query", problem.Handler(h.query))
	ask.Get("/stream", problem.Handler(h.stream))
	ask.Get("/ledger", problem.Handler(func(w http.ResponseWriter, r *http.Request) error {
		return problem.JSON(w, http.StatusOK, map[string]any{"sources": o.Aggregator.Ledger(), "health": o.Aggregator.Health()})
	}))
	in := newIntake(o.Aggregator)
	for _, s := range o.Sources {
		r.With(s.admit(o.Authenticate, only)).Post(s.Path, problem.Handler(in.handler(s)))
	}
	return r
}

// now is the clock of questions.
func now() time.Time { return time.Now() }
