package telemetry

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"
)

// wellFormed is version 00 of https://www.w3.org/TR/trace-context/; ids of zeros are not valid. Of the flags the first two are
// defined; with another one set, which nobody may do, OpenTelemetry takes the header for broken, and a new trace begins.
var wellFormed = regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-0[0-2]$`)

// Whatever a client writes, a request has a trace; a good traceparent is continued.
func FuzzTraceparent(f *testing.F) {
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "vendor=1")
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920339c-b7", "")
	f.Add("00-00000000000000000000000000000000-b7ad6b7169203331-01", "")
	f.Add("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", strings.Repeat("a=b,", 40))
	tel, err := New(f.Context(), Config{Service: "fuzz", LogLevel: "error"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, parent, state string) {
		var got trace.SpanContext
		h := Middleware(tel)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = trace.SpanContextFromContext(r.Context()) }))
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Traceparent"], r.Header["Tracestate"] = []string{parent}, []string{state}
		h.ServeHTTP(httptest.NewRecorder(), r)
		if !got.IsValid() {
			t.Fatalf("%q makes no trace", parent)
		}
		m := wellFormed.FindStringSubmatch(parent)
		if m == nil || strings.Trim(m[1], "0") == "" || strings.Trim(m[2], "0") == "" {
			return
		}
		if got.TraceID().String() != m[1] || got.SpanID().String() == m[2] {
			t.Fatalf("%q continues as %s, span %s", parent, got.TraceID(), got.SpanID())
		}
	})
}
