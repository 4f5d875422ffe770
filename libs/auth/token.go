package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
)

const (
	typUser    = "at+jwt"
	typService = "svc+jwt"
	// Issuer and Audience of user tokens.
	Issuer, Audience = "waybill", "waybill"
	// maxToken is checked before anything is parsed: ours have about 500 bytes.
	maxToken = 4 << 10
)

// Claims are the claims of both kinds of token. Times are whole seconds; a token with any other form of them is refused.
type Claims struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience string   `json:"aud"`
	Expires  int64    `json:"exp"`
	IssuedAt int64    `json:"iat"`
	ID       string   `json:"jti,omitempty"`
	Tenant   int64    `json:"tenant,omitempty"`
	Roles    []string `json:"roles,omitempty"`
}

// SignUser makes an access token with the issuer's key.
func SignUser(key jwk.Key, c Claims) (string, error) {
	c.Issuer, c.Audience = Issuer, Audience
	return sign(key, typUser, c)
}

func sign(key jwk.Key, typ string, c Claims) (string, error) {
	payload, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("encode claims: %w", err)
	}
	kid, _ := key.KeyID()
	h := jws.NewHeaders()
	for name, value := range map[string]any{jws.TypeKey: typ, jws.KeyIDKey: kid} {
		if err := h.Set(name, value); err != nil {
			return "", fmt.Errorf("set token header %s: %w", name, err)
		}
	}
	token, err := jws.Sign(payload, jws.WithKey(jwa.EdDSA(), key, jws.WithProtectedHeaders(h)))
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return string(token), nil
}

// NewKey makes an Ed25519 signing key.
func NewKey(kid string) (jwk.Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	key, err := jwk.Import(private)
	if err != nil {
		return nil, fmt.Errorf("import key: %w", err)
	}
	for name, value := range map[string]any{jwk.KeyIDKey: kid, jwk.AlgorithmKey: jwa.EdDSA(), jwk.KeyUsageKey: "sig"} {
		if err := key.Set(name, value); err != nil {
			return nil, fmt.Errorf("set %s of key: %w", name, err)
		}
	}
	return key, nil
}

// PublicKeys is the JWKS document of keys, without their private parts.
func PublicKeys(keys ...jwk.Key) ([]byte, error) {
	set := jwk.NewSet()
	for _, k := range keys {
		public, err := k.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("take public key: %w", err)
		}
		if err := set.AddKey(public); err != nil {
			return nil, fmt.Errorf("add public key: %w", err)
		}
	}
	return json.Marshal(set)
}

var errToken = errors.New("token is not one of ours")

// header is all that a token's header may hold.
type header struct {
	Alg string `json:"alg"`
	Kid string `json:"kid"`
	Typ string `json:"typ"`
}

// open takes a token apart without trusting it: sizes and alphabet first, each segment in its one canonical base64 form
// (else one token would have many spellings), then header and claims as strict JSON.
func open(token string) (h header, c Claims, err error) {
	if len(token) > maxToken {
		return h, c, fmt.Errorf("%w: longer than %d bytes", errToken, maxToken)
	}
	if strings.Count(token, ".") != 2 {
		return h, c, fmt.Errorf("%w: not three segments", errToken)
	}
	seg := strings.Split(token, ".")
	var raw [3][]byte
	for i := range seg {
		// CR and LF are skipped by the decoder, so they are refused here.
		if strings.ContainsAny(seg[i], "\r\n") {
			return h, c, fmt.Errorf("%w: segment %d", errToken, i)
		}
		if raw[i], err = base64.RawURLEncoding.Strict().DecodeString(seg[i]); err != nil {
			return h, c, fmt.Errorf("%w: segment %d", errToken, i)
		}
	}
	if err := json.Unmarshal(raw[0], &h, json.RejectUnknownMembers(true)); err != nil {
		return h, c, fmt.Errorf("%w: header", errToken)
	}
	if h.Alg != "EdDSA" {
		return h, c, fmt.Errorf("%w: algorithm", errToken)
	}
	if !validKid(h.Kid) {
		return h, c, fmt.Errorf("%w: key id", errToken)
	}
	if err := json.Unmarshal(raw[1], &c); err != nil {
		return h, c, fmt.Errorf("%w: claims", errToken)
	}
	return h, c, nil
}

// validKid keeps key ids to names that are safe wherever they end: a map, a log line, a file name.
func validKid(kid string) bool {
	if kid == "" || len(kid) > 64 || kid[0] == '.' {
		return false
	}
	for i := range len(kid) {
		c := kid[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.", c) >= 0) {
			return false
		}
	}
	return true
}
