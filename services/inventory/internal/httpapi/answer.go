package httpapi

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/problem"
)

// recording is a response that is kept under an idempotency key before it is sent.
type recording struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recording) Header() http.Header         { return r.header }
func (r *recording) WriteHeader(status int)      { r.status = status }
func (r *recording) Write(b []byte) (int, error) { return r.body.Write(b) }

// record renders an answer or, where err is not nil, a problem.
func record(r *http.Request, status int, v any, err error) *inbox.Response {
	rec := &recording{header: http.Header{}}
	if err == nil {
		err = problem.JSON(rec, status, v)
	}
	if err != nil {
		problem.Write(rec, r, err)
	}
	return &inbox.Response{
		Status: rec.status, ContentType: rec.header.Get("Content-Type"), Location: rec.header.Get("Location"), Body: rec.body.Bytes(),
	}
}

// definite returns the response where it is the outcome of the request, to be replayed: what is wrong with the request
// itself, or with the service, is not kept and may be tried again under the same key.
func definite(r *inbox.Response) *inbox.Response {
	if r.Status < 300 || r.Status == http.StatusConflict {
		return r
	}
	return nil
}

// send writes a rendered response.
func send(w http.ResponseWriter, r *inbox.Response, replayed bool) {
	h := w.Header()
	h.Set("Content-Type", r.ContentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Location != "" {
		h.Set("Location", r.Location)
	}
	if replayed {
		h.Set("Idempotent-Replayed", "true")
	}
	w.WriteHeader(r.Status)
	_, _ = w.Write(r.Body)
}

// idempotency reads the request's Idempotency-Key. Where it is absent the order id stands in for it: the reservation's
// own row, unique by order, is the record then, and key is nil.
func idempotency(r *http.Request, route, orderID string, body any) (*inbox.Request, error) {
	key, err := inbox.KeyFrom(r, orderID)
	if err != nil {
		return nil, err
	}
	if orderID != "" && len(r.Header.Values("Idempotency-Key")) == 0 {
		return nil, nil
	}
	p := auth.From(r.Context())
	return &inbox.Request{
		Caller: fmt.Sprintf("%d/%s", p.Tenant, p.Subject), Route: route, Key: key,
		Fingerprint: inbox.Fingerprint(r.Method, route, p.Subject, body),
	}, nil
}

// page is a list.
type page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

const (
	maxLimit     = 100
	defaultLimit = 50
)

// paging reads ?limit= and ?cursor=. The cursor is opaque to clients: base64 of a letter for the list and the last
// item's place in it, so that one list's cursor is refused by another.
func paging(r *http.Request, list string) (limit int, after string, err error) {
	q := r.URL.Query()
	limit = defaultLimit
	if q.Has("limit") {
		limit, err = strconv.Atoi(q.Get("limit"))
		if err != nil || limit < 1 || limit > maxLimit || q.Get("limit") != strconv.Itoa(limit) {
			return 0, "", problem.New(http.StatusBadRequest, "invalid-field", "limit is 1 to 100").Field("limit", "1 to 100")
		}
	}
	if q.Has("cursor") {
		b, err := base64.RawURLEncoding.DecodeString(q.Get("cursor"))
		if err != nil || len(b) < 2 || string(b[:1]) != list || len(b) > 65 {
			return 0, "", invalidCursor()
		}
		after = string(b[1:])
	}
	return limit, after, nil
}

func invalidCursor() error {
	return problem.New(http.StatusBadRequest, "invalid-cursor", "The cursor is not one of this list.").Field("cursor", "use next of the page before")
}

func cursor(list, last string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(list + last))
}
