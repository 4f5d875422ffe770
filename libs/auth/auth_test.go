package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// issuer is a key set that tests change and count the fetches of.
type issuer struct {
	mu      sync.Mutex
	keys    []jwk.Key
	fetches int
	err     error
}

func (i *issuer) jwks(context.Context) ([]byte, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fetches++
	if i.err != nil {
		return nil, i.err
	}
	return PublicKeys(i.keys...)
}

func (i *issuer) count() int { i.mu.Lock(); defer i.mu.Unlock(); return i.fetches }

// clock is a time that stands until a test moves it.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time             { c.mu.Lock(); defer c.mu.Unlock(); return c.t }
func (c *clock) add(d time.Duration)        { c.mu.Lock(); defer c.mu.Unlock(); c.t = c.t.Add(d) }
func (c *clock) unix(d time.Duration) int64 { return c.now().Add(d).Unix() }

func newKey(t *testing.T, kid string) jwk.Key {
	t.Helper()
	k, err := NewKey(kid)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

type setup struct {
	*issuer
	*clock
	key  jwk.Key
	dir  string
	v    *Verifier
	stop context.CancelFunc
}

// newSetup is a verifier of the service "inventory" that has fetched its keys once.
func newSetup(t *testing.T) *setup {
	t.Helper()
	s := &setup{key: newKey(t, "k1"), clock: &clock{t: time.Now().Truncate(time.Second)}, dir: t.TempDir()}
	s.issuer = &issuer{keys: []jwk.Key{s.key}}
	if err := GenerateServiceKeys(s.dir, []string{"order", "inventory"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	s.stop = cancel
	var err error
	s.v, err = NewVerifier(ctx, VerifierConfig{JWKS: s.jwks, ServiceJWKSFile: filepath.Join(s.dir, "services.jwks"), Audience: "inventory", Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	for s.count() == 0 { // the first fetch is the verifier's own
		time.Sleep(time.Millisecond)
	}
	return s
}

func (s *setup) claims() Claims {
	return Claims{Subject: "alice", Tenant: 1, Roles: []string{"customer"}, IssuedAt: s.unix(0), Expires: s.unix(10 * time.Minute)}
}

func TestGoodTokens(t *testing.T) {
	s := newSetup(t)
	token, err := SignUser(s.key, s.claims())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second is from the cache
		p, err := s.v.Verify(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		if p.Subject != "alice" || p.Tenant != 1 || !p.Has("operator", "customer") || p.Has("admin") || p.Service != "" || p.Token != token {
			t.Errorf("got %+v", p)
		}
	}
	signer, err := NewSigner("order", filepath.Join(s.dir, "order.jwk"))
	if err != nil {
		t.Fatal(err)
	}
	token, err = signer.Token("inventory")
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.v.Verify(t.Context(), token)
	if err != nil || p.Service != "order" || p.Subject != "order" || p.Tenant != 0 || p.Has("admin") {
		t.Errorf("got %+v %v", p, err)
	}
	if again, _ := signer.Token("inventory"); again != token {
		t.Error("a token that still lives is made anew")
	}
	if _, err := NewSigner("payment", filepath.Join(s.dir, "order.jwk")); err == nil {
		t.Error("a service may sign with another one's key")
	}
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// forge signs any header and claims with the key, as an issuer without checks would.
func forge(t *testing.T, key jwk.Key, header, claims string) string {
	t.Helper()
	var private ed25519.PrivateKey
	if err := jwk.Export(key, &private); err != nil {
		t.Fatal(err)
	}
	signed := b64(header) + "." + b64(claims)
	return signed + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(private, []byte(signed)))
}

func TestBadTokens(t *testing.T) {
	s := newSetup(t)
	now := s.now().Unix()
	good, err := SignUser(s.key, s.claims())
	if err != nil {
		t.Fatal(err)
	}
	seg := strings.Split(good, ".")
	const h = `{"alg":"EdDSA","kid":"k1","typ":"at+jwt"}`
	claims := func(change ...string) string {
		m := map[string]string{"iss": `"waybill"`, "sub": `"alice"`, "aud": `"waybill"`, "tenant": "1", "roles": `["admin"]`,
			"iat": fmt.Sprint(now), "exp": fmt.Sprint(now + 600)}
		for i := 0; i+1 < len(change); i += 2 {
			m[change[i]] = change[i+1]
		}
		var parts []string
		for k, v := range m {
			if v != "" {
				parts = append(parts, fmt.Sprintf("%q:%s", k, v))
			}
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	if _, err := s.v.Verify(t.Context(), forge(t, s.key, h, claims())); err != nil {
		t.Fatalf("the forger's plain token is refused: %v", err)
	}
	public, err := s.jwks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, public)
	hs := b64(`{"alg":"HS256","kid":"k1","typ":"at+jwt"}`) + "." + b64(claims())
	mac.Write([]byte(hs))
	flip := func(s string) string {
		c := byte('A')
		if s[0] == c {
			c = 'B'
		}
		return string(c) + s[1:]
	}
	orderKey, err := readKey(filepath.Join(s.dir, "order.jwk"))
	if err != nil {
		t.Fatal(err)
	}
	kid, _ := orderKey.KeyID()
	svc := func(kid, iss, sub, aud string, life int64) string {
		return forge(t, orderKey, fmt.Sprintf(`{"alg":"EdDSA","kid":%q,"typ":"svc+jwt"}`, kid),
			fmt.Sprintf(`{"iss":%q,"sub":%q,"aud":%q,"iat":%d,"exp":%d}`, iss, sub, aud, now, now+life))
	}
	if _, err := s.v.Verify(t.Context(), svc(kid, "order", "order", "inventory", 60)); err != nil {
		t.Fatalf("the forger's plain service token is refused: %v", err)
	}
	rows := map[string]string{
		"empty":                   "",
		"text":                    "abc",
		"alg none":                b64(`{"alg":"none","kid":"k1","typ":"at+jwt"}`) + "." + b64(claims()) + ".",
		"alg None with signature": forge(t, s.key, `{"alg":"None","kid":"k1","typ":"at+jwt"}`, claims()),
		"alg nOnE":                b64(`{"alg":"nOnE","kid":"k1","typ":"at+jwt"}`) + "." + b64(claims()) + ".",
		"alg missing":             forge(t, s.key, `{"kid":"k1","typ":"at+jwt"}`, claims()),
		"alg RS256":               forge(t, s.key, `{"alg":"RS256","kid":"k1","typ":"at+jwt"}`, claims()),
		"alg ES256, zero r and s": b64(`{"alg":"ES256","kid":"k1","typ":"at+jwt"}`) + "." + b64(claims()) + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)),
		"HS256 with public key":   hs + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)),
		"unknown kid":             forge(t, s.key, `{"alg":"EdDSA","kid":"k9","typ":"at+jwt"}`, claims()),
		"no kid":                  forge(t, s.key, `{"alg":"EdDSA","typ":"at+jwt"}`, claims()),
		"kid is a path":           forge(t, s.key, `{"alg":"EdDSA","kid":"../../x","typ":"at+jwt"}`, claims()),
		"kid is SQL":              forge(t, s.key, `{"alg":"EdDSA","kid":"' OR 1=1","typ":"at+jwt"}`, claims()),
		"kid of 10 KiB":           forge(t, s.key, `{"alg":"EdDSA","kid":"`+strings.Repeat("k", 10<<10)+`","typ":"at+jwt"}`, claims()),
		"jku":                     forge(t, s.key, `{"alg":"EdDSA","kid":"k1","typ":"at+jwt","jku":"http://127.0.0.1:1/"}`, claims()),
		"x5u":                     forge(t, s.key, `{"alg":"EdDSA","kid":"k1","typ":"at+jwt","x5u":"http://127.0.0.1:1/"}`, claims()),
		"jwk":                     forge(t, s.key, `{"alg":"EdDSA","kid":"k1","typ":"at+jwt","jwk":{}}`, claims()),
		"crit":                    forge(t, s.key, `{"alg":"EdDSA","kid":"k1","typ":"at+jwt","crit":["x"],"x":1}`, claims()),
		"b64":                     forge(t, s.key, `{"alg":"EdDSA","kid":"k1","typ":"at+jwt","b64":false}`, claims()),
		"zip":                     forge(t, s.key, `{"alg":"EdDSA","kid":"k1","typ":"at+jwt","zip":"DEF"}`, claims()),
		"duplicate alg":           forge(t, s.key, `{"alg":"none","alg":"EdDSA","kid":"k1","typ":"at+jwt"}`, claims()),
		"typ JWT":                 forge(t, s.key, `{"alg":"EdDSA","kid":"k1","typ":"JWT"}`, claims()),
		"no typ":                  forge(t, s.key, `{"alg":"EdDSA","kid":"k1"}`, claims()),
		"user key, service typ":   forge(t, s.key, `{"alg":"EdDSA","kid":"k1","typ":"svc+jwt"}`, claims()),
		"service key, user typ":   forge(t, orderKey, fmt.Sprintf(`{"alg":"EdDSA","kid":%q,"typ":"at+jwt"}`, kid), claims()),
		"expired":                 forge(t, s.key, h, claims("iat", fmt.Sprint(now-700), "exp", fmt.Sprint(now-31))),
		"not yet":                 forge(t, s.key, h, claims("nbf", fmt.Sprint(now+60))),
		"issued in the future":    forge(t, s.key, h, claims("iat", fmt.Sprint(now+60), "exp", fmt.Sprint(now+600))),
		"wrong iss":               forge(t, s.key, h, claims("iss", `"other"`)),
		"no iss":                  forge(t, s.key, h, claims("iss", "")),
		"wrong aud":               forge(t, s.key, h, claims("aud", `"inventory"`)),
		"no aud":                  forge(t, s.key, h, claims("aud", "")),
		"no sub":                  forge(t, s.key, h, claims("sub", "")),
		"no tenant":               forge(t, s.key, h, claims("tenant", "")),
		"negative tenant":         forge(t, s.key, h, claims("tenant", "-1")),
		"tenant as string":        forge(t, s.key, h, claims("tenant", `"1"`)),
		"no exp":                  forge(t, s.key, h, claims("exp", "")),
		"no iat":                  forge(t, s.key, h, claims("iat", "")),
		"exp as string":           forge(t, s.key, h, claims("exp", fmt.Sprintf("%q", fmt.Sprint(now+600)))),
		"exp as float":            forge(t, s.key, h, claims("exp", fmt.Sprintf("%d.5", now+600))),
		"exp negative":            forge(t, s.key, h, claims("exp", "-1")),
		"exp in year 9999":        forge(t, s.key, h, claims("exp", "253402300799")),
		"exp twice":               forge(t, s.key, h, strings.TrimSuffix(claims(), "}")+fmt.Sprintf(`,"exp":%d}`, now+600)),
		"claims are an array":     forge(t, s.key, h, "[]"),
		"tampered claims":         seg[0] + "." + b64(claims("sub", `"root"`)) + "." + seg[2],
		"tampered signature":      seg[0] + "." + seg[1] + "." + flip(seg[2]),
		"truncated signature":     good[:len(good)-4],
		"no signature":            seg[0] + "." + seg[1] + ".",
		"padding":                 good + "==",
		"line break inside":       seg[0] + "." + seg[1][:4] + "\n" + seg[1][4:] + "." + seg[2],
		"five segments":           good + ".a.b",
		"two segments":            seg[0] + "." + seg[1],
		"100000 dots":             strings.Repeat(".", 100000),
		"5 KiB":                   strings.Repeat("a", 5<<10),
		"other callee":            svc(kid, "order", "order", "payment", 60),
		"service as waybill":      svc(kid, "waybill", "waybill", "inventory", 60),
		"service as another":      svc(kid, "inventory", "inventory", "inventory", 60),
		"service, sub of another": svc(kid, "order", "admin", "inventory", 60),
		"service for an hour":     svc(kid, "order", "order", "inventory", 3600),
	}
	h2 := s.v.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("let through") }))
	for name, token := range rows {
		t.Run(name, func(t *testing.T) {
			if p, err := s.v.Verify(t.Context(), token); err == nil || errors.Is(err, ErrNoKeys) {
				t.Fatalf("got %+v, %v", p, err)
			}
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			rec := httptest.NewRecorder()
			h2.ServeHTTP(rec, r)
			if rec.Code != 401 || rec.Header().Get("WWW-Authenticate") != `Bearer error="invalid_token"` {
				t.Errorf("got %d %v", rec.Code, rec.Header())
			}
		})
	}
	// The last character of a 64-byte signature has two unused bits: another spelling of the same signature.
	last := seg[2][len(seg[2])-1]
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	other := alphabet[strings.IndexByte(alphabet, last)|1]
	if other != last {
		if _, err := s.v.Verify(t.Context(), good[:len(good)-1]+string(other)); err == nil {
			t.Error("a token has two spellings")
		}
	}
	if n := s.count(); n > 2 {
		t.Errorf("the table caused %d fetches", n)
	}
}

func TestAuthorizationHeader(t *testing.T) {
	s := newSetup(t)
	good, err := SignUser(s.key, s.claims())
	if err != nil {
		t.Fatal(err)
	}
	h := s.v.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if From(r.Context()).Subject != "alice" {
			t.Error("no principal")
		}
	}))
	for _, c := range []struct {
		name   string
		header []string
		status int
	}{
		{"good", []string{"Bearer " + good}, 200},
		{"scheme in another case", []string{"bearer " + good}, 200},
		{"none", nil, 401},
		{"two", []string{"Bearer " + good, "Bearer " + good}, 401},
		{"basic", []string{"Basic YTpi"}, 401},
		{"bare", []string{good}, 401},
		{"empty", []string{"Bearer "}, 401},
		{"two spaces", []string{"Bearer  " + good}, 401},
	} {
		r := httptest.NewRequest("GET", "/?access_token="+good, nil)
		r.Header["Authorization"] = c.header
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != c.status {
			t.Errorf("%s: %d", c.name, rec.Code)
		}
	}
}

func TestLeeway(t *testing.T) {
	s := newSetup(t)
	token, err := SignUser(s.key, s.claims())
	if err != nil {
		t.Fatal(err)
	}
	s.add(10*time.Minute + leeway - time.Second)
	if _, err := s.v.Verify(t.Context(), token); err != nil {
		t.Errorf("a second before the end of the leeway: %v", err)
	}
	s.add(2 * time.Second) // it is in the cache now, and must not live on there
	if _, err := s.v.Verify(t.Context(), token); err == nil {
		t.Error("a second after the end of the leeway the token is good")
	}
}

func TestKeyRotation(t *testing.T) {
	s := newSetup(t)
	old, err := SignUser(s.key, s.claims())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.v.Verify(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	next := newKey(t, "k2")
	s.issuer.mu.Lock()
	s.keys = append(s.keys, next)
	s.issuer.mu.Unlock()
	s.add(unknownEvery)
	token, err := SignUser(next, s.claims())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.v.Verify(t.Context(), token); err != nil {
		t.Errorf("a published key is not fetched when it is first seen: %v", err)
	}
	s.issuer.mu.Lock()
	s.keys = []jwk.Key{next}
	s.issuer.mu.Unlock()
	if err := s.v.users.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.v.Verify(t.Context(), old); err == nil {
		t.Error("a token of a removed key lives on in the cache")
	}
}

func TestUnknownKeysFetchOnceAMinute(t *testing.T) {
	s := newSetup(t)
	good, err := SignUser(s.key, s.claims())
	if err != nil {
		t.Fatal(err)
	}
	before := s.count()
	s.add(unknownEvery)
	other := newKey(t, "placeholder")
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 250 {
				k, _ := other.Clone()
				_ = k.Set(jwk.KeyIDKey, fmt.Sprintf("x%d-%d", g, i))
				token, _ := SignUser(k, s.claims())
				if _, err := s.v.Verify(context.Background(), token); err == nil {
					t.Error("accepted")
				}
			}
		})
	}
	wg.Wait()
	if n := s.count() - before; n != 1 {
		t.Errorf("1,000 unknown keys caused %d fetches", n)
	}
	if _, err := s.v.Verify(t.Context(), good); err != nil {
		t.Errorf("a good token suffers: %v", err)
	}
}

func TestLastGoodKeysAreKept(t *testing.T) {
	s := newSetup(t)
	good, err := SignUser(s.key, s.claims())
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []func(){
		func() { s.err = errors.New("issuer is away") },
		func() { s.err, s.keys = nil, nil },
	} {
		s.issuer.mu.Lock()
		bad()
		s.issuer.mu.Unlock()
		if err := s.v.users.refresh(t.Context()); err == nil {
			t.Error("a bad key set is taken")
		}
		s.v.verified.clear()
		if _, err := s.v.Verify(t.Context(), good); err != nil {
			t.Errorf("the last good keys are gone: %v", err)
		}
	}
}

func TestNoKeysYetIsNoFaultOfTheToken(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	v, err := NewVerifier(ctx, VerifierConfig{JWKSURL: "http://127.0.0.1:1/", Audience: "inventory"})
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t, "k1")
	token, err := SignUser(key, Claims{Subject: "a", Tenant: 1, IssuedAt: time.Now().Unix(), Expires: time.Now().Add(time.Minute).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	rec := httptest.NewRecorder()
	v.Middleware(http.NotFoundHandler()).ServeHTTP(rec, r)
	if rec.Code != 503 || rec.Header().Get("Retry-After") == "" {
		t.Errorf("got %d", rec.Code)
	}
}

func TestKeySetsWithPrivateKeysAreRefused(t *testing.T) {
	set := jwk.NewSet()
	_ = set.AddKey(newKey(t, "k1"))
	doc, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseKeys(doc); err == nil {
		t.Error("accepted")
	}
}

func TestServiceKeysAreMadeOnce(t *testing.T) {
	dir := t.TempDir()
	if err := GenerateServiceKeys(dir, []string{"order"}); err != nil {
		t.Fatal(err)
	}
	first, _ := os.ReadFile(filepath.Join(dir, "order.jwk"))
	if err := GenerateServiceKeys(dir, []string{"order", "payment"}); err != nil {
		t.Fatal(err)
	}
	second, _ := os.ReadFile(filepath.Join(dir, "order.jwk"))
	if string(first) != string(second) || len(first) == 0 {
		t.Error("a key was replaced")
	}
	if info, _ := os.Stat(filepath.Join(dir, "order.jwk")); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestRoles(t *testing.T) {
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for _, c := range []struct {
		p      Principal
		h      http.Handler
		status int
	}{
		{Principal{Subject: "a", Roles: []string{"operator"}}, RequireRole("operator", "admin")(ok), 200},
		{Principal{Subject: "a", Roles: []string{"customer"}}, RequireRole("operator", "admin")(ok), 403},
		{Principal{}, RequireRole("admin")(ok), 403},
		{Principal{Subject: "order", Service: "order"}, RequireService("order")(ok), 200},
		{Principal{Subject: "order", Service: "payment"}, RequireService("order")(ok), 403},
		{Principal{Subject: "order"}, RequireService("order")(ok), 403}, // a user who is called like a service
		{Principal{}, RequireService("")(ok), 403},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		rec := httptest.NewRecorder()
		c.h.ServeHTTP(rec, r.WithContext(WithPrincipal(r.Context(), c.p)))
		if rec.Code != c.status {
			t.Errorf("%+v: %d, want %d", c.p, rec.Code, c.status)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add("a.b.c")
	f.Add(b64(`{"alg":"EdDSA","kid":"k1","typ":"at+jwt"}`) + "." + b64(`{"iss":"waybill"}`) + "." + b64("x"))
	f.Fuzz(func(t *testing.T, token string) {
		h, _, err := open(token)
		if err == nil && (h.Alg != "EdDSA" || !validKid(h.Kid) || strings.Count(token, ".") != 2 || len(token) > maxToken) {
			t.Errorf("%q is opened as %+v", token, h)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	key, _ := NewKey("k1")
	is := &issuer{keys: []jwk.Key{key}}
	v, err := NewVerifier(b.Context(), VerifierConfig{JWKS: is.jwks, Audience: "x"})
	if err != nil {
		b.Fatal(err)
	}
	token, _ := SignUser(key, Claims{Subject: "a", Tenant: 1, IssuedAt: time.Now().Unix(), Expires: time.Now().Add(time.Minute).Unix()})
	for _, cached := range []bool{true, false} {
		b.Run(fmt.Sprintf("cached=%v", cached), func(b *testing.B) {
			for b.Loop() {
				if !cached {
					v.verified.clear()
				}
				if _, err := v.Verify(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
