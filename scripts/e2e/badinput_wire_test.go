package e2e_test

import (
	"bufio"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	network "net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// raw is a row that no HTTP client would send.
type raw struct {
	name   string
	text   string
	status int
	slug   string
	open   bool // the connection may stay open, or is closed later
}

// Requests as bytes. What cannot be read for certain is refused and the connection closed, so that nothing that follows is read as
// another request.
func TestBadBytes(t *testing.T) {
	t.Parallel()
	const host, end = "Host: gateway\r\n", "\r\n\r\n"
	bearer := "Authorization: Bearer " + fresh(t, customer) + "\r\n"
	login := `{"username":"admin","password":"` + typed + `"}`
	post := "POST /orders HTTP/1.1\r\n" + host + bearer + "Content-Type: application/json\r\n"
	smuggled := "GET /interventions/order HTTP/1.1\r\n" + host + "\r\n"
	for _, r := range []raw{
		{"length and coding", post + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG" + smuggled, 400, "malformed-request", false},
		{"coding and length", post + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + smuggled, 400, "malformed-request", false},
		{"two lengths", post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}" + smuggled, 400, "malformed-request", false},
		{"list of lengths", post + "Content-Length: 2, 2\r\n\r\n{}", 400, "malformed-request", false},
		{"length with a sign", post + "Content-Length: +2\r\n\r\n{}", 400, "malformed-request", false},
		{"negative length", post + "Content-Length: -2\r\n\r\n{}", 400, "malformed-request", false},
		{"length beyond a number", post + "Content-Length: 99999999999999999999\r\n\r\n{}", 400, "malformed-request", false},
		{"bad chunk", post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400, "malformed-request", false},
		{"chunk longer than it says", post + "Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n", 400, "malformed-request", false},
		{"bad chunk to the gateway itself", "POST /auth/login HTTP/1.1\r\n" + host + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + login + "\r\n0\r\n\r\n", 400, "malformed-request", false},
		{"coding in HTTP/1.0", "POST /orders HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "malformed-request", false},
		{"coding gzip", post + "Transfer-Encoding: gzip\r\n\r\n", 501, "not-implemented", false},
		{"codings gzip, chunked", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "not-implemented", false},
		{"unknown coding", post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, "not-implemented", false},
		{"two hosts", "GET /health HTTP/1.1\r\n" + host + "Host: elsewhere\r\n\r\n", 400, "malformed-request", false},
		{"no host", "GET /health HTTP/1.1" + end, 400, "malformed-request", false},
		{"host that is none", "GET /health HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "malformed-request", false},
		{"folded header", "GET /health HTTP/1.1\r\n" + host + "X-A: b\r\n c" + end, 400, "malformed-request", false},
		{"folded with a tab", "GET /health HTTP/1.1\r\n" + host + "X-A: b\r\n\tc" + end, 400, "malformed-request", false},
		{"NUL in a header", "GET /health HTTP/1.1\r\n" + host + "X-A: b\x00c" + end, 400, "malformed-request", false},
		{"bare CR in a header", "GET /health HTTP/1.1\r\n" + host + "X-A: b\rc" + end, 400, "malformed-request", false},
		{"space before the colon", "GET /health HTTP/1.1\r\n" + host + "X-A : b" + end, 400, "malformed-request", false},
		{"header without a name", "GET /health HTTP/1.1\r\n" + host + ": b" + end, 400, "malformed-request", false},
		{"header without a colon", "GET /health HTTP/1.1\r\n" + host + "X-A" + end, 400, "malformed-request", false},
		{"NUL in the path", "GET /orders/a\x00b HTTP/1.1\r\n" + host + "\r\n", 400, "malformed-request", false},
		{"line break in the path", "GET /orders/a\nb HTTP/1.1\r\n" + host + "\r\n", 400, "malformed-request", false},
		{"bad escape in the path", "GET /orders/%zz HTTP/1.1\r\n" + host + "\r\n", 400, "malformed-request", false},
		{"three spaces", "GET  /health  HTTP/1.1\r\n" + host + "\r\n", 400, "malformed-request", false},
		{"no version", "GET /health\r\n" + host + "\r\n", 400, "malformed-request", false},
		{"method of brackets", "G(T /health HTTP/1.1\r\n" + host + "\r\n", 400, "malformed-request", false},
		{"version of tomorrow", "GET /health HTTP/3.0\r\n" + host + "\r\n", 505, "http-version-unsupported", false},
		{"HTTP/2 at once", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad-path", true},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "malformed-request", false},
		{"header block of 32 KiB", "GET /health HTTP/1.1\r\n" + host + "X-A: " + strings.Repeat("a", 32<<10) + end, 431, "header-too-large", false},
		{"2,000 headers", "GET /health HTTP/1.1\r\n" + host + strings.Repeat("X-A: abcdefghi\r\n", 2000) + "\r\n", 431, "header-too-large", false},
		{"100,000 dots as a token", "GET /protected HTTP/1.1\r\n" + host + "Authorization: Bearer " + strings.Repeat(".", 100_000) + end, 431, "header-too-large", false},
		{"no UTF-8 in the path", "GET /orders/\xff\xfe HTTP/1.1\r\n" + host + bearer + "\r\n", 400, "bad-path", true},
		{"header with an underscore", "GET /health HTTP/1.1\r\n" + host + "X_User: root" + end, 400, "bad-header", true},
		{"trace", "TRACE /health HTTP/1.1\r\n" + host + "\r\n", 405, "method-not-allowed", true},
		{"connect", "CONNECT provider:443 HTTP/1.1\r\nHost: provider:443\r\n\r\n", 405, "method-not-allowed", true},
		{"connect with a path", "CONNECT /orders HTTP/1.1\r\n" + host + "\r\n", 405, "method-not-allowed", true},
		{"another host's address", "GET http://provider/nothing HTTP/1.1\r\n" + host + "\r\n", 404, "not-found", true}, // we are no proxy: the path counts
		{"asterisk", "GET * HTTP/1.1\r\n" + host + "\r\n", 400, "bad-path", true},
		{"upgrade to h2c", "GET /health HTTP/1.1\r\n" + host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA" + end, 200, "", true},
		{"upgrade to a socket", "GET /orders/none-such/events HTTP/1.1\r\n" + host + bearer + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13" + end, 404, "not-found", true},
		{"too large, and it would wait", "POST /auth/login HTTP/1.1\r\n" + host + "Content-Type: application/json\r\nContent-Length: 100000\r\nExpect: 100-continue" + end, 413, "body-too-large", true}, // it closes when the rest has not come after 15 s
		{"much too large, and it would wait", post + "Content-Length: 100000000\r\nExpect: 100-continue" + end, 413, "body-too-large", false},
		{"expects something else", post + "Content-Length: 2\r\nExpect: wonders\r\n\r\n{}", 400, "malformed-request", false},
	} {
		t.Run(r.name, func(t *testing.T) { r.check(t) })
	}
}

func (r raw) check(t *testing.T) {
	got, closed := talk(t, r.text, !r.open)
	if r.slug == "" {
		if got.status != r.status {
			t.Errorf("%d, want %d", got.status, r.status)
		}
		return
	}
	if got.asked, _, _ = strings.Cut(r.text, " "); !strings.Contains("TRACE CONNECT", got.asked) {
		got.asked = r.name
	}
	row{status: r.status, slug: r.slug}.verify(t, got)
	if !r.open && !closed {
		t.Error("the connection stays open")
	}
}

// talk sends bytes to the gateway and reads one answer, and whether the gateway hangs up after it; last waits until it does.
func talk(t *testing.T, text string, last bool) (got reply, closed bool) {
	t.Helper()
	return hear(t, say(t, text), last)
}

func say(t *testing.T, text string) network.Conn {
	t.Helper()
	u, err := url.Parse(platform.gateway)
	if err != nil {
		t.Fatal(err)
	}
	c, err := network.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	go func() { _, _ = io.WriteString(c, text) }() // the gateway may answer and close before it has read all
	return c
}

func hear(t *testing.T, c network.Conn, last bool) (got reply, closed bool) {
	t.Helper()
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Close && last {
		if _, err := r.ReadByte(); err == nil {
			t.Error("something follows the last answer")
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the gateway says that it closes, and does not")
		}
	}
	return reply{resp.StatusCode, resp.Header, body, "bytes"}, resp.Close
}

// Clients that take their time are cut: 5 s for the header, 15 s for the request.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED with -short: slow clients are cut off after 15 s, and that is waited for; make test does")
	}
	begun := time.Now()
	header := say(t, "GET /health HTTP/1.1\r\nHost: gateway\r\nX-A")
	var bodies []network.Conn
	for _, head := range []string{"POST /auth/login", "POST /orders"} { // read by the gateway, and passed on
		bodies = append(bodies, say(t, head+" HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer "+fresh(t, customer)+
			"\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{"))
	}
	if _, err := io.ReadAll(header); errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) > 12*time.Second {
		t.Errorf("half a header keeps its connection for %v", time.Since(begun))
	}
	for _, c := range bodies {
		got, closed := hear(t, c, true)
		row{status: http.StatusRequestTimeout, slug: "request-timeout"}.verify(t, got)
		if !closed {
			t.Error("the connection stays open")
		}
	}
}

// fresh is a token that is good for a while yet.
func fresh(t testing.TB, a actor) string {
	t.Helper()
	if err := a.do(t, http.MethodGet, "/orders?limit=1", nil).into(http.StatusOK, nil); err != nil {
		t.Fatal(err)
	}
	token, err := a.token(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// token is a JWT in the making.
type token struct {
	header, claims map[string]any
	rawHeader      string // instead of header
	rawClaims      string
	key            ed25519.PrivateKey
	sign           func(signed string) []byte // instead of key
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (j token) String() string {
	h, c := j.rawHeader, j.rawClaims
	if h == "" {
		b, _ := json.Marshal(j.header)
		h = string(b)
	}
	if c == "" {
		b, _ := json.Marshal(j.claims)
		c = string(b)
	}
	signed := b64([]byte(h)) + "." + b64([]byte(c))
	if j.sign != nil {
		return signed + "." + b64(j.sign(signed))
	}
	return signed + "." + b64(ed25519.Sign(j.key, []byte(signed)))
}

// with is the token with one member of its header or claims changed; nil takes it out.
func (j token) with(part, name string, value any) token {
	c := j
	c.header, c.claims = map[string]any{}, map[string]any{}
	for k, v := range j.header {
		c.header[k] = v
	}
	for k, v := range j.claims {
		c.claims[k] = v
	}
	of := c.claims
	if part == "header" {
		of = c.header
	}
	if value == nil {
		delete(of, name)
	} else {
		of[name] = value
	}
	return c
}

// faults are the ways in which a token may be wrong although its signature is right.
func (j token) faults() map[string]string {
	now := time.Now().Unix()
	own := map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(j.key.Public().(ed25519.PublicKey))}
	out := map[string]string{}
	for _, f := range []struct {
		name, part, member string
		value              any
	}{
		{"alg none", "header", "alg", "none"}, {"alg None", "header", "alg", "None"}, {"alg empty", "header", "alg", ""}, {"no alg", "header", "alg", nil},
		{"alg HS256", "header", "alg", "HS256"}, {"alg RS256", "header", "alg", "RS256"}, {"alg in small letters", "header", "alg", "eddsa"}, {"alg a number", "header", "alg", 1},
		{"kid of nobody", "header", "kid", "nobody.1"}, {"kid a path", "header", "kid", "../../x"}, {"kid SQL", "header", "kid", "' OR 1=1"}, {"kid of 10 KiB", "header", "kid", strings.Repeat("k", 10<<10)},
		{"kid empty", "header", "kid", ""}, {"no kid", "header", "kid", nil}, {"kid a number", "header", "kid", 7}, {"kid with NUL", "header", "kid", "a\x00b"},
		{"jku", "header", "jku", "http://127.0.0.1:1/keys"}, {"x5u", "header", "x5u", "http://127.0.0.1:1/cert"}, {"jwk", "header", "jwk", own}, {"x5c", "header", "x5c", []string{"AA"}},
		{"crit", "header", "crit", []string{"exp"}}, {"b64", "header", "b64", false}, {"zip", "header", "zip", "DEF"}, {"cty", "header", "cty", "JWT"},
		{"typ JWT", "header", "typ", "JWT"}, {"no typ", "header", "typ", nil},
		{"expired", "claims", "exp", now - 3600}, {"no exp", "claims", "exp", nil}, {"exp text", "claims", "exp", fmt.Sprint(now + 60)}, {"exp half a second", "claims", "exp", float64(now) + 60.5},
		{"exp negative", "claims", "exp", -1}, {"exp year 9999", "claims", "exp", 253402300799}, {"exp beyond int64", "claims", "exp", 1e30},
		{"not yet", "claims", "nbf", now + 3600}, {"issued tomorrow", "claims", "iat", now + 86400}, {"no iat", "claims", "iat", nil},
		{"other issuer", "claims", "iss", "evil"}, {"no issuer", "claims", "iss", nil}, {"other audience", "claims", "aud", "elsewhere"}, {"no audience", "claims", "aud", nil},
		{"no subject", "claims", "sub", nil}, {"subject a number", "claims", "sub", 1},
	} {
		out[f.name] = j.with(f.part, f.member, f.value).String()
	}
	twice := j
	h, _ := json.Marshal(j.header)
	c, _ := json.Marshal(j.claims)
	twice.rawHeader = strings.Replace(string(h), "{", `{"alg":"none",`, 1)
	out["alg twice"] = twice.String()
	twice.rawHeader, twice.rawClaims = "", strings.Replace(string(c), "{", `{"sub":"admin",`, 1)
	out["subject twice"] = twice.String()
	return out
}

// TestBadTokens forges. From outside nobody can sign as the gateway, so each of these has a second fault, its signature; that each would be refused
// for its own fault alone is shown below with the keys of a service, where they can be read.
func TestBadTokens(t *testing.T) {
	t.Parallel()
	good := fresh(t, customer)
	part := strings.Split(good, ".")
	var forged token
	for i, into := range []*map[string]any{&forged.header, &forged.claims} {
		text, err := base64.RawURLEncoding.DecodeString(part[i])
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(strings.NewReader(string(text)))
		d.UseNumber()
		if err := d.Decode(into); err != nil {
			t.Fatal(err)
		}
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forged.key = key
	var set struct{ Keys []struct{ Kid, X string } }
	doc := nobody.do(t, http.MethodGet, "/.well-known/jwks.json", nil)
	if err := doc.into(http.StatusOK, &set); err != nil {
		t.Fatal(err)
	}
	mac := func(key []byte) func(string) []byte {
		return func(signed string) []byte {
			h := hmac.New(sha256.New, key)
			h.Write([]byte(signed))
			return h.Sum(nil)
		}
	}
	bad := forged.faults()
	bad["signed by another key"] = forged.String()
	bad["more roles"] = forged.with("claims", "roles", []string{"admin", "operator"}).String()
	hs := forged.with("header", "alg", "HS256")
	for _, k := range set.Keys {
		public, err := base64.RawURLEncoding.DecodeString(k.X)
		if err != nil {
			t.Fatal(err)
		}
		hs.sign = mac(public)
		bad["HS256 by the public key "+k.Kid] = hs.String()
		hs.sign = mac([]byte(k.X))
		bad["HS256 by its text "+k.Kid] = hs.String()
	}
	hs.sign = mac(doc.body)
	bad["HS256 by the key set"] = hs.String()
	changed, err := json.Marshal(forged.with("claims", "sub", "admin").claims)
	if err != nil {
		t.Fatal(err)
	}
	none := forged.with("header", "alg", "none")
	none.sign = func(string) []byte { return nil }
	bad["changed"] = part[0] + "." + b64(changed) + "." + part[2]
	bad["unsigned"] = part[0] + "." + part[1] + "."
	bad["unsigned, alg none"] = none.String()
	bad["without a signature's dot"] = part[0] + "." + part[1]
	bad["signature of zeros"] = part[0] + "." + part[1] + "." + strings.Repeat("A", len(part[2]))
	bad["signature cut"] = good[:len(good)-2]
	bad["signature padded"] = good + "=="
	bad["header padded"] = part[0] + "=." + part[1] + "." + part[2]
	bad["other bits at the end"] = respell(good)
	bad["encrypted"] = part[0] + "." + part[1] + "." + part[2] + "." + part[1] + "." + part[2]
	bad["four segments"] = good + "."
	bad["dots"] = strings.Repeat(".", 4000)
	bad["long"] = strings.Repeat("a", 8000)
	bad["one letter"] = "a"
	bad["null"] = "null"
	bad["header no JSON"] = b64([]byte("{")) + "." + part[1] + "." + part[2]
	bad["header an array"] = b64([]byte("[]")) + "." + part[1] + "." + part[2]
	bad["header of brackets"] = b64([]byte(strings.Repeat("[", 2000))) + "." + part[1] + "." + part[2]
	for name, text := range bad {
		t.Run(name, func(t *testing.T) {
			for _, where := range []string{"GET /protected", "GET /orders", "order GET /orders", "payment GET /payments/x"} {
				refused(t, where, text, http.StatusUnauthorized, "invalid-token")
			}
		})
	}
	t.Run("carriers", func(t *testing.T) {
		for _, r := range []row{
			{name: "empty", header: []string{"Authorization", "Bearer "}},
			{name: "no scheme", header: []string{"Authorization", good}},
			{name: "Basic", header: []string{"Authorization", "Basic YWRtaW46cGFzc3dvcmQ="}},
			{name: "other scheme", header: []string{"Authorization", "Token " + good}},
			{name: "twice", header: []string{"Authorization", "Bearer " + good, "Authorization", "Bearer " + good}},
			{name: "good after bad", header: []string{"Authorization", "Bearer a.b.c", "Authorization", "Bearer " + good}},
			{name: "cookie", header: []string{"Cookie", "access_token=" + good}},
			{name: "other header", header: []string{"X-Authorization", "Bearer " + good}},
			{name: "query", request: "GET /orders?access_token=" + good},
			{name: "query, to the gateway", request: "GET /protected?access_token=" + good},
			{name: "two in one", header: []string{"Authorization", "Bearer " + good + ", Bearer " + good}, slug: "invalid-token"},
			{name: "tab", header: []string{"Authorization", "Bearer\t" + good}},
			{name: "two spaces", header: []string{"Authorization", "Bearer  " + good}, slug: "invalid-token"},
		} {
			if r.request == "" {
				r.request = "GET /orders"
			}
			if r.status = http.StatusUnauthorized; r.slug == "" {
				r.slug = "unauthenticated"
			}
			t.Run(r.name, func(t *testing.T) {
				r.verify(t, ask(t, nobody, r.request, "", r.header))
				if strings.HasPrefix(r.request, "GET /orders") {
					r.verify(t, ask(t, nobody, "order "+r.request, "", r.header))
				}
			})
		}
	})
	t.Run("services", func(t *testing.T) { serviceTokens(t, good) })
	// None of them cost anything worth mentioning, or made the good one bad.
	refused(t, "GET /orders?limit=1", good, http.StatusOK, "")
}

// respell is the token in another spelling: the last letter of a 64-byte signature has four bits that mean nothing.
func respell(token string) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(letters, token[len(token)-1])
	return token[:len(token)-1] + string(letters[last^1])
}

func refused(t *testing.T, where, token string, status int, slug string) {
	t.Helper()
	got := ask(t, nobody, where, "", []string{"Authorization", "Bearer " + token})
	row{status: status, slug: slug}.verify(t, got)
	if len(token) > 64 && strings.Contains(string(got.body), token[:64]) {
		t.Errorf("%s: the token comes back: %s", where, got.body)
	}
}

// serviceTokens signs with a service's real key, so that a token's one fault is the one that it is named for.
func serviceTokens(t *testing.T, user string) {
	keyOf := func(service string) (token, bool) {
		text, err := os.ReadFile(filepath.Join(platform.data, "keys", service+".jwk"))
		var k struct{ Kid, D string }
		if platform.data == "" || err != nil || json.Unmarshal(text, &k) != nil {
			return token{}, false
		}
		seed, err := base64.RawURLEncoding.DecodeString(k.D)
		if err != nil || len(seed) != ed25519.SeedSize {
			return token{}, false
		}
		now := time.Now().Unix()
		return token{
			header: map[string]any{"alg": "EdDSA", "kid": k.Kid, "typ": "svc+jwt"},
			claims: map[string]any{"iss": service, "sub": service, "aud": "inventory", "iat": now, "exp": now + 60, "jti": unique("jti")},
			key:    ed25519.NewKeyFromSeed(seed),
		}, true
	}
	order, ok := keyOf("order")
	shipping, ok2 := keyOf("shipping")
	if !ok || !ok2 {
		t.Skip("the services' keys cannot be read here")
	}
	const where = "inventory POST /inventory/reservations"
	send := func(t *testing.T, token string, status int, slug string) {
		t.Helper()
		got := ask(t, nobody, where, `{"reservations":[]}`, []string{"Authorization", "Bearer " + token})
		row{status: status, slug: slug}.verify(t, got)
	}
	t.Run("good", func(t *testing.T) { send(t, order.String(), 422, "invalid-field") }) // who asks is fine, what they ask is not
	bad := order.faults()
	bad["of another callee"] = order.with("claims", "aud", "payment").String()
	bad["for two callees"] = order.with("claims", "aud", []string{"inventory", "payment"}).String()
	bad["in another's name"] = shipping.with("claims", "iss", "order").with("claims", "sub", "order").String()
	bad["subject of another"] = shipping.with("claims", "sub", "order").String()
	bad["as a user"] = order.with("header", "typ", "at+jwt").with("claims", "iss", "waybill").with("claims", "aud", "waybill").
		with("claims", "tenant", 1).with("claims", "roles", []string{"admin"}).String()
	bad["for an hour"] = order.with("claims", "exp", time.Now().Unix()+3600).String()
	bad["under another's key id"] = order.with("header", "kid", shipping.header["kid"]).String()
	for name, text := range bad {
		t.Run(name, func(t *testing.T) { send(t, text, http.StatusUnauthorized, "invalid-token") })
	}
	t.Run("of a service that may not", func(t *testing.T) { send(t, shipping.String(), http.StatusForbidden, "forbidden") })
	t.Run("of a user", func(t *testing.T) { send(t, user, http.StatusForbidden, "forbidden") })
	for _, path := range []string{"GET /protected", "GET /orders", "GET /interventions/order"} {
		t.Run("at the gateway "+path, func(t *testing.T) {
			refused(t, path, order.with("claims", "aud", "gateway").String(), http.StatusUnauthorized, "invalid-token")
		})
	}
}
