package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/sethvargo/go-envconfig"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/libs/testkit"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config struct {
	Base     `listen:"127.0.0.1:0"`
	Database Secret `env:"DATABASE_URL,required" usage:"the database"`
}

func env(more ...string) envconfig.Lookuper {
	m := map[string]string{"DATABASE_URL": "postgres://u:hunter2@h/d", "WAYBILL_ENV": "development", "LOG_LEVEL": "error"}
	for i := 0; i+1 < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return envconfig.MapLookuper(m)
}

func routes() *chi.Mux {
	r := chi.NewRouter()
	r.NotFound(problem.NotFound)
	r.MethodNotAllowed(problem.MethodNotAllowed)
	r.Get("/things/{id}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, chi.URLParam(r, "id")) })
	r.Get("/panic", func(http.ResponseWriter, *http.Request) { panic("boom") })
	return r
}

// start runs a service whose routes are h, and returns it, what stops it, and what it ended with.
func start(t *testing.T, e envconfig.Lookuper, h http.Handler, prepare func(*Service)) (*Service, context.CancelFunc, <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	up, ended := make(chan *Service, 1), make(chan error, 1)
	go func() {
		ended <- Run(ctx, "thing", e, func(_ context.Context, s *Service, _ config) error {
			if prepare != nil {
				prepare(s)
			}
			up <- s
			s.Serve(h)
			return nil
		})
	}()
	select {
	case s := <-up:
		return s, cancel, ended
	case err := <-ended:
		t.Fatalf("the service ended: %v", err)
	}
	return nil, nil, nil
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func get(t *testing.T, url string, header ...string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), resp.Header
}

func TestServiceServesAndDrainsInOrder(t *testing.T) {
	var order []string
	stopped := func(name string) func(context.Context) error {
		return func(ctx context.Context) error {
			<-ctx.Done()
			order = append(order, name) // stop waits for each, so this is one at a time
			return ctx.Err()
		}
	}
	release, entered := make(chan struct{}), make(chan struct{})
	r := routes()
	r.Get("/slow", func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-release
		order = append(order, "request")
		if r.Context().Err() != nil {
			t.Error("a request in flight was cancelled by shutdown")
		}
	})
	s, cancel, ended := start(t, env(), r, func(s *Service) {
		s.Go("relay", stopped("relay"))
		s.Go("batcher", stopped("batcher"))
		s.Consume("consumer", stopped("consumer"))
	})
	slow := make(chan int, 1)
	go func() {
		resp, err := client.Get("http://" + s.Addr() + "/slow")
		if err != nil {
			slow <- 0
			return
		}
		resp.Body.Close()
		slow <- resp.StatusCode
	}()
	<-entered
	if status, _, _ := get(t, "http://"+s.AdminAddr()+"/readyz"); status != 200 {
		t.Errorf("readyz while serving: %d", status)
	}
	cancel()
	<-s.Draining()
	if status, body, _ := get(t, "http://"+s.AdminAddr()+"/readyz"); status != 503 || !strings.Contains(body, "not serving") {
		t.Errorf("readyz while draining: %d %q", status, body)
	}
	close(release)
	if err := <-ended; err != nil {
		t.Errorf("a service that was told to stop ended with %v", err)
	}
	if got := <-slow; got != 200 {
		t.Errorf("the request in flight got %d", got)
	}
	if diff := cmp.Diff([]string{"consumer", "request", "batcher", "relay"}, order); diff != "" {
		t.Errorf("order of stopping (-want +got):\n%s", diff)
	}
}

func TestFailedProcessEndsTheService(t *testing.T) {
	broken := errors.New("broken")
	for name, f := range map[string]func(context.Context) error{
		"error": func(context.Context) error { return broken },
		"panic": func(context.Context) error { panic(broken) },
	} {
		t.Run(name, func(t *testing.T) {
			_, _, ended := start(t, env("LOG_LEVEL", "fatal"), routes(), func(s *Service) { s.Go("job", f) })
			if err := <-ended; err == nil || !strings.Contains(err.Error(), "job: ") || !strings.Contains(err.Error(), "broken") {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

func TestReadinessNamesWhatIsMissing(t *testing.T) {
	s, _, _ := start(t, env(), routes(), func(s *Service) {
		s.Check("postgres", func(context.Context) error { return errors.New("no connection") })
	})
	testkit.Eventually(t, 5*time.Second, s.serving.Load, "the service does not serve")
	status, body, _ := get(t, "http://"+s.AdminAddr()+"/readyz")
	if status != 503 || !strings.Contains(body, "postgres: no connection") {
		t.Errorf("got %d %q", status, body)
	}
	if status, _, _ := get(t, "http://"+s.AdminAddr()+"/livez"); status != 200 {
		t.Errorf("livez: %d", status)
	}
	if status, _, _ := get(t, "http://"+s.Addr()+"/debug/pprof/"); status != 404 {
		t.Errorf("pprof on the public listener: %d", status)
	}
}

func TestEveryEndpointRefuses(t *testing.T) {
	s, _, _ := start(t, env("LOG_LEVEL", "fatal"), routes(), nil)
	for _, c := range []struct {
		method, target string
		header         []string
		status         int
		want           string
	}{
		{"GET", "/things/1", nil, 200, "1"},
		{"GET", "/things/a%20b", nil, 200, "a b"},
		{"GET", "/nothing", nil, 404, "urn:problem:not-found"},
		{"POST", "/things/1", nil, 405, "urn:problem:method-not-allowed"},
		{"TRACE", "/things/1", nil, 405, "urn:problem:method-not-allowed"},
		{"GET", "//things/1", nil, 400, "urn:problem:bad-path"},
		{"GET", "/things/./1", nil, 400, "urn:problem:bad-path"},
		{"GET", "/things/%2e%2e/1", nil, 400, "urn:problem:bad-path"},
		{"GET", "/things/a%2fb", nil, 400, "urn:problem:bad-path"},
		{"GET", "/things/%00", nil, 400, "urn:problem:bad-path"},
		{"GET", "/things/%ff", nil, 400, "urn:problem:bad-path"},
		{"GET", "/things/" + strings.Repeat("x", 2048), nil, 414, "urn:problem:uri-too-long"},
		{"GET", "/things/1?" + strings.Repeat("q", 4097), nil, 414, "urn:problem:uri-too-long"},
		{"GET", "/things/1?" + strings.Repeat("a&", 101), nil, 400, "urn:problem:too-many-params"},
		{"GET", "/things/1", []string{"X_User_Id", "admin"}, 400, "urn:problem:bad-header"},
		{"GET", "/things/1", []string{"Accept", "text/xml"}, 406, "urn:problem:not-acceptable"},
		{"GET", "/things/1", []string{"Accept", "text/xml, */*;q=0.1"}, 200, "1"},
		{"GET", "/panic", nil, 500, "urn:problem:internal"},
	} {
		r, err := http.NewRequest(c.method, "http://"+s.Addr()+c.target, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(c.header); i += 2 {
			r.Header[c.header[i]] = []string{c.header[i+1]}
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Errorf("%s %.40s: %v", c.method, c.target, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.status || !strings.Contains(string(body), c.want) {
			t.Errorf("%s %.40s %v: %d %s; want %d %s", c.method, c.target, c.header, resp.StatusCode, body, c.status, c.want)
		}
		if c.status >= 400 && resp.Header.Get("Content-Type") != problem.ContentType {
			t.Errorf("%s %.40s: content type %q", c.method, c.target, resp.Header.Get("Content-Type"))
		}
		if c.target == "/things/1" && c.method == "POST" && resp.Header.Get("Allow") != "GET" {
			t.Errorf("Allow is %q", resp.Header.Get("Allow"))
		}
	}
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	r := routes()
	r.Get("/slow", func(http.ResponseWriter, *http.Request) { close(entered); <-release })
	s, _, _ := start(t, env("MAX_IN_FLIGHT", "1"), r, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if resp, err := client.Get("http://" + s.Addr() + "/slow"); err == nil {
			resp.Body.Close()
		}
	}()
	<-entered
	status, body, header := get(t, "http://"+s.Addr()+"/things/1")
	if status != 503 || !strings.Contains(body, "overloaded") || header.Get("Retry-After") != "1" {
		t.Errorf("got %d %s", status, body)
	}
	close(release)
	<-done
	if status, _, _ := get(t, "http://"+s.Addr()+"/things/1"); status != 200 {
		t.Errorf("afterwards: %d", status)
	}
}

func TestConfiguration(t *testing.T) {
	var cfg config
	base, err := configure(t.Context(), &cfg, env("HTTP_ADDR", "127.0.0.1:8081"))
	if err != nil {
		t.Fatal(err)
	}
	if base.AdminAddr != "127.0.0.1:9081" || !base.Development() {
		t.Errorf("got %+v", base)
	}
	if text := fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg); strings.Contains(text, "hunter2") {
		t.Errorf("a secret is printed: %s", text)
	}
	for name, e := range map[string]envconfig.Lookuper{
		"missing":         envconfig.MapLookuper(map[string]string{}),
		"bad environment": env("WAYBILL_ENV", "prod"),
		"bad address":     env("HTTP_ADDR", "8081"),
	} {
		if _, err := configure(t.Context(), new(config), e); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	var usage bytes.Buffer
	printUsage(&usage, "thing", new(config))
	for _, want := range []string{"HTTP_ADDR", "127.0.0.1:0", "DATABASE_URL", "(required)", "the database", "0s"} {
		if !strings.Contains(usage.String(), want) {
			t.Errorf("usage lacks %q:\n%s", want, usage.String())
		}
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	s, _, _ := start(t, env(), routes(), nil)
	err := Run(t.Context(), "thing", env("HTTP_ADDR", s.Addr(), "ADMIN_ADDR", "127.0.0.1:0"),
		func(context.Context, *Service, config) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "HTTP_ADDR") || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}

func TestStreamsOutliveTheReadDeadline(t *testing.T) {
	if testing.Short() {
		t.Skip("waits 16 s for the read deadline")
	}
	t.Parallel()
	r := routes()
	r.Get("/stream", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
			t.Error("the stream's context ended")
		case <-time.After(readTimeout + time.Second):
		}
	})
	s, _, _ := start(t, env(), r, nil)
	get(t, "http://"+s.Addr()+"/stream")
}
