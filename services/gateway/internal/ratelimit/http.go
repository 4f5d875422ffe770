package ratelimit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/gateway/internal/address"
)

// Middleware limits requests by what key makes of them. Exact policies ask Redis each time; the others lease.
func (l *Limiter) Middleware(p Policy, exact bool, key func(*http.Request) string) func(http.Handler) http.Handler {
	take := l.TakeLeased
	if exact {
		take = l.Take
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			d := take(r.Context(), p, key(r))
			setHeaders(w.Header(), p, d)
			if !d.Allowed {
				problem.Write(w, r, limited(d))
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// setHeaders tells the client its budget (draft-ietf-httpapi-ratelimit-headers-10): q requests in w seconds, r are left, whole again in t.
func setHeaders(h http.Header, p Policy, d Decision) {
	window := seconds(time.Duration(p.Burst) * p.Interval)
	h.Set("RateLimit-Policy", fmt.Sprintf(`"%s";q=%d;w=%d`, p.Name, p.Burst, max(window, 1)))
	h.Set("RateLimit", fmt.Sprintf(`"%s";r=%d;t=%d`, p.Name, max(d.Remaining, 0), seconds(d.Reset)))
}

func limited(d Decision) *problem.Problem {
	return problem.New(http.StatusTooManyRequests, "rate-limited", "too many requests").After(max(d.Retry, time.Millisecond))
}

func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

// Logins limits failed logins, by address and by account.
type Logins struct {
	limiter *Limiter
	book    address.Book

	address, account, known Policy
}

// knownFor is how long an address that an account has logged in from is remembered.
const knownFor = 30 * 24 * time.Hour

// NewLogins allows perMinute failures a minute and address, and 5 at once and 50 an hour for an account. Addresses that the account
// has logged in from have a budget of their own, or anybody could lock anybody out.
func NewLogins(l *Limiter, book address.Book, perMinute int) *Logins {
	return &Logins{limiter: l, book: book,
		address: Policy{Name: "login-address", Burst: perMinute, Interval: time.Minute / time.Duration(perMinute), Strict: true},
		account: Policy{Name: "login-account", Burst: 5, Interval: time.Hour / 50, Strict: true},
		known:   Policy{Name: "login-known", Burst: 5, Interval: time.Minute / 5, Strict: true},
	}
}

// Try books a failure before the password is checked, so that parallel guesses cannot slip through; succeeded gives it back.
func (g *Logins) Try(r *http.Request, account string) (succeeded func(context.Context), err error) {
	ctx := r.Context()
	from := address.Key(g.book.Client(r))
	sum := sha256.Sum256([]byte(account)) // what was typed into the wrong field may be a password
	who := hex.EncodeToString(sum[:16])
	if d := g.limiter.Take(ctx, g.address, from); !d.Allowed {
		return nil, limited(d)
	}
	policy, key := g.account, who
	if g.isKnown(ctx, who, from) {
		policy, key = g.known, who+":"+from
	}
	if d := g.limiter.Take(ctx, policy, key); !d.Allowed {
		return nil, limited(d)
	}
	return func(ctx context.Context) {
		g.limiter.GiveBack(ctx, g.address, from)
		g.limiter.GiveBack(ctx, policy, key)
		g.remember(ctx, who, from)
	}, nil
}

func (g *Logins) isKnown(ctx context.Context, who, from string) bool {
	if g.limiter.brokenTil.Load() != 0 {
		return false
	}
	n, err := g.limiter.redis.Exists(ctx, "known:"+who+":"+from).Result()
	return err == nil && n == 1
}

func (g *Logins) remember(ctx context.Context, who, from string) {
	if g.limiter.brokenTil.Load() == 0 {
		g.limiter.redis.Set(ctx, "known:"+who+":"+from, 1, knownFor) // a loss costs a bigger budget, no more
	}
}
