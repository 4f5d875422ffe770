package auth

import (
	"context"
	"net/http"
	"slices"

	"github.com/waybill-dev/waybill/libs/problem"
)

// Principal is who asks.
type Principal struct {
	Subject string // user name; for a service its name
	Tenant  int64  // 0 for a service
	Roles   []string
	Service string // calling service, or empty for a user
	Token   string // as it came, for passing on
}

// Has says whether the principal has one of the roles. A service has none.
func (p Principal) Has(roles ...string) bool {
	for _, r := range roles {
		if slices.Contains(p.Roles, r) {
			return true
		}
	}
	return false
}

type principalKey struct{}

// WithPrincipal is for tests, and for work done in somebody's name.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// From is the principal of a request that went through Middleware; else one that may do nothing.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

// Require lets through whom allowed accepts, and answers 403 to others. It goes after Middleware.
func Require(allowed func(Principal) bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !allowed(From(r.Context())) {
				problem.Write(w, r, Forbidden())
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// RequireRole lets users with one of the roles through.
func RequireRole(roles ...string) func(http.Handler) http.Handler {
	return Require(func(p Principal) bool { return p.Has(roles...) })
}

// RequireService lets the named services through, and no user.
func RequireService(names ...string) func(http.Handler) http.Handler {
	return Require(func(p Principal) bool { return p.Service != "" && slices.Contains(names, p.Service) })
}

// Forbidden is the answer to a good token without the right.
func Forbidden() *problem.Problem {
	return problem.New(http.StatusForbidden, "forbidden", "this token may not do that")
}
