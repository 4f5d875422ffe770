package telemetry

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// RequestID is the header that names a request for people; it is taken over from the client where it is harmless.
const RequestID = "X-Request-Id"

// Middleware observes each request: a server span in the caller's trace, X-Request-Id, rate, errors and duration by
// route pattern, one log line, and a 500 problem for a panic. It goes outermost, around the router.
func Middleware(t *Telemetry) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		// chi recycles its route context before we could ask it for the pattern, so the request brings its own.
		routes, _ := next.(chi.Routes)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			start := time.Now()
			ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
			ctx, span := t.tracer.Start(ctx, r.Method)
			o := &observed{ResponseWriter: w}
			o.route.Reset()
			o.route.Routes = routes
			id := requestID(r, span)
			w.Header().Set(RequestID, id)
			r = r.WithContext(context.WithValue(ctx, chi.RouteCtxKey, &o.route))
			defer t.finish(o, r, span, id, start)
			next.ServeHTTP(o, r)
		})
	}
}

// finish runs deferred, so that it sees a panic.
func (t *Telemetry) finish(o *observed, r *http.Request, span trace.Span, id string, start time.Time) {
	var aborted bool
	if p := recover(); p != nil {
		if p == http.ErrAbortHandler {
			aborted = true // the handler wants the connection cut; net/http does that
		} else {
			t.Log.Error("panic in handler", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()),
				zap.String("trace_id", span.SpanContext().TraceID().String()))
			if o.status == 0 {
				writePanic(o, span)
			} else {
				aborted = true // half an answer must not look like a whole one
			}
		}
	}
	if o.status == 0 {
		o.status = http.StatusOK
	}
	route := o.route.RoutePattern()
	if route == "" {
		route = "unmatched"
	}
	elapsed := time.Since(start)
	t.duration.WithLabelValues(method(r.Method), route, strconv.Itoa(o.status)).Observe(elapsed.Seconds())
	if span.IsRecording() {
		span.SetName(r.Method + " " + route)
		span.SetAttributes(attribute.String("http.request.method", r.Method), attribute.String("http.route", route),
			attribute.Int("http.response.status_code", o.status))
		if o.status >= 500 {
			span.SetStatus(codes.Error, "")
		}
	}
	span.End()
	t.logRequest(o, r, route, id, span, elapsed)
	if aborted {
		panic(http.ErrAbortHandler)
	}
}

func (t *Telemetry) logRequest(o *observed, r *http.Request, route, id string, span trace.Span, elapsed time.Duration) {
	level, log := zap.InfoLevel, t.requests
	switch {
	case o.status == http.StatusInternalServerError:
		level, log = zap.ErrorLevel, t.Log
	case o.status > 500:
		level, log = zap.WarnLevel, t.requests
	}
	entry := log.Check(level, "request")
	if entry == nil {
		return
	}
	fields := []zap.Field{
		zap.String("method", r.Method), zap.String("route", route), zap.String("path", cut(r.URL.Path, 256)),
		zap.Int("status", o.status), zap.Int64("bytes", o.bytes), zap.Duration("seconds", elapsed),
		zap.String("trace_id", span.SpanContext().TraceID().String()), zap.String("request_id", id),
	}
	if o.err != nil {
		fields = append(fields, zap.Error(o.err))
	}
	entry.Write(fields...)
}

// writePanic is a constant document of its own: this package knows no other that could write one.
func writePanic(o *observed, span trace.Span) {
	h := o.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	o.WriteHeader(http.StatusInternalServerError)
	_, _ = o.Write([]byte(`{"type":"urn:problem:internal","title":"Internal Server Error","status":500,"trace_id":"` +
		span.SpanContext().TraceID().String() + `"}` + "\n"))
}

// requestID takes the client's id where it is short and printable, else the trace id, which finds the request too.
func requestID(r *http.Request, span trace.Span) string {
	id := r.Header.Get(RequestID)
	if id == "" || len(id) > 64 {
		return span.SpanContext().TraceID().String()
	}
	for i := range len(id) {
		c := id[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.", c) >= 0) {
			return span.SpanContext().TraceID().String()
		}
	}
	return id
}

// method keeps the label's values a closed set.
func method(m string) string {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return m
	}
	return "other"
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// observed remembers what was answered, and the error behind it (problem.Write finds Fail through Unwrap).
type observed struct {
	http.ResponseWriter
	route  chi.Context
	status int
	bytes  int64
	err    error
}

func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }
func (o *observed) Fail(err error)              { o.err = err }

func (o *observed) WriteHeader(status int) {
	if o.status == 0 && status >= 200 {
		o.status = status
	}
	o.ResponseWriter.WriteHeader(status)
}

func (o *observed) Write(b []byte) (int, error) {
	if o.status == 0 {
		o.status = http.StatusOK
	}
	n, err := o.ResponseWriter.Write(b)
	o.bytes += int64(n)
	return n, err
}

// Flush is for handlers that ask for http.Flusher by assertion.
func (o *observed) Flush() { _ = http.NewResponseController(o.ResponseWriter).Flush() }

// Hijack is for proxied upgrades.
func (o *observed) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(o.ResponseWriter).Hijack()
}

// Transport makes calls of base part of the caller's trace: a client span, and traceparent on the wire.
func Transport(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return transport{base}
}

type transport struct{ base http.RoundTripper }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, span := otel.Tracer("waybill").Start(r.Context(), r.Method)
	defer span.End()
	if span.SpanContext().IsValid() { // a RoundTripper must not change its caller's request
		r = r.Clone(ctx)
		propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(r.Header))
	}
	resp, err := t.base.RoundTrip(r)
	if span.IsRecording() {
		span.SetName(r.Method + " " + r.URL.Host)
		if err != nil {
			span.SetStatus(codes.Error, "")
		} else {
			span.SetAttributes(attribute.Int("http.response.status_code", resp.StatusCode))
		}
	}
	return resp, err
}
