// Package httpapi is the HTTP interface of the metrics processor. openapi.yaml describes it.
package httpapi

import (
	"net/http"
	"slices"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/count"
)

// New makes the handler. GET /metrics is open: it holds counts over all tenants and no more, for Prometheus on the same
// network. Questions are for operators and admins.
func New(c *count.Counter, authenticate func(http.Handler) http.Handler, openAPI []byte) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	r := chi.NewRouter()
	r.NotFound(problem.NotFound)
	r.MethodNotAllowed(problem.MethodNotAllowed)
	r.Method(http.MethodGet, "/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	r.Get("/openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(openAPI)
	})
	ask := r.With(authenticate, auth.RequireRole("operator", "admin"))
	// Every consumer is asked what waits for a person. Here nothing ever does: what cannot be read is counted and done with.
	ask.Get("/interventions", problem.Handler(func(w http.ResponseWriter, r *http.Request) error {
		if err := problem.Query(r, "kind", "status", "limit", "cursor"); err != nil {
			return err
		}
		return problem.JSON(w, http.StatusOK, map[string]any{"items": []struct{}{}})
	}))
	ask.Get("/query", problem.Handler(func(w http.ResponseWriter, r *http.Request) error {
		if err := problem.Query(r, "type"); err != nil {
			return err
		}
		t := event.Type(r.URL.Query().Get("type"))
		if t != "" && t != count.Unreadable && !slices.Contains(event.Types(), t) {
			return problem.New(http.StatusBadRequest, "invalid-field", "unknown event type").Field("type", "is not in the catalogue")
		}
		return problem.JSON(w, http.StatusOK, map[string]any{"items": c.All(t)})
	}))
	return r
}
