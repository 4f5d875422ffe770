package telemetry

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// replaced is a key of a context that a middleware makes.
type replaced struct{}

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func server(t *testing.T) (http.Handler, *Telemetry, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	tel := Discard(zap.New(core))
	r := chi.NewRouter()
	r.Route("/things", func(r chi.Router) {
		r.Use(func(next http.Handler) http.Handler { // a middleware that replaces the request, as auth does
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), replaced{}, 1)))
			})
		})
		r.Get("/{id}", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, trace.SpanContextFromContext(r.Context()).TraceID())
		})
	})
	r.Get("/panic", func(http.ResponseWriter, *http.Request) { panic("secret") })
	r.Get("/half", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "half"); panic("secret") })
	r.Get("/abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	return Middleware(tel)(r), tel, logs
}

func TestMiddleware(t *testing.T) {
	h, tel, logs := server(t)
	r := httptest.NewRequest("GET", "/things/7", nil)
	r.Header.Set("traceparent", parent)
	r.Header.Set(RequestID, "abc-1")
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if got := rec.Body.String(); got != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("the caller's trace is lost: %s", got)
	}
	if got := rec.Header().Get(RequestID); got != "abc-1" {
		t.Errorf("request id %q", got)
	}
	line := logs.All()[0].ContextMap()
	if line["route"] != "/things/{id}" || line["status"] != int64(200) || line["trace_id"] != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("log line: %v", line)
	}
	want := `waybill_http_request_duration_seconds_count{code="200",method="GET",route="/things/{id}"} 1`
	if n := testutil.CollectAndCount(tel.duration); n != 1 {
		t.Errorf("%d series, want %s", n, want)
	}
}

func TestIdsExistWithoutCollector(t *testing.T) {
	h, _, _ := server(t)
	seen := map[string]bool{}
	for range 3 {
		r := httptest.NewRequest("GET", "/things/7", nil)
		r.Header.Set("traceparent", "rubbish")
		r.Header.Set(RequestID, "a\nb")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		id := rec.Body.String()
		if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(id) || seen[id] || strings.Trim(id, "0") == "" {
			t.Errorf("trace id %q", id)
		}
		if rec.Header().Get(RequestID) != id {
			t.Errorf("request id %q", rec.Header().Get(RequestID))
		}
		seen[id] = true
	}
}

func TestPanics(t *testing.T) {
	h, _, logs := server(t)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("GET", "/panic", nil))
	if rec.Code != 500 || !strings.Contains(rec.Body.String(), "urn:problem:internal") || strings.Contains(rec.Body.String(), "secret") {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
	if n := logs.FilterMessage("panic in handler").Len(); n != 1 {
		t.Errorf("%d lines about the panic", n)
	}
	for _, path := range []string{"/half", "/abort"} { // the connection must be cut: net/http does so for this value
		func() {
			defer func() {
				if p := recover(); p != http.ErrAbortHandler {
					t.Errorf("%s: recovered %v", path, p)
				}
			}()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
		}()
	}
}

func TestErrorsReachTheLine(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	h := Middleware(Discard(zap.New(core)))(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.(interface{ Fail(error) }).Fail(fmt.Errorf("connection refused"))
		w.WriteHeader(500)
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("BREW", "/x", nil))
	line := logs.All()[0]
	if line.Level != zap.ErrorLevel || line.ContextMap()["error"] != "connection refused" || line.ContextMap()["route"] != "unmatched" {
		t.Errorf("got %v %v", line.Level, line.ContextMap())
	}
}

func TestTransportPassesTheTraceOn(t *testing.T) {
	otel.SetTracerProvider(idProvider{})
	var got string
	base := roundTrip(func(r *http.Request) (*http.Response, error) {
		got = r.Header.Get("traceparent")
		return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
	})
	ctx := propagation.TraceContext{}.Extract(t.Context(), propagation.MapCarrier{"traceparent": parent})
	r, _ := http.NewRequestWithContext(ctx, "GET", "http://x/", nil)
	if _, err := Transport(base).RoundTrip(r); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got, parent[:36]) || strings.Contains(got, parent[36:52]) || r.Header.Get("traceparent") != "" {
		t.Errorf("sent %q, own request %v", got, r.Header)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestNewLogsWithTraceID(t *testing.T) {
	tel, err := New(t.Context(), Config{Service: "thing", LogLevel: "error"})
	if err != nil {
		t.Fatal(err)
	}
	defer tel.Shutdown(t.Context())
	if _, err := New(t.Context(), Config{LogLevel: "loud"}); err == nil {
		t.Error("a level that does not exist is taken")
	}
	core, logs := observer.New(zap.InfoLevel)
	ctx, span := otel.Tracer("x").Start(t.Context(), "job")
	Log(ctx, zap.New(core)).Info("done")
	if got := logs.All()[0].ContextMap()["trace_id"]; got != span.SpanContext().TraceID().String() {
		t.Errorf("trace_id %v", got)
	}
}

func BenchmarkMiddleware(b *testing.B) {
	tel := Discard(zap.NewNop())
	r := chi.NewRouter()
	r.Get("/things/{id}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	req := httptest.NewRequest("GET", "/things/7", nil)
	req.Header.Set("traceparent", parent)
	rec := httptest.NewRecorder()
	for name, h := range map[string]http.Handler{"bare": r, "observed": Middleware(tel)(r)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(rec, req)
			}
		})
	}
}
