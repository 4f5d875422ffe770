// Package httpapi is the notification service's HTTP interface; openapi.yaml describes it.
package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/notification/internal/notice"
)

// Store is what the routes read.
type Store interface {
	Find(ctx context.Context, orderID string, tenant, after int64, limit int) ([]notice.Notice, error)
}

// Options are the parts behind the routes.
type Options struct {
	Store         Store
	Auth          func(http.Handler) http.Handler
	Interventions http.Handler
	Document      []byte // openapi.yaml
}

// New makes the routes.
func New(o Options) http.Handler {
	r := chi.NewRouter()
	r.NotFound(problem.NotFound)
	r.MethodNotAllowed(problem.MethodNotAllowed)
	r.Get("/openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(o.Document)
	})
	r.Group(func(r chi.Router) {
		r.Use(o.Auth)
		r.With(auth.RequireRole("merchant", "operator", "admin")).Get("/notifications", problem.Handler(o.list))
		r.Mount("/interventions", o.Interventions)
	})
	return r
}

// noticeBody is a notice as people see it: without the address that it went to.
type noticeBody struct {
	ID        string  `json:"id"`
	OrderID   string  `json:"order_id"`
	Channel   string  `json:"channel"`
	Kind      string  `json:"kind"`
	Recipient string  `json:"recipient"`
	Subject   string  `json:"subject"`
	Text      string  `json:"text"`
	Status    string  `json:"status"`
	Tries     int     `json:"tries"`
	CreatedAt string  `json:"created_at"`
	ToldAt    *string `json:"told_at,omitempty"`
}

type page struct {
	Items []noticeBody `json:"items"`
	Next  string       `json:"next,omitempty"`
}

const (
	millis  = "2006-01-02T15:04:05.000Z"
	maxPage = 100
)

func (o Options) list(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r, "order_id", "limit", "cursor"); err != nil {
		return err
	}
	q := r.URL.Query()
	id, limit, after, err := read(q.Get("order_id"), q.Get("limit"), q.Get("cursor"))
	if err != nil {
		return err
	}
	p := auth.From(r.Context())
	tenant := p.Tenant
	if p.Has("operator", "admin") {
		tenant = 0
	}
	found, err := o.Store.Find(r.Context(), id, tenant, after, limit+1)
	if err != nil {
		return err
	}
	out := page{Items: []noticeBody{}}
	if len(found) > limit {
		found = found[:limit]
		out.Next = strconv.FormatInt(found[limit-1].Seq, 36)
	}
	for _, n := range found {
		out.Items = append(out.Items, show(n))
	}
	return problem.JSON(w, http.StatusOK, out)
}

func read(id, limitText, cursor string) (_ string, limit int, after int64, err error) {
	if !validID(id) {
		return "", 0, 0, problem.New(http.StatusBadRequest, "invalid-field", "say whose notices to list").
			Field("order_id", "1 to 64 of letters, digits, dot, underscore, hyphen")
	}
	limit = maxPage
	if limitText != "" {
		if limit, err = strconv.Atoi(limitText); err != nil || limit < 1 || limit > maxPage {
			return "", 0, 0, problem.New(http.StatusBadRequest, "invalid-field", "limit is 1 to 100").Field("limit", "1 to 100")
		}
	}
	if cursor != "" {
		if after, err = strconv.ParseInt(cursor, 36, 64); err != nil || after < 1 {
			return "", 0, 0, problem.New(http.StatusBadRequest, "invalid-cursor", "the cursor is not one of ours")
		}
	}
	return id, limit, after, nil
}

func show(n notice.Notice) noticeBody {
	b := noticeBody{
		ID: n.EventID.String() + "." + n.Channel, OrderID: n.OrderID, Channel: n.Channel, Kind: string(n.Kind), Recipient: n.Masked,
		Subject: n.Subject, Text: n.Text, Status: n.Status, Tries: n.Tries, CreatedAt: stamp(n.CreatedAt),
	}
	if n.Status == notice.Sent && n.FinishedAt != nil {
		told := stamp(*n.FinishedAt)
		b.ToldAt = &told
	}
	return b
}

func stamp(t time.Time) string { return t.UTC().Format(millis) }

// validID says whether s can be the id of an order: 1 to 64 of [A-Za-z0-9._-].
func validID(s string) bool {
	if len(s) < 1 || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
