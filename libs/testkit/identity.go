package testkit

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/waybill-dev/waybill/libs/auth"
)

// Issuer stands in for the gateway: it publishes keys and makes tokens that a service accepts.
type Issuer struct {
	JWKSURL string
	KeysDir string // <service>.jwk and services.jwks, as auth.GenerateServiceKeys makes them
	Key     jwk.Key
	t       testing.TB
}

// Services are the names that have keys in tests.
var Services = []string{
	"gateway", "order", "payment", "inventory", "shipping", "notification", "analytics", "metrics-processor",
}

// Identity starts an issuer.
func Identity(t testing.TB) *Issuer {
	t.Helper()
	key, err := auth.NewKey("test")
	if err != nil {
		t.Fatalf("make the issuer's key: %v", err)
	}
	keys, err := auth.PublicKeys(key)
	if err != nil {
		t.Fatalf("make the issuer's key set: %v", err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(keys) }))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	if err := auth.GenerateServiceKeys(dir, Services); err != nil {
		t.Fatalf("make the services' keys: %v", err)
	}
	return &Issuer{JWKSURL: server.URL, KeysDir: dir, Key: key, t: t}
}

// UserToken is an access token for ten minutes.
func (i *Issuer) UserToken(sub string, tenant int64, roles ...string) string {
	i.t.Helper()
	now := time.Now()
	token, err := auth.SignUser(i.Key, auth.Claims{
		Subject: sub, Tenant: tenant, Roles: roles, IssuedAt: now.Unix(), Expires: now.Add(10 * time.Minute).Unix(),
	})
	if err != nil {
		i.t.Fatalf("make a user token: %v", err)
	}
	return token
}

// ServiceToken is a token of the service from for calls to the service to.
func (i *Issuer) ServiceToken(from, to string) string {
	i.t.Helper()
	token, err := i.Signer(from).Token(to)
	if err != nil {
		i.t.Fatalf("make a service token: %v", err)
	}
	return token
}

// Signer signs as the named service.
func (i *Issuer) Signer(name string) *auth.Signer {
	i.t.Helper()
	s, err := auth.NewSigner(name, i.KeyFile(name))
	if err != nil {
		i.t.Fatalf("open the service's key: %v", err)
	}
	return s
}

// KeyFile is the private key of a service: WAYBILL_SERVICE_KEY.
func (i *Issuer) KeyFile(name string) string { return filepath.Join(i.KeysDir, name+".jwk") }

// ServiceJWKSFile holds the public keys of the services: WAYBILL_SERVICE_JWKS.
func (i *Issuer) ServiceJWKSFile() string { return filepath.Join(i.KeysDir, "services.jwks") }

// VerifierConfig is how the service audience would verify tokens.
func (i *Issuer) VerifierConfig(audience string) auth.VerifierConfig {
	return auth.VerifierConfig{JWKSURL: i.JWKSURL, ServiceJWKSFile: i.ServiceJWKSFile(), Audience: audience}
}

// Verifier verifies as the service audience, until the test ends.
func (i *Issuer) Verifier(audience string) *auth.Verifier {
	i.t.Helper()
	v, err := auth.NewVerifier(i.t.Context(), i.VerifierConfig(audience))
	if err != nil {
		i.t.Fatalf("start a verifier: %v", err)
	}
	return v
}
