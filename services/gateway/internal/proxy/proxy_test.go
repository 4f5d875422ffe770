package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/services/gateway/internal/route"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop")) // the pool of the transport, which lives as long as the process
}

func through(t *testing.T, upstream http.HandlerFunc, timeout time.Duration) http.Handler {
	t.Helper()
	s := httptest.NewServer(upstream)
	t.Cleanup(s.Close)
	p, err := New(Options{Upstreams: map[route.Service]string{route.Order: s.URL}, Log: zap.NewNop(), Draining: make(chan struct{})})
	if err != nil {
		t.Fatal(err)
	}
	h, err := p.Handler(route.Route{Pattern: "/*", To: route.Order, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestLateServiceIsATimeout(t *testing.T) {
	release := make(chan struct{})
	h := through(t, func(http.ResponseWriter, *http.Request) { <-release }, 20*time.Millisecond)
	defer close(release)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("GET", "/orders", nil))
	if rec.Code != 504 || !strings.Contains(rec.Body.String(), "upstream-timeout") {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
}

func TestOnlyGETIsRepeated(t *testing.T) {
	for method, want := range map[string]int64{"GET": 2, "POST": 1, "PUT": 1, "DELETE": 1} {
		var calls atomic.Int64
		tr := retrying{roundTrip(func(*http.Request) (*http.Response, error) {
			calls.Add(1)
			return nil, errors.New("reset")
		})}
		_, err := tr.RoundTrip(httptest.NewRequest(method, "/", nil))
		if err == nil || calls.Load() != want {
			t.Errorf("%s: %d calls, %v", method, calls.Load(), err)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestLargeBodies(t *testing.T) {
	h := through(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }, time.Minute)
	for name, length := range map[string]int64{"said": maxBody + 1, "not said": -1} {
		r := httptest.NewRequest("POST", "/orders", io.LimitReader(zeros{}, maxBody+1))
		r.ContentLength = length
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != 413 {
			t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
		}
	}
}

// What is wrong with the body that a client sends is not the service's fault.
func TestBrokenBodiesAreTheClients(t *testing.T) {
	for want, err := range map[int]error{408: os.ErrDeadlineExceeded, 400: io.ErrUnexpectedEOF} {
		h := through(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }, time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		body := readerFunc(func([]byte) (int, error) {
			cancel() // as net/http does before the reader hears of it
			return 0, err
		})
		r := httptest.NewRequestWithContext(ctx, "POST", "/orders", io.MultiReader(strings.NewReader("{"), body))
		r.ContentLength = 20
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != want {
			t.Errorf("%v: %d %s", err, rec.Code, rec.Body)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestUpstreamsMustBeURLs(t *testing.T) {
	for _, bad := range []string{"", "127.0.0.1:8081", "ftp://x", "http://"} {
		if _, err := New(Options{Upstreams: map[route.Service]string{route.Order: bad}, Log: zap.NewNop()}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
