package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwt"
	"github.com/waybill-dev/waybill/libs/problem"
	"go.uber.org/zap"
)

const (
	// leeway is the difference of clocks that is forgiven.
	leeway = 30 * time.Second
	// A token that claims to live longer than these was not made by us: users get 10 min, services 60 s.
	maxUserLife    = time.Hour
	maxServiceLife = 5 * time.Minute
)

// ErrNoKeys says that the issuer's keys are not known yet. It is no fault of the token: the answer is 503.
var ErrNoKeys = errors.New("no verification keys yet")

// VerifierConfig says whose tokens are good here.
type VerifierConfig struct {
	JWKSURL         string                                // the gateway's keys
	JWKS            func(context.Context) ([]byte, error) // instead of JWKSURL, for the issuer itself
	ServiceJWKSFile string                                // public keys of the services; empty: no service may call
	Audience        string                                // own name: the audience of service tokens
	Log             *zap.Logger
	Now             func() time.Time // nil: time.Now
}

// Verifier checks tokens.
type Verifier struct {
	users, services *keyring
	audience        string
	now             func() time.Time
	verified        cache
}

// NewVerifier starts a verifier, which refreshes its keys until ctx ends. It does not wait for the issuer to be there.
func NewVerifier(ctx context.Context, c VerifierConfig) (*Verifier, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.JWKS == nil {
		if c.JWKSURL == "" {
			return nil, errors.New("auth: no source of user keys")
		}
		c.JWKS = fromURL(c.JWKSURL)
	}
	v := &Verifier{audience: c.Audience, now: c.Now}
	v.users = &keyring{source: c.JWKS, removed: v.verified.clear, now: c.Now}
	if c.ServiceJWKSFile != "" {
		v.services = &keyring{removed: v.verified.clear, now: c.Now, source: func(context.Context) ([]byte, error) {
			return os.ReadFile(c.ServiceJWKSFile)
		}}
		if err := v.services.refresh(ctx); err != nil {
			return nil, fmt.Errorf("read keys of the services: %w", err)
		}
	}
	go v.keepFresh(ctx, c.Log)
	return v, nil
}

func (v *Verifier) keepFresh(ctx context.Context, log *zap.Logger) {
	for {
		wait := refreshEvery
		if err := v.users.refresh(ctx); err != nil && ctx.Err() == nil {
			if _, n := v.users.get(""); n == 0 {
				wait = emptyEvery
			}
			log.Debug("refresh token keys", zap.Error(err))
		}
		if v.services != nil {
			if err := v.services.refresh(ctx); err != nil {
				log.Warn("refresh keys of the services", zap.Error(err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// Verify says who a token speaks for. Any error but ErrNoKeys is a 401.
func (v *Verifier) Verify(ctx context.Context, token string) (Principal, error) {
	if len(token) > maxToken {
		return Principal{}, fmt.Errorf("%w: longer than %d bytes", errToken, maxToken)
	}
	id := sha256.Sum256([]byte(token))
	if p, ok := v.verified.get(id, v.now()); ok {
		return p, nil
	}
	era := v.verified.era()
	h, c, err := open(token)
	if err != nil {
		return Principal{}, err
	}
	p := Principal{Subject: c.Subject, Token: token}
	ring, issuer, audience, life := v.users, Issuer, Audience, maxUserLife
	switch {
	case h.Typ == typUser:
		p.Tenant, p.Roles = c.Tenant, c.Roles
		if c.Tenant <= 0 {
			return Principal{}, fmt.Errorf("%w: no tenant", errToken)
		}
	case h.Typ == typService && v.services != nil:
		// The key names its service: up to the first dot of its id. A service cannot sign for another one.
		issuer, _, _ = strings.Cut(h.Kid, ".")
		ring, audience, life = v.services, v.audience, maxServiceLife
		p.Service = issuer
		if c.Subject != issuer {
			return Principal{}, fmt.Errorf("%w: subject is not its issuer", errToken)
		}
	default:
		return Principal{}, fmt.Errorf("%w: type", errToken)
	}
	expires := time.Unix(c.Expires, 0)
	if d := expires.Sub(time.Unix(c.IssuedAt, 0)); d <= 0 || d > life || c.Subject == "" {
		return Principal{}, fmt.Errorf("%w: lifetime or subject", errToken)
	}
	key, err := ring.find(ctx, h.Kid)
	if err != nil {
		return Principal{}, err
	}
	_, err = jwt.Parse([]byte(token), jwt.WithKey(jwa.EdDSA(), key), jwt.WithValidate(true),
		jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithSubject(c.Subject),
		jwt.WithRequiredClaim("exp"), jwt.WithRequiredClaim("iat"),
		jwt.WithAcceptableSkew(leeway), jwt.WithClock(jwt.ClockFunc(v.now)))
	if err != nil {
		return Principal{}, fmt.Errorf("%w: %w", errToken, err)
	}
	v.verified.put(era, id, p, expires.Add(leeway))
	return p, nil
}

// Middleware lets requests with a good token through, and puts the principal into their context.
func (v *Verifier) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := bearer(r)
		if !ok {
			unauthenticated(w, r, "unauthenticated", nil)
			return
		}
		p, err := v.Verify(r.Context(), token)
		switch {
		case errors.Is(err, ErrNoKeys):
			problem.Write(w, r, problem.Unavailable().Because(err))
		case err != nil:
			unauthenticated(w, r, "invalid-token", err)
		default:
			next.ServeHTTP(w, r.WithContext(WithPrincipal(r.Context(), p)))
		}
	})
}

// bearer is the token of the one Authorization header.
func bearer(r *http.Request) (string, bool) {
	h := r.Header["Authorization"]
	if len(h) != 1 {
		return "", false
	}
	scheme, token, ok := strings.Cut(h[0], " ")
	return token, ok && strings.EqualFold(scheme, "Bearer") && token != ""
}

// unauthenticated answers 401. The reason is for the log: each kind of bad token looks the same from outside.
func unauthenticated(w http.ResponseWriter, r *http.Request, slug string, cause error) {
	w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	problem.Write(w, r, problem.New(http.StatusUnauthorized, slug, "a valid bearer token is needed").Because(cause))
}

// generation bounds the cache: two of them, about 1 KiB an entry.
const generation = 2048

// cache remembers verified tokens by hash until they expire: a look-up costs a hundredth of a check (BenchmarkVerify). When the young
// generation is full the old one is dropped, so it never needs a sweep.
type cache struct {
	mu         sync.RWMutex
	young, old map[[32]byte]entry
	cleared    uint64
}

type entry struct {
	principal Principal
	until     time.Time
}

func (c *cache) get(id [32]byte, now time.Time) (Principal, bool) {
	c.mu.RLock()
	e, ok := c.young[id]
	if !ok {
		e, ok = c.old[id]
	}
	c.mu.RUnlock()
	return e.principal, ok && now.Before(e.until)
}

// era changes when a key is removed; what was verified in an older one is not stored.
func (c *cache) era() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.cleared
}

func (c *cache) put(era uint64, id [32]byte, p Principal, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cleared != era {
		return
	}
	if c.young == nil || len(c.young) >= generation {
		c.old, c.young = c.young, map[[32]byte]entry{}
	}
	c.young[id] = entry{p, until}
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.young, c.old = nil, nil
	c.cleared++
}
