package problem

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-json-experiment/json"
	"go.opentelemetry.io/otel/trace"
)

// ContentType is the media type of every answer that is not 2xx.
const ContentType = "application/problem+json"

// retryAfter is told to clients where an error does not know better: about what a restarted dependency needs.
const retryAfter = 2 * time.Second

// FieldError says what is wrong with one member of a body (an RFC 6901 pointer) or one query parameter.
type FieldError struct {
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

// Problem is an error that a client may read. Its fields are sent, so they must not hold secrets or text of other errors;
// such a cause goes into Cause, which is only logged.
type Problem struct {
	Status     int
	Slug       string // type is urn:problem:<slug>
	Title      string
	Detail     string
	Errors     []FieldError
	RetryAfter time.Duration
	Cause      error
}

// New makes a problem. Its title is the status text.
func New(status int, slug, detail string) *Problem {
	return &Problem{Status: status, Slug: slug, Title: http.StatusText(status), Detail: detail}
}

// Field adds what is wrong with one member.
func (p *Problem) Field(pointer, detail string) *Problem {
	p.Errors = append(p.Errors, FieldError{Pointer: pointer, Detail: detail})
	return p
}

// After tells the client when to come again; seconds are rounded up.
func (p *Problem) After(d time.Duration) *Problem {
	p.RetryAfter = d
	return p
}

// Because keeps the error behind the problem for the log.
func (p *Problem) Because(err error) *Problem {
	p.Cause = err
	return p
}

func (p *Problem) Error() string {
	text := fmt.Sprintf("%d %s", p.Status, p.Slug)
	if p.Detail != "" {
		text += ": " + p.Detail
	}
	for _, e := range p.Errors {
		text += fmt.Sprintf(" [%s %s]", e.Pointer, e.Detail)
	}
	if p.Cause != nil {
		text += ": " + p.Cause.Error()
	}
	return text
}

func (p *Problem) Unwrap() error { return p.Cause }

// Is makes problems comparable by kind: errors.Is(err, problem.New(409, "order-exists", "")).
func (p *Problem) Is(target error) bool {
	t, ok := target.(*Problem)
	return ok && t.Status == p.Status && t.Slug == p.Slug
}

// document is the wire form, in this order.
type document struct {
	Type     string       `json:"type"`
	Title    string       `json:"title"`
	Status   int          `json:"status"`
	Detail   string       `json:"detail,omitempty"`
	Instance string       `json:"instance,omitempty"`
	TraceID  string       `json:"trace_id,omitempty"`
	Errors   []FieldError `json:"errors,omitempty"`
}

// Classifier finds the problem in an error of another package, or nil. Service mains register theirs with Classify.
type Classifier func(error) *Problem

var classifiers []Classifier

// Classify registers how errors of another package are told to clients. It is for init time: it takes no lock.
func Classify(c Classifier) { classifiers = append(classifiers, c) }

// From finds the problem that err is or means.
func From(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	for _, c := range classifiers {
		if p := c(err); p != nil {
			return p.Because(err)
		}
	}
	var u interface{ Unavailable() bool }
	if errors.As(err, &u) && u.Unavailable() {
		return Unavailable().Because(err)
	}
	return New(http.StatusInternalServerError, "internal", "").Because(err)
}

// Unavailable is the answer while something that the request needs is away.
func Unavailable() *Problem {
	return New(http.StatusServiceUnavailable, "unavailable", "a part that this request needs is away; try again").After(retryAfter)
}

// Write answers with the problem that err is. Where the client has gone, or a part of the answer was sent, the document is lost;
// the log line of the request has the error anyhow.
func Write(w http.ResponseWriter, r *http.Request, err error) {
	p := From(err)
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		// Nobody reads this; the number is nginx's, and keeps clients that went away from counting as our errors.
		p = &Problem{Status: 499, Slug: "client-gone", Title: "Client Closed Request", Cause: err}
	}
	report(w, r, p)
	h := w.Header()
	h.Del("Content-Length")
	h.Del("Content-Encoding")
	h.Set("Content-Type", ContentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
	doc := document{
		Type: "urn:problem:" + p.Slug, Title: p.Title, Status: p.Status, Detail: p.Detail,
		Instance: instance(r), Errors: p.Errors,
	}
	if sc := trace.SpanContextFromContext(r.Context()); sc.HasTraceID() {
		doc.TraceID = sc.TraceID().String()
	}
	body, err := json.Marshal(doc)
	if err != nil { // a detail that is no UTF-8
		body = []byte(`{"type":"urn:problem:internal","title":"Internal Server Error","status":500}`)
	}
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(append(body, '\n'))
	}
}

// instance is the path as it was sent, cut: it comes from outside and 200 bytes name any resource of ours.
func instance(r *http.Request) string {
	path := r.URL.EscapedPath()
	if len(path) > 200 {
		path = path[:200]
	}
	return path
}

// report hands the error to whoever writes the log line of this request: a response writer with a Fail method somewhere
// in the chain of wrappers. Without one (a handler tested bare) server errors are logged here.
func report(w http.ResponseWriter, r *http.Request, p *Problem) {
	for {
		if f, ok := w.(interface{ Fail(error) }); ok {
			f.Fail(p)
			return
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = u.Unwrap()
	}
	if p.Status == http.StatusInternalServerError {
		slog.ErrorContext(r.Context(), "request", "error", p.Error(), "method", r.Method, "path", r.URL.Path)
	}
}

// Handler makes an http.HandlerFunc of a function that may fail.
func Handler(f func(w http.ResponseWriter, r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := f(w, r); err != nil {
			Write(w, r, err)
		}
	}
}

// JSON answers with a value. Handlers that stream or replay stored bytes write them themselves.
func JSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
	return nil
}

// ErrNotFound is the answer for what does not exist and for what the caller may not see: both read the same.
func ErrNotFound() *Problem { return New(http.StatusNotFound, "not-found", "") }

// NotFound is for chi's router.
func NotFound(w http.ResponseWriter, r *http.Request) { Write(w, r, ErrNotFound()) }

// MethodNotAllowed is for chi's router. chi tells its own handler which methods a path has, but not one that replaces it, so they
// are looked up here.
func MethodNotAllowed(w http.ResponseWriter, r *http.Request) {
	if c := chi.RouteContext(r.Context()); c != nil && c.Routes != nil {
		for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			if c.Routes.Match(chi.NewRouteContext(), m, r.URL.Path) {
				w.Header().Add("Allow", m)
			}
		}
	}
	Write(w, r, New(http.StatusMethodNotAllowed, "method-not-allowed", ""))
}
