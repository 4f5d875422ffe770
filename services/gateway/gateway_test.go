package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sethvargo/go-envconfig"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/testkit"
	"github.com/waybill-dev/waybill/services/gateway/internal/login"
	"github.com/waybill-dev/waybill/services/gateway/internal/postgres"
)

// TestDocumentedAnswers sees each answer of openapi.yaml, the bad ones row by row.
func TestDocumentedAnswers(t *testing.T) {
	g := start(t, "LOGIN_PER_MINUTE", "1000")
	g.contract = testkit.OpenAPI(t, "openapi.yaml")
	good := g.login("customer")
	other := g.login("customer2")
	long := strings.Repeat("x", 129)
	body := func(user, password string) string {
		return fmt.Sprintf(`{"username":%q,"password":%q}`, user, password)
	}
	refresh := func(token string) string { return fmt.Sprintf(`{"refresh_token":%q}`, token) }
	for _, c := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		slug                     string
	}{
		{"wrong password", "POST", "/auth/login", body("admin", "wrong"), nil, 401, "invalid-credentials"},
		{"unknown user", "POST", "/auth/login", body("nobody", "password"), nil, 401, "invalid-credentials"},
		{"user with NUL", "POST", "/auth/login", `{"username":"a\u0000","password":"x"}`, nil, 400, "malformed-json"},
		{"no user", "POST", "/auth/login", `{"password":"x"}`, nil, 400, "missing-field"},
		{"no password", "POST", "/auth/login", `{"username":"admin"}`, nil, 400, "missing-field"},
		{"null password", "POST", "/auth/login", `{"username":"admin","password":null}`, nil, 400, "malformed-json"},
		{"long password", "POST", "/auth/login", body("admin", long), nil, 422, "invalid-field"},
		{"long user", "POST", "/auth/login", body(long, "x"), nil, 422, "invalid-field"},
		{"form", "POST", "/auth/login", "username=admin", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "unsupported-media-type"},
		{"large", "POST", "/auth/login", strings.Repeat(" ", 64<<10) + body("admin", "x"), nil, 413, "body-too-large"},
		{"two passwords", "POST", "/auth/login", `{"username":"admin","password":"a","password":"password"}`, nil, 400, "malformed-json"},
		{"unknown member", "POST", "/auth/login", `{"username":"admin","password":"password","admin":true}`, nil, 400, "unknown-field"},
		{"wrong method", "GET", "/auth/login", "", nil, 405, "method-not-allowed"},
		{"no refresh token", "POST", "/auth/refresh", `{}`, nil, 400, "missing-field"},
		{"unknown refresh token", "POST", "/auth/refresh", refresh(login.NewToken().String()), nil, 401, "invalid-grant"},
		{"malformed refresh token", "POST", "/auth/refresh", refresh("x"), nil, 401, "invalid-grant"},
		{"access token to refresh", "POST", "/auth/refresh", refresh(good.Access), nil, 401, "invalid-grant"},
		{"refresh", "POST", "/auth/refresh", refresh(good.Refresh), nil, 200, ""},
		{"logout without token", "POST", "/auth/logout", "", nil, 401, "unauthenticated"},
		{"logout with a bad body", "POST", "/auth/logout", `{"refresh_token":"x"}`, bearer(good.Access), 400, "missing-field"},
		{"logout of another's session", "POST", "/auth/logout", refresh(other.Refresh), bearer(good.Access), 204, ""},
		{"whose session goes on", "POST", "/auth/refresh", refresh(other.Refresh), nil, 200, ""},
		{"logout", "POST", "/auth/logout", "", bearer(good.Access), 204, ""},
		{"logout again", "POST", "/auth/logout", "", bearer(good.Access), 204, ""},
		{"refresh after logout", "POST", "/auth/refresh", refresh(good.Refresh), nil, 401, "invalid-grant"},
		{"protected", "GET", "/protected", "", bearer(good.Access), 200, ""},
		{"protected, refresh token", "GET", "/protected", "", bearer(good.Refresh), 401, "invalid-token"},
		{"protected, token in query", "GET", "/protected?access_token=" + good.Access, "", nil, 401, "unauthenticated"},
		{"protected, two tokens", "GET", "/protected", "", append(bearer(good.Access), bearer(good.Access)...), 401, "unauthenticated"},
		{"health", "GET", "/health", "", nil, 200, ""},
		{"health, any query", "GET", "/health?x=1", "", nil, 200, ""},
		{"ready", "GET", "/health/ready", "", nil, 200, ""},
		{"live", "GET", "/health/live", "", nil, 200, ""},
		{"keys", "GET", "/.well-known/jwks.json", "", nil, 200, ""},
		{"metrics", "GET", "/metrics", "", nil, 200, ""},
		{"document", "GET", "/openapi.json", "", nil, 200, ""},
		{"unknown path", "GET", "/nothing", "", nil, 404, "not-found"},
		{"pprof", "GET", "/debug/pprof/", "", nil, 404, "not-found"},
		{"underscore", "GET", "/protected", "", append(bearer(good.Access), "X_User_Id", "1"), 400, "bad-header"},
		{"dots", "GET", "/orders/%2e%2e/x", "", bearer(good.Access), 400, "bad-path"},
		{"slashes", "GET", "//orders", "", bearer(good.Access), 400, "bad-path"},
		{"only XML", "GET", "/protected", "", append(bearer(good.Access), "Accept", "text/xml"), 406, "not-acceptable"},
		{"trace", "TRACE", "/protected", "", nil, 405, "method-not-allowed"},
	} {
		resp, text := g.do(c.method, c.path, c.body, c.header...)
		if resp.StatusCode != c.status || c.status >= 400 && slug(text) != c.slug {
			t.Errorf("%s: got %d %s, want %d %s", c.name, resp.StatusCode, text, c.status, c.slug)
		}
		if c.status == 401 && strings.HasPrefix(c.path, "/protected") && resp.Header.Get("WWW-Authenticate") != `Bearer error="invalid_token"` {
			t.Errorf("%s: WWW-Authenticate is %q", c.name, resp.Header.Get("WWW-Authenticate"))
		}
		if strings.HasPrefix(c.path, "/auth") && resp.Header.Get("Cache-Control") != "no-store" && c.status != 204 {
			t.Errorf("%s may be cached: %q", c.name, resp.Header.Get("Cache-Control"))
		}
	}
	_, wrong := g.do("POST", "/auth/login", body("admin", "wrong"))
	_, unknown := g.do("POST", "/auth/login", body("nobody", "wrong"))
	cut := func(s string) string { a, _, _ := strings.Cut(s, `"trace_id"`); return a }
	if cut(wrong) != cut(unknown) {
		t.Errorf("a wrong password reads %s, an unknown user %s", wrong, unknown)
	}
	for range 12 {
		g.do("GET", "/protected", "", bearer(good.Access)...)
	}
	// Not seen here: what needs the database away (503), production (404 of /metrics), or thousands of requests (429).
	g.contract.Complete(t, "GET /health 503", "GET /health/ready 503", "GET /metrics 404", "GET /.well-known/jwks.json 429",
		"POST /auth/login 429", "POST /auth/login 503", "POST /auth/refresh 429", "POST /auth/refresh 503", "POST /auth/logout 503")
}

// Without its database nobody can log in or come back, and is told to try again; who has a token goes on.
func TestDatabaseAway(t *testing.T) {
	g := start(t)
	g.contract = testkit.OpenAPI(t, "openapi.yaml")
	tokens := g.login("customer")
	g.link.Cut()
	for _, request := range [][2]string{
		{"/auth/login", `{"username":"customer","password":"password"}`},
		{"/auth/refresh", fmt.Sprintf(`{"refresh_token":%q}`, tokens.Refresh)},
		{"/auth/logout", ""},
	} {
		resp, text := g.do("POST", request[0], request[1], bearer(tokens.Access)...)
		if resp.StatusCode != http.StatusServiceUnavailable || slug(text) != "unavailable" || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s, Retry-After %q", request[0], resp.StatusCode, text, resp.Header.Get("Retry-After"))
		}
	}
	if resp, text := g.do("GET", "/protected", "", bearer(tokens.Access)...); resp.StatusCode != http.StatusOK {
		t.Errorf("/protected: %d %s", resp.StatusCode, text)
	}
	g.link.Mend()
	testkit.Eventually(t, 10*time.Second, func() bool {
		resp, _ := g.do("POST", "/auth/refresh", fmt.Sprintf(`{"refresh_token":%q}`, tokens.Refresh))
		return resp.StatusCode == http.StatusOK
	}, "nobody can come back after the database has")
}

func TestRefreshReuseEndsTheFamily(t *testing.T) {
	g := start(t)
	refresh := func(token string) (int, grant, string) {
		resp, body := g.do("POST", "/auth/refresh", fmt.Sprintf(`{"refresh_token":%q}`, token))
		var out grant
		_ = json.Unmarshal([]byte(body), &out)
		return resp.StatusCode, out, slug(body)
	}
	first := g.login("customer").Refresh
	_, second, _ := refresh(first)
	if status, again, _ := refresh(first); status != 200 || again.Refresh != second.Refresh {
		t.Errorf("a lost answer: %d, the same successor: %v", status, again.Refresh == second.Refresh)
	}
	_, third, _ := refresh(second.Refresh)
	if status, _, what := refresh(first); status != 401 || what != "token-reuse" {
		t.Errorf("reuse: %d %s", status, what)
	}
	if status, _, what := refresh(third.Refresh); status != 401 || what != "invalid-grant" {
		t.Errorf("after reuse the newest token: %d %s", status, what)
	}
	if resp, _ := g.do("GET", "/protected", "", bearer(third.Access)...); resp.StatusCode != 200 {
		t.Errorf("an access token ends only by time: %d", resp.StatusCode)
	}

	// A hundred clients race with one token: one successor for all.
	token := g.login("customer").Refresh
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := map[string]int{}
	for range 100 {
		wg.Go(func() {
			resp, err := g.client.Post(g.url+"/auth/refresh", "application/json", strings.NewReader(fmt.Sprintf(`{"refresh_token":%q}`, token)))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			var out grant
			_ = json.NewDecoder(resp.Body).Decode(&out)
			mu.Lock()
			defer mu.Unlock()
			if resp.StatusCode != http.StatusServiceUnavailable { // the row's lock was not to be had in time: ask again
				seen[fmt.Sprint(resp.StatusCode, out.Refresh)]++
			}
		})
	}
	wg.Wait()
	if len(seen) != 1 {
		t.Errorf("different answers: %v", seen)
	}
}

func TestRequestsArriveAsTheyWere(t *testing.T) {
	g := start(t)
	token := g.login("customer").Access
	for _, c := range []struct{ method, path, want string }{
		{"GET", "/orders", "/orders"},
		{"POST", "/orders", "/orders"},
		{"GET", "/orders/o-1?x=1&y=%20a", "/orders/o-1?x=1&y=%20a"},
		{"POST", "/orders/a%20b/cancel", "/orders/a%20b/cancel"},
		{"GET", "/payment/o-1", "/payment/o-1"},
		{"POST", "/payments", "/payments"},
		{"GET", "/payments/o-1", "/payments/o-1"},
		{"POST", "/inventory/reserve", "/inventory/reserve"},
		{"PUT", "/products/sku-1", "/products/sku-1"},
		{"POST", "/shipping", "/shipping"},
		{"GET", "/shipping/o-1", "/shipping/o-1"},
		{"GET", "/notifications", "/notifications"},
		{"POST", "/events", "/events"},
		{"GET", "/stats", "/stats"},
		{"GET", "/reports/daily", "/reports/daily"},
		{"GET", "/metrics-processor/query?q=1", "/query?q=1"},
		{"POST", "/metrics-processor/api/v1/write", "/api/v1/write"},
		{"GET", "/interventions/order", "/interventions"},
		{"POST", "/interventions/payment/7/redrive", "/interventions/7/redrive"},
		{"GET", "/interventions/metrics-processor/7", "/interventions/7"},
	} {
		body := ""
		if c.method != "GET" {
			body = `{"a":1}`
		}
		resp, text := g.do(c.method, c.path, body, bearer(token)...)
		if resp.StatusCode != 202 {
			t.Errorf("%s %s: %d %s", c.method, c.path, resp.StatusCode, text)
			continue
		}
		r := <-g.behind
		got, _ := io.ReadAll(r.Body)
		if r.URL.RequestURI() != c.want || r.Method != c.method || string(got) != body || r.Header.Get("Authorization") != "Bearer "+token {
			t.Errorf("%s %s arrived as %s %s %q", c.method, c.path, r.Method, r.URL.RequestURI(), got)
		}
	}
	for _, path := range []string{"/inventory/reservations", "/interventions", "/interventions/gateway", "/interventions/../x", "/openapi.yaml", "/metrics-processor"} {
		if resp, _ := g.do("POST", path, "{}", bearer(token)...); resp.StatusCode/100 != 4 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	if resp, body := g.do("GET", "/orders", ""); resp.StatusCode != 401 || slug(body) != "unauthenticated" {
		t.Errorf("without a token: %d %s", resp.StatusCode, body)
	}
	for _, path := range []string{"/webhooks/payments", "/webhooks/shipping"} {
		if resp, _ := g.do("POST", path, `{}`, "Webhook-Signature", "v1,x"); resp.StatusCode != 202 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
		if r := <-g.behind; r.URL.Path != path || r.Header.Get("Webhook-Signature") != "v1,x" {
			t.Errorf("%s arrived as %s %v", path, r.URL.Path, r.Header)
		}
	}
}

func TestNobodySpeaksInTheGatewaysName(t *testing.T) {
	g := start(t)
	token := g.login("customer").Access
	resp, _ := g.do("GET", "/orders", "", append(bearer(token),
		"X-User-Id", "admin", "X-Internal-Role", "admin", "X-Forwarded-For", "10.1.1.1", "X-Forwarded-Uri", "/x", "Forwarded", "for=10.1.1.1",
		"X-Real-Ip", "10.1.1.1", "X-Original-Url", "/admin", "Cookie", "a=b", "Upgrade", "h2c",
		"Connection", "X-Forwarded-Proto, Authorization-X, keep-alive, Upgrade", "Authorization-X", "1",
		"X-Request-Id", "mine-1", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")...)
	r := <-g.behind
	for _, name := range []string{"X-User-Id", "X-Internal-Role", "X-Forwarded-Uri", "Forwarded", "X-Real-Ip", "X-Original-Url", "Cookie", "Authorization-X", "Connection", "Upgrade"} {
		if v := r.Header.Get(name); v != "" {
			t.Errorf("%s: %s has got through", name, v)
		}
	}
	want := map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Request-Id": "mine-1", "Authorization": "Bearer " + token}
	for name, v := range want {
		if diff := cmp.Diff([]string{v}, r.Header.Values(name)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if tp := r.Header.Get("Traceparent"); !strings.HasPrefix(tp, "00-0af7651916cd43dd8448eb211c80319c-") || strings.Contains(tp, "b7ad6b7169203331") {
		t.Errorf("traceparent: %s", tp)
	}
	if diff := cmp.Diff([]string{"mine-1"}, resp.Header.Values("X-Request-Id")); diff != "" {
		t.Errorf("the answer's request id: %s", diff)
	}
}

func TestWhenAServiceDoesNotAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := "http://" + l.Addr().String()
	l.Close()
	g := start(t, "PAYMENT_URL", gone)
	token := g.login("customer").Access
	resp, body := g.do("POST", "/payments", `{}`, bearer(token)...)
	if resp.StatusCode != 503 || slug(body) != "unavailable" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("refused: %d %s", resp.StatusCode, body)
	}
	resp, body = g.do("POST", "/orders/garbage", `{}`, bearer(token)...)
	if resp.StatusCode != 502 || slug(body) != "bad-upstream" {
		t.Errorf("garbage: %d %s", resp.StatusCode, body)
	}
	resp, body = g.do("GET", "/openapi.json", "")
	var doc struct {
		Paths   map[string]any
		Missing []string `json:"x-missing"`
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil || resp.StatusCode != 200 {
		t.Fatalf("document: %d %v", resp.StatusCode, err)
	}
	if diff := cmp.Diff([]string{"payment"}, doc.Missing); diff != "" {
		t.Error(diff)
	}
	for path, want := range map[string]bool{"/orders": true, "/auth/login": true, "/interventions/order/{id}": true, "/inventory/reservations": false} {
		if _, ok := doc.Paths[path]; ok != want {
			t.Errorf("merged document has %s: %v", path, ok)
		}
	}
	if !strings.Contains(body, `"#/components/responses/order.A"`) || !strings.Contains(body, `"order.A":{`) {
		t.Error("components of a service are not under its name")
	}
}

func TestStreamsPassAndEndWithTheGateway(t *testing.T) {
	g := start(t)
	token := g.login("customer").Access
	r, _ := http.NewRequest("GET", g.url+"/orders/o-1/events", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Accept", "text/event-stream")
	resp, err := g.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for range 9 { // three events: they are not held back until the end, which never comes
		if !lines.Scan() {
			t.Fatalf("the stream ended: %v", lines.Err())
		}
	}
	start := time.Now()
	g.stop()
	for lines.Scan() {
	}
	if err := <-g.ended; err != nil || time.Since(start) >= 20*time.Second { // then the drain's deadline cut the stream
		t.Errorf("with a stream open the gateway ended after %v with %v", time.Since(start), err)
	}
	g.ended <- nil
}

func TestTokensOutliveTheGateway(t *testing.T) {
	pool, url := testkit.Postgres(t, postgres.Migrations)
	g := start(t, "DATABASE_URL", url)
	token := g.login("admin")
	g.stop()
	<-g.ended
	g.ended <- nil
	again := start(t, "DATABASE_URL", url)
	if resp, body := again.do("GET", "/protected", "", bearer(token.Access)...); resp.StatusCode != 200 {
		t.Errorf("after a restart: %d %s", resp.StatusCode, body)
	}
	var raw int
	err := pool.QueryRow(t.Context(), `SELECT count(*) FROM refresh_tokens t WHERE t::text LIKE '%' || $1 || '%' OR encode(hash, 'base64') LIKE $1 || '%'`, token.Refresh).Scan(&raw)
	if err != nil || raw != 0 {
		t.Errorf("%d refresh tokens are stored as they are (%v)", raw, err)
	}
}

func TestProductionRefusesTheDemoPassword(t *testing.T) {
	pool, url := testkit.Postgres(t, postgres.Migrations)
	store := postgres.New(pool)
	if err := login.Seed(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	begin := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		env := map[string]string{"DATABASE_URL": url, "HTTP_ADDR": "127.0.0.1:0", "LOG_LEVEL": "fatal", "REDIS_ADDR": "127.0.0.1:1"}
		return service.Run(ctx, "gateway", envconfig.MapLookuper(env), func(ctx context.Context, s *service.Service, cfg Config) error {
			time.AfterFunc(time.Second, cancel) // where it does start, it may end
			return run(ctx, s, cfg)
		})
	}
	if err := begin(); err == nil || !strings.Contains(err.Error(), "admin") || !strings.Contains(err.Error(), "well-known password") {
		t.Errorf("production started: %v", err)
	}
	if _, err := pool.Exec(t.Context(), `DELETE FROM users`); err != nil {
		t.Fatal(err)
	}
	if err := begin(); err != nil {
		t.Errorf("without the demo users: %v", err)
	}
}

func TestLoginLimits(t *testing.T) {
	g := start(t, "LOGIN_PER_MINUTE", "8")
	try := func(user, password string) int {
		resp, _ := g.do("POST", "/auth/login", fmt.Sprintf(`{"username":%q,"password":%q}`, user, password))
		return resp.StatusCode
	}
	for range 12 { // good logins cost nothing
		if got := try("merchant", "password"); got != 200 {
			t.Fatalf("good login: %d", got)
		}
	}
	var got []int
	for range 7 {
		got = append(got, try("customer", "wrong"))
	}
	if diff := cmp.Diff([]int{401, 401, 401, 401, 401, 429, 429}, got); diff != "" {
		t.Errorf("guesses at one account: %s", diff)
	}
	if got := try("nobody", "wrong"); got != 401 && got != 429 {
		t.Errorf("another account: %d", got)
	}
	if got := try("nobody", "wrong"); got != 429 { // 8 failures of this address: 5 checked, 2 refused, 1 more
		t.Errorf("another account from an address that has used up its guesses: %d", got)
	}
}

func TestRedisAwayIsNeitherDownNorUnlimited(t *testing.T) {
	g := start(t)
	token := g.login("admin").Access
	g.redis.Close() // from now on each request is refused a connection at once, and the wall clock counts
	counts, begin := map[int]int{}, time.Now()
	for range 20 {
		resp, body := g.do("GET", "/protected", "", bearer(token)...)
		counts[resp.StatusCode]++
		if resp.StatusCode != 200 && resp.StatusCode != 429 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
	}
	if limit := 10 + 2*int(time.Since(begin).Seconds()+1); counts[200] < 10 || counts[200] > limit {
		t.Errorf("got %v, at most %d may pass", counts, limit)
	}
}

func TestAdminUserMayBeLockedOutOfNothing(t *testing.T) {
	// Another address guesses at admin's password until the account is limited; the address admin has used before still gets in.
	g := start(t, "TRUSTED_PROXIES", "127.0.0.0/8", "LOGIN_PER_MINUTE", "100")
	try := func(from, password string) int {
		resp, _ := g.do("POST", "/auth/login", fmt.Sprintf(`{"username":"admin","password":%q}`, password), "X-Forwarded-For", from)
		return resp.StatusCode
	}
	if got := try("203.0.113.7", "password"); got != 200 {
		t.Fatal(got)
	}
	for range 6 {
		try("198.51.100.1", "wrong")
	}
	if got := try("198.51.100.2", "password"); got != 429 {
		t.Errorf("a third address: %d", got)
	}
	if got := try("203.0.113.7", "password"); got != 200 {
		t.Errorf("the address that is known: %d", got)
	}
}

func TestAddUser(t *testing.T) {
	_, url := testkit.Postgres(t, postgres.Migrations)
	add := func(password string, args ...string) error {
		return addUser(t.Context(), url, args, strings.NewReader(password))
	}
	for name, err := range map[string]error{
		"short password": add("short\n", "ada", "7", "admin"),
		"no such role":   add("correct horse battery\n", "ada", "7", "root"),
		"tenant":         add("correct horse battery\n", "ada", "x", "admin"),
		"name":           add("correct horse battery\n", "Ada Lovelace", "7", "admin"),
		"arguments":      add("correct horse battery\n", "ada"),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := add("correct horse battery\n", "ada", "7", "operator,admin"); err != nil {
		t.Fatal(err)
	}
	if err := add("correct horse battery\n", "ada", "7", "admin"); err == nil {
		t.Error("a user is made twice")
	}
	g := start(t, "WAYBILL_ENV", "production", "DATABASE_URL", url)
	resp, body := g.do("POST", "/auth/login", `{"username":"ada","password":"correct horse battery"}`)
	if resp.StatusCode != 200 {
		t.Errorf("login: %d %s", resp.StatusCode, body)
	}
}

func TestMetricsInProduction(t *testing.T) {
	pool, url := testkit.Postgres(t, postgres.Migrations)
	_ = pool
	for allow, want := range map[string]int{"127.0.0.0/8": 200, "10.0.0.0/8": 404} {
		g := start(t, "WAYBILL_ENV", "production", "DATABASE_URL", url, "METRICS_ALLOW", allow)
		if resp, _ := g.do("GET", "/metrics", ""); resp.StatusCode != want {
			t.Errorf("%s: %d", allow, resp.StatusCode)
		}
		if resp, _ := g.do("GET", "/metrics", "", "X-Forwarded-For", "127.0.0.1"); resp.StatusCode != 404 {
			t.Errorf("%s, through a proxy: %d", allow, resp.StatusCode)
		}
	}
}

func TestMigrationsAreRepeatable(t *testing.T) {
	_, url := testkit.Postgres(t, postgres.Migrations)
	for range 2 {
		pool, err := pg.Open(t.Context(), url, zap.NewNop(), postgres.Migrations)
		if err != nil {
			t.Fatal(err)
		}
		pool.Close()
	}
}
