// Package httpapi is the sandbox's HTTP interface: what a payment provider and a carrier offer, and what a test wants to
// know and to break. openapi.yaml describes it.
package httpapi

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/carrier"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/fault"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/ledger"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/mailbox"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/provider"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/webhook"
)

// API is the parts that the routes need.
type API struct {
	Provider *provider.Provider
	Payments *webhook.Sender
	Carrier  *carrier.Carrier
	Shipping *webhook.Sender
	Ledger   *ledger.Ledger
	Mailbox  *mailbox.Mailbox
	Faults   *fault.Set
	Document []byte // openapi.yaml
}

// Routes is the whole interface.
func (a *API) Routes() http.Handler {
	r := chi.NewRouter()
	r.NotFound(problem.NotFound)
	r.MethodNotAllowed(problem.MethodNotAllowed)
	r.Post("/provider/charges", problem.Handler(a.charge))
	r.Get("/provider/charges/{key}", problem.Handler(a.findCharge))
	r.Post("/provider/charges/{key}/void", problem.Handler(a.void))
	r.Post("/provider/refunds", problem.Handler(a.refund))
	r.Get("/provider/refunds/{key}", problem.Handler(a.findRefund))
	r.Post("/carrier/shipments", problem.Handler(a.ship))
	r.Get("/carrier/shipments/{key}", problem.Handler(a.findShipment))
	r.Get("/ledger", problem.Handler(a.readLedger))
	r.Get("/mailbox", problem.Handler(a.readMailbox))
	r.Get("/faults", problem.Handler(a.listFaults))
	r.Put("/faults", problem.Handler(a.replaceFaults))
	r.Post("/faults", problem.Handler(a.addFault))
	r.Delete("/faults", problem.Handler(a.clearFaults))
	r.Delete("/faults/{id}", problem.Handler(a.deleteFault))
	r.Get("/health", problem.Handler(func(w http.ResponseWriter, _ *http.Request) error {
		return problem.JSON(w, http.StatusOK, map[string]string{"status": "ok"})
	}))
	r.Get("/openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(a.Document)
	})
	return r
}

// answer is what a call is told when nothing goes wrong on the way.
type answer struct {
	status int
	body   any
	manner provider.Manner
}

// serve runs effect under the fault rule and answers. lost is called where the effect happened and the caller did not
// get to know: then only the webhook, the poll and the same key tell.
func serve(w http.ResponseWriter, r *http.Request, f fault.Rule, effect func() (answer, error), lost func()) error {
	ctx := r.Context()
	if !f.AfterEffect {
		if err := spoil(r, f); err != nil {
			return err
		}
	}
	a, err := effect()
	if err != nil {
		return err
	}
	if f.AfterEffect {
		if err := spoil(r, f); err != nil {
			lost()
			return err
		}
	}
	if a.manner.Silent {
		fault.Hold(ctx)
		lost()
		return problem.New(http.StatusGatewayTimeout, "timeout", "the answer was kept back on purpose")
	}
	fault.Wait(ctx, a.manner.Delay)
	if ctx.Err() != nil {
		lost()
		return ctx.Err()
	}
	return problem.JSON(w, a.status, a.body)
}

// spoil delays, keeps silent or returns the answer that the rule asks for; nil goes on.
func spoil(r *http.Request, f fault.Rule) error {
	fault.Wait(r.Context(), f.Delay)
	if f.Timeout {
		fault.Hold(r.Context())
		return problem.New(http.StatusGatewayTimeout, "timeout", "the answer was kept back on purpose")
	}
	if f.Status != 0 {
		return problem.New(f.Status, "fault", "this answer was asked for")
	}
	return nil
}

// key reads the key in the path. Keys hold colons; chi gives the segment as it was sent.
func key(r *http.Request) (string, error) {
	k, err := url.PathUnescape(chi.URLParam(r, "key"))
	if err != nil || k == "" || len(k) > maxKey {
		return "", problem.New(http.StatusBadRequest, "bad-path", "the key is not readable")
	}
	return k, nil
}

// maxKey: an order id has 64 characters, a kind and an attempt come behind it.
const maxKey = 128

// order is the beginning of a key: the order that it belongs to.
func order(key string) string {
	id, _, _ := strings.Cut(key, ":")
	return id
}

// page reads ?after= and ?limit=.
func page(r *http.Request, more ...string) (after int64, limit int, err error) {
	if err := problem.Query(r, append(more, "after", "limit")...); err != nil {
		return 0, 0, err
	}
	q := r.URL.Query()
	limit = 1000
	if s := q.Get("after"); s != "" {
		if after, err = strconv.ParseInt(s, 10, 64); err != nil || after < 0 {
			return 0, 0, problem.New(http.StatusBadRequest, "invalid-field", "after is a number from 0")
		}
	}
	if s := q.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > 10_000 {
			return 0, 0, problem.New(http.StatusBadRequest, "invalid-field", "limit is a number from 1 to 10000")
		}
	}
	return after, limit, nil
}
