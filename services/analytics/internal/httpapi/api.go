// Package httpapi is the HTTP interface of the analytics service. openapi.yaml describes it and the tests hold both
// together.
package httpapi

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/analytics/internal/postgres"
)

const (
	maxDays   = 366
	maxEvents = 1000
)

type api struct{ store *postgres.Store }

// New makes the handler.
func New(store *postgres.Store, authenticate func(http.Handler) http.Handler, interventions http.Handler, openAPI []byte) http.Handler {
	a := &api{store}
	r := chi.NewRouter()
	r.NotFound(problem.NotFound)
	r.MethodNotAllowed(problem.MethodNotAllowed)
	r.Get("/openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(openAPI)
	})
	r.Group(func(r chi.Router) {
		r.Use(authenticate)
		// The report names other tenants.
		r.With(auth.RequireRole("operator", "admin")).Get("/reports/enterprise", problem.Handler(a.enterprise))
		r.With(auth.RequireRole("merchant", "operator", "admin")).Get("/stats/{date}", problem.Handler(a.stats))
		r.With(auth.RequireRole("merchant", "operator", "admin")).Post("/events", problem.Handler(a.add))
		r.Mount("/interventions", interventions)
	})
	return r
}

type day struct {
	Tenant int64    `json:"tenant_id"`
	Date   string   `json:"date"`
	Events int64    `json:"events"`
	Avg    *float64 `json:"avg_time,omitempty"`
}

func show(d postgres.Day) day {
	return day{d.Tenant, d.Date.Format(time.DateOnly), d.Events, d.Seconds}
}

func (a *api) enterprise(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r, "days"); err != nil {
		return err
	}
	days := 30
	if r.URL.Query().Has("days") {
		n, err := strconv.Atoi(r.URL.Query().Get("days"))
		if err != nil || n < 1 || n > maxDays {
			return problem.New(http.StatusBadRequest, "invalid-field", "days is 1 to 366").Field("days", "is 1 to 366")
		}
		days = n
	}
	list, err := a.store.Enterprise(r.Context(), days)
	if err != nil {
		return err
	}
	items := make([]day, len(list))
	for i, d := range list {
		items[i] = show(d)
	}
	return problem.JSON(w, http.StatusOK, map[string]any{"items": items})
}

func (a *api) stats(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	date, err := time.Parse(time.DateOnly, chi.URLParam(r, "date"))
	if err != nil || date.Year() < 2000 || date.Year() > 2999 {
		return problem.New(http.StatusBadRequest, "invalid-field", "a date is YYYY-MM-DD").Field("date", "is YYYY-MM-DD")
	}
	d, err := a.store.Stats(r.Context(), auth.From(r.Context()).Tenant, date)
	if err != nil {
		return err
	}
	return problem.JSON(w, http.StatusOK, show(d))
}

type addBody struct {
	Events []struct {
		ID        string         `json:"event_id"`
		CreatedAt string         `json:"created_at"`
		Seconds   *float64       `json:"processing_time"`
		Payload   jsontext.Value `json:"payload"`
	} `json:"events"`
}

// events checks a body and makes the events of it. named says that each names its id and its time, so that the same body
// again is the same events.
func (b *addBody) events(tenant int64, now, from, to time.Time) (events []postgres.Event, named bool, err error) {
	p := problem.New(http.StatusUnprocessableEntity, "invalid-field", "the request has an invalid member")
	if len(b.Events) == 0 || len(b.Events) > maxEvents {
		return nil, false, p.Field("/events", "1 to 1,000 events")
	}
	named = true
	for i, e := range b.Events {
		at := func(member string) string { return fmt.Sprintf("/events/%d/%s", i, member) }
		out := postgres.Event{Tenant: tenant, At: now, Seconds: e.Seconds, Payload: []byte(`{}`)}
		if named = named && e.ID != "" && e.CreatedAt != ""; e.ID == "" {
			out.ID = uuid.Must(uuid.NewV7())
		} else if out.ID, err = uuid.Parse(e.ID); err != nil || len(e.ID) != 36 {
			p = p.Field(at("event_id"), "a UUID")
		}
		if e.CreatedAt != "" {
			if out.At, err = time.Parse(time.RFC3339Nano, e.CreatedAt); err != nil || out.At.Before(from) || out.At.After(to) {
				p = p.Field(at("created_at"), "a time of RFC 3339 within "+from.Format(time.DateOnly)+" and tomorrow")
			}
		}
		if e.Seconds != nil && (*e.Seconds < 0 || math.IsInf(*e.Seconds, 0) || math.IsNaN(*e.Seconds)) {
			p = p.Field(at("processing_time"), "seconds, not negative")
		}
		if len(e.Payload) > 0 {
			if e.Payload.Kind() != jsontext.KindBeginObject {
				p = p.Field(at("payload"), "an object")
			}
			out.Payload = []byte(e.Payload)
		}
		events = append(events, out)
	}
	if len(p.Errors) > 0 {
		return nil, false, p
	}
	return events, named, nil
}

// add stores events of the caller's own tenant.
func (a *api) add(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	body, err := problem.Decode[addBody](w, r)
	if err != nil {
		return err
	}
	who := auth.From(r.Context())
	now := time.Now()
	from, to := a.store.Window(now)
	events, named, err := body.events(who.Tenant, now, from, to)
	if err != nil {
		return err
	}
	// Events that name themselves need no key: storing them again changes nothing.
	if named && r.Header.Get("Idempotency-Key") == "" {
		return a.write(w, r, nil, events)
	}
	key, err := inbox.KeyFrom(r, "")
	if err != nil {
		return err
	}
	return a.write(w, r, &inbox.Request{Caller: strconv.FormatInt(who.Tenant, 10) + "/" + who.Subject, Route: "POST /events", Key: key,
		Fingerprint: inbox.Fingerprint(http.MethodPost, "/events", who.Subject, body)}, events)
}

func (a *api) write(w http.ResponseWriter, r *http.Request, key *inbox.Request, events []postgres.Event) error {
	b, err := json.Marshal(map[string]int{"accepted": len(events)})
	if err != nil {
		return err
	}
	answer, replayed := inbox.Response{Status: http.StatusAccepted, ContentType: "application/json", Body: append(b, '\n')}, false
	err = pg.Do(context.WithoutCancel(r.Context()), a.store.Pool(), func(ctx context.Context, u *pg.Unit) error {
		if key != nil {
			keys := []inbox.Request{*key}
			stored := inbox.FindResponses(u, keys)
			if err := u.Fetch(ctx); err != nil {
				return err
			}
			old, found, err := stored.Get(*key)
			if err != nil || found {
				answer, replayed = old, found
				return err
			}
			inbox.StoreResponses(u, keys, []inbox.Response{answer})
		}
		postgres.Insert(u, events)
		return nil
	})
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	return answer.Write(w, replayed)
}
