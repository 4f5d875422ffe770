// Package httpapi is what the gateway serves: its own endpoints, and the way to those of the services.
package httpapi

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/gateway/internal/address"
	"github.com/waybill-dev/waybill/services/gateway/internal/login"
	"github.com/waybill-dev/waybill/services/gateway/internal/proxy"
	"github.com/waybill-dev/waybill/services/gateway/internal/ratelimit"
	"github.com/waybill-dev/waybill/services/gateway/internal/route"
)

// protected is the limit of GET /protected: 2 a second, 10 at once.
var protected = ratelimit.PerSecond("protected", 2, 10)

// maxAnonymous is what one address may ask for without a token (logins, keys, webhooks), a second. The sandbox sends one webhook a charge,
// so it must not be small.
const maxAnonymous = 2000

// Options is what the routes need.
type Options struct {
	Login     *login.Login
	Verifier  *auth.Verifier
	Proxy     *proxy.Proxy
	Limiter   *ratelimit.Limiter
	Addresses address.Book
	Rate      int // requests per second and principal; 0: unlimited
	Registry  *prometheus.Registry
	Metrics   *address.Book // who may read /metrics; nil: everybody
	Document  http.Handler  // GET /openapi.json
	Ready     func(*http.Request) error
}

// Routes is the gateway's router.
func Routes(o Options) (*chi.Mux, error) {
	r := chi.NewRouter()
	r.NotFound(problem.NotFound)
	r.MethodNotAllowed(problem.MethodNotAllowed)

	r.Get("/health", o.health)
	r.Get("/health/ready", o.health)
	r.Get("/health/live", func(w http.ResponseWriter, _ *http.Request) { writeStatus(w, http.StatusOK, "ok") })
	r.With(o.mayReadMetrics).Method(http.MethodGet, "/metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{}))
	r.Method(http.MethodGet, "/openapi.json", o.Document)

	perAddress := o.limit(maxAnonymous, "anonymous", func(r *http.Request) string { return address.Key(o.Addresses.Client(r)) })
	perUser := o.limit(o.Rate, "default", principal)

	r.Group(func(r chi.Router) { // no token
		r.Use(perAddress)
		r.Get("/.well-known/jwks.json", problem.Handler(o.Login.JWKS))
		r.Post("/auth/login", problem.Handler(o.Login.Login))
		r.Post("/auth/refresh", problem.Handler(o.Login.Refresh))
	})
	r.Group(func(r chi.Router) {
		r.Use(o.Verifier.Middleware)
		r.With(perUser).Post("/auth/logout", problem.Handler(o.Login.Logout))
		r.With(o.Limiter.Middleware(protected, true, principal)).Get("/protected", whoAmI)
	})
	for _, path := range route.Internal {
		r.HandleFunc(path, problem.NotFound)
	}
	for _, to := range append(route.Interventions(), route.Table...) {
		h, err := o.Proxy.Handler(to)
		if err != nil {
			return nil, err
		}
		switch to.Access {
		case route.Signed:
			r.With(perAddress).Handle(to.Pattern, h)
		default:
			r.With(o.Verifier.Middleware, perUser).Handle(to.Pattern, h)
		}
	}
	return r, nil
}

// limit is a budget of a second and another one at once.
func (o Options) limit(rate int, name string, key func(*http.Request) string) func(http.Handler) http.Handler {
	if rate <= 0 {
		return func(next http.Handler) http.Handler { return next }
	}
	return o.Limiter.Middleware(ratelimit.PerSecond(name, rate, 2*rate), false, key)
}

// principal is who is limited: the user, over all of their tokens.
func principal(r *http.Request) string {
	p := auth.From(r.Context())
	return strconv.FormatInt(p.Tenant, 10) + "/" + p.Subject
}

func whoAmI(w http.ResponseWriter, r *http.Request) {
	p := auth.From(r.Context())
	body := struct {
		Subject string   `json:"subject"`
		Tenant  int64    `json:"tenant"`
		Roles   []string `json:"roles"`
	}{p.Subject, p.Tenant, p.Roles}
	if err := problem.JSON(w, http.StatusOK, body); err != nil {
		problem.Write(w, r, err)
	}
}

// health says whether requests are welcome, and nothing more: it is open to everybody.
func (o Options) health(w http.ResponseWriter, r *http.Request) {
	if err := o.Ready(r); err != nil {
		problem.Write(w, r, problem.Unavailable().Because(err))
		return
	}
	writeStatus(w, http.StatusOK, "ok")
}

func writeStatus(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"status":%q}`+"\n", text)
}

// mayReadMetrics keeps production's metrics among the networks that are allowed to read them. The peer counts, not what it forwards.
func (o Options) mayReadMetrics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o.Metrics != nil && !(allowed(*o.Metrics, address.Peer(r)) && r.Header.Get("X-Forwarded-For") == "") {
			problem.NotFound(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func allowed(b address.Book, a netip.Addr) bool { return a.IsValid() && b.Contains(a) }
