package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/sethvargo/go-envconfig"
	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/testkit"
	"github.com/waybill-dev/waybill/services/gateway/internal/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// gateway is one that runs as main would run it, with everything behind it played by the test.
type gateway struct {
	t        testing.TB
	url      string
	admin    string
	redis    *miniredis.Miniredis
	contract *testkit.Contract
	client   *http.Client
	link     *testkit.Link // to its database
	stop     context.CancelFunc
	ended    chan error
	behind   chan *http.Request // what arrived at a service
}

// behind plays every service: it answers what the path asks for.
func (g *gateway) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	select {
	case g.behind <- r:
	default:
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Request-Id", "the service's")
	switch {
	case r.URL.Path == "/openapi.yaml":
		fmt.Fprint(w, "openapi: 3.1.0\ninfo: {title: x, version: '1'}\npaths:\n  /orders:\n    get: {responses: {200: {$ref: '#/components/responses/A'}}}\n"+
			"  /inventory/reservations: {}\n  /interventions/{id}: {}\ncomponents: {responses: {A: {description: a}}}\n")
	case strings.HasSuffix(r.URL.Path, "/events") && strings.HasPrefix(r.URL.Path, "/orders/"):
		w.Header().Set("Content-Type", "text/event-stream")
		for i := 0; ; i++ {
			fmt.Fprintf(w, "id: %d\ndata: x\n\n", i)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	case r.URL.Path == "/orders/garbage":
		conn, _, _ := http.NewResponseController(w).Hijack()
		_, _ = conn.Write([]byte("not http\r\n\r\n"))
		conn.Close()
	default:
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write([]byte(`{}`))
	}
}

func start(t testing.TB, env ...string) *gateway {
	t.Helper()
	_, database := testkit.Postgres(t, postgres.Migrations)
	link := testkit.NewLink(t, database)
	g := &gateway{t: t, link: link, redis: miniredis.RunT(t), ended: make(chan error, 1), behind: make(chan *http.Request, 100),
		client: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(g.client.CloseIdleConnections)
	services := httptest.NewServer(http.HandlerFunc(g.serve))
	t.Cleanup(services.Close)
	vars := map[string]string{
		"DATABASE_URL": link.URL, "REDIS_ADDR": g.redis.Addr(), "WAYBILL_ENV": "development", "LOG_LEVEL": "fatal",
		"HTTP_ADDR": "127.0.0.1:0", "ADMIN_ADDR": "127.0.0.1:0",
		"REDIS_TIMEOUT": "10s", // a test machine may be busier than any gateway
	}
	g.redis.SetTime(epoch) // the clock of the limits stands still until a test moves it
	for _, name := range []string{"ORDER", "PAYMENT", "INVENTORY", "SHIPPING", "NOTIFICATION", "ANALYTICS", "METRICS_PROCESSOR"} {
		vars[name+"_URL"] = services.URL
	}
	for i := 0; i+1 < len(env); i += 2 {
		vars[env[i]] = env[i+1]
	}
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	up := make(chan *service.Service, 1)
	go func() {
		g.ended <- service.Run(ctx, "gateway", envconfig.MapLookuper(vars), func(ctx context.Context, s *service.Service, cfg Config) error {
			up <- s
			return run(ctx, s, cfg)
		})
	}()
	select {
	case s := <-up:
		g.url, g.admin = "http://"+s.Addr(), "http://"+s.AdminAddr()
	case err := <-g.ended:
		t.Fatalf("the gateway ended: %v", err)
	}
	testkit.Eventually(t, 20*time.Second, func() bool {
		resp, err := g.client.Get(g.admin + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	}, "the gateway is not ready")
	t.Cleanup(func() {
		stop()
		select {
		case <-g.ended:
		case <-time.After(10 * time.Second):
			t.Error("the gateway does not end")
		}
	})
	return g
}

// do sends a request and checks the answer against openapi.yaml, where that has the path.
func (g *gateway) do(method, path, body string, header ...string) (*http.Response, string) {
	g.t.Helper()
	r, err := http.NewRequest(method, g.url+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header[header[i]] = append(r.Header[header[i]], header[i+1])
	}
	resp, err := g.client.Do(r)
	if err != nil {
		g.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatalf("%s %s: %v", method, path, err)
	}
	if g.contract != nil {
		resp.Body = io.NopCloser(bytes.NewReader(text))
		g.contract.Check(g.t, r, []byte(body), resp)
	}
	return resp, string(text)
}

type grant struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

func (g *gateway) login(user string) grant {
	g.t.Helper()
	resp, body := g.do("POST", "/auth/login", fmt.Sprintf(`{"username":%q,"password":"password"}`, user))
	var out grant
	if err := json.Unmarshal([]byte(body), &out); err != nil || resp.StatusCode != 200 || out.Access == "" || out.Refresh == "" {
		g.t.Fatalf("login of %s: %d %s", user, resp.StatusCode, body)
	}
	return out
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

func slug(body string) string {
	_, rest, _ := strings.Cut(body, "urn:problem:")
	s, _, _ := strings.Cut(rest, `"`)
	return s
}

// TestSession is the session with curl that the platform promises, word for word.
func TestSession(t *testing.T) {
	g := start(t)
	g.contract = testkit.OpenAPI(t, "openapi.yaml")

	if resp, body := g.do("GET", "/health", ""); resp.StatusCode != 200 || body != "{\"status\":\"ok\"}\n" {
		t.Errorf("health: %d %s", resp.StatusCode, body)
	}
	token := g.login("admin").Access
	if resp, _ := g.do("GET", "/protected", ""); resp.StatusCode != 401 {
		t.Errorf("without a token: %d", resp.StatusCode)
	}
	var statuses []int
	for i := range 20 { // ten a second on the clock of the limit: no wall clock has a say
		g.redis.SetTime(epoch.Add(time.Duration(i) * 100 * time.Millisecond))
		resp, body := g.do("GET", "/protected", "", bearer(token)...)
		statuses = append(statuses, resp.StatusCode)
		if resp.StatusCode == 200 && !strings.Contains(body, `"subject":"admin"`) {
			t.Errorf("body: %s", body)
		}
		if resp.StatusCode == 429 && (slug(body) != "rate-limited" || resp.Header.Get("Retry-After") != "1") {
			t.Errorf("429: %v %s", resp.Header, body)
		}
		if got := resp.Header.Get("RateLimit-Policy"); got != `"protected";q=10;w=5` {
			t.Errorf("policy: %s", got)
		}
	}
	// A burst of 10 and one more each 0.5 s, so 0.2 more at each request: an oracle in plain fractions says which of the twenty pass.
	var want []int
	budget := 10.0
	for i := range 20 {
		if i > 0 {
			budget = min(budget+0.2, 10)
		}
		if budget >= 1-1e-9 {
			budget--
			want = append(want, 200)
		} else {
			want = append(want, 429)
		}
	}
	if fmt.Sprint(statuses) != fmt.Sprint(want) {
		t.Errorf("split:\n got %v\nwant %v", statuses, want)
	}
	if resp, body := g.do("GET", "/metrics", ""); resp.StatusCode != 200 || !strings.Contains(body, "waybill_gateway_ratelimit_decisions_total{") ||
		!strings.Contains(body, `waybill_http_request_duration_seconds_count{code="200",method="GET",route="/protected"}`) {
		t.Errorf("metrics: %d %.300s", resp.StatusCode, body)
	}
	g.stop()
	if err := <-g.ended; err != nil {
		t.Errorf("after SIGINT the gateway ended with %v", err)
	}
	g.ended <- nil
}
