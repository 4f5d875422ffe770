package service

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sethvargo/go-envconfig"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/libs/telemetry"
	"go.uber.org/zap"
	"golang.org/x/net/netutil"
)

const (
	// Slow clients are cut here; an honest one sends 16 KiB of headers and 64 KiB of body in far less.
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeader         = 16 << 10
	maxConnections    = 4096
	maxPath           = 2 << 10
	maxQuery          = 4 << 10
	checkTimeout      = time.Second
)

// server is the hardened public server.
func (s *Service) server(h http.Handler) *http.Server {
	log, _ := zap.NewStdLogAt(s.Log, zap.DebugLevel) // what net/http says of broken clients
	return &http.Server{
		Handler:           telemetry.Middleware(s.telemetry)(s.harden(h)),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log,
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(s.ctx) },
	}
}

// Listen has the public listener wrapped, before Serve.
func (s *Service) Listen(wrap func(net.Listener) net.Listener) { s.wrap = wrap }

func (s *Service) limited() net.Listener {
	l := netutil.LimitListener(s.public, maxConnections)
	if s.wrap != nil {
		return s.wrap(l)
	}
	return l
}

// hardened keeps the router visible to the telemetry middleware, which asks it for patterns.
type hardened struct {
	router
	serve http.HandlerFunc
}

type router interface{ chi.Routes } // embedded under this name: a field Routes would hide the method

func (h hardened) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.serve(w, r) }

// harden refuses before routing what no endpoint of ours wants to see, and bounds the requests in flight.
func (s *Service) harden(next http.Handler) http.Handler {
	serve := func(w http.ResponseWriter, r *http.Request) {
		if n := s.inFlight.Add(1); n > int64(s.base.MaxInFlight) {
			s.inFlight.Add(-1)
			problem.Write(w, r, problem.New(http.StatusServiceUnavailable, "overloaded", "too many requests at once").After(time.Second))
			return
		}
		defer s.inFlight.Add(-1)
		if p := refuse(r); p != nil {
			problem.Write(w, r, p)
			return
		}
		if r.ContentLength == 0 {
			// Nothing is left to read, and the read deadline would otherwise cancel the context of a stream after 15 s.
			_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		}
		next.ServeHTTP(w, r)
	}
	routes, _ := next.(chi.Routes)
	return hardened{routes, serve}
}

func refuse(r *http.Request) *problem.Problem {
	bad := func(slug, detail string) *problem.Problem { return problem.New(http.StatusBadRequest, slug, detail) }
	if len(r.URL.EscapedPath()) > maxPath || len(r.URL.RawQuery) > maxQuery {
		return problem.New(http.StatusRequestURITooLong, "uri-too-long", "a path has at most 2 KiB, a query 4 KiB")
	}
	switch r.Method {
	case http.MethodTrace, http.MethodConnect:
		return problem.New(http.StatusMethodNotAllowed, "method-not-allowed", "")
	}
	if !cleanPath(r) {
		return bad("bad-path", "the path must be clean: no empty, dot or escaped segments")
	}
	if strings.Count(r.URL.RawQuery, "&") >= 100 {
		return bad("too-many-params", "a query has at most 100 parameters")
	}
	for name := range r.Header {
		// Some readers take X_User for X-User; nobody honest sends the former.
		if strings.IndexByte(name, '_') >= 0 {
			return bad("bad-header", "a header name has an underscore")
		}
	}
	if a := r.Header.Get("Accept"); a != "" && a != "*/*" && !acceptable(r.Header.Values("Accept")) {
		return problem.New(http.StatusNotAcceptable, "not-acceptable", "answers are application/json or application/problem+json")
	}
	return nil
}

// cleanPath refuses what two hops could resolve differently. An escaped letter is harmless; an escaped slash, dot, backslash or control
// character is not.
func cleanPath(r *http.Request) bool {
	path := r.URL.EscapedPath()
	if path == "" || path[0] != '/' {
		return path == "*" && r.Method == http.MethodOptions
	}
	if strings.Contains(path, "//") || strings.Contains(path, "/./") || strings.Contains(path, "/../") ||
		strings.HasSuffix(path, "/.") || strings.HasSuffix(path, "/..") {
		return false
	}
	if !strings.ContainsRune(path, '%') {
		return true
	}
	lower := strings.ToLower(path)
	for _, bad := range []string{"%2f", "%5c", "%2e", "%25"} {
		if strings.Contains(lower, bad) {
			return false
		}
	}
	for _, c := range r.URL.Path { // the decoded form; an invalid sequence decodes to U+FFFD
		if c < 0x20 || c == 0x7f || c == '\uFFFD' {
			return false
		}
	}
	return true
}

// acceptable says whether any of our media types is among those wanted.
func acceptable(accept []string) bool {
	for _, line := range accept {
		for media := range strings.SplitSeq(line, ",") {
			media, _, _ = strings.Cut(strings.TrimSpace(strings.ToLower(media)), ";")
			switch strings.TrimSpace(media) {
			case "*/*", "application/*", "application/json", problem.ContentType, "application/yaml", "application/x-ndjson",
				"application/openmetrics-text", "text/*", "text/plain", "text/html", "text/css", "text/javascript", "text/event-stream",
				"image/*", "image/svg+xml", "application/vnd.google.protobuf":
				return true
			}
		}
	}
	return false
}

type check struct {
	name string
	f    func(context.Context) error
}

// Check adds a condition of readiness; it has one second.
func (s *Service) Check(name string, f func(ctx context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks = append(s.checks, check{name, f})
}

// serveAdmin starts the admin server and returns what closes it.
func (s *Service) serveAdmin() func() {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{Registry: s.Registry}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	log, _ := zap.NewStdLogAt(s.Log, zap.DebugLevel)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, ErrorLog: log}
	go func() { _ = server.Serve(s.admin) }()
	return func() { _ = server.Close() }
}

// Ready runs the checks: nil means that requests are welcome.
func (s *Service) Ready(ctx context.Context) error {
	if !s.serving.Load() {
		return fmt.Errorf("not serving")
	}
	s.mu.Lock()
	checks := append([]check(nil), s.checks...)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	for _, c := range checks {
		if err := c.f(ctx); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func (s *Service) ready(w http.ResponseWriter, r *http.Request) {
	if err := s.Ready(r.Context()); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, err)
		return
	}
	fmt.Fprintln(w, "ok")
}

// healthcheck asks /readyz of the service that runs with this environment on this machine.
func healthcheck(env envconfig.Lookuper, cfg any) error {
	base, err := configure(context.Background(), cfg, env)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(base.AdminAddr)
	if err != nil {
		return fmt.Errorf("read ADMIN_ADDR: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	client := &http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get("http://" + net.JoinHostPort(host, port) + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", resp.Status)
	}
	return nil
}
