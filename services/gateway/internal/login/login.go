package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/failpoint"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/libs/telemetry"
	"github.com/waybill-dev/waybill/services/gateway/internal/password"
)

// User is who may log in.
type User struct {
	Name         string
	Tenant       int64
	Roles        []string
	PasswordHash string
}

// Store keeps users and refresh tokens.
type Store interface {
	User(ctx context.Context, name string) (User, error) // one without a hash where there is none
	Begin(ctx context.Context, user string, token Token, life, family time.Duration) error
	Exchange(ctx context.Context, token, next Token, life, grace time.Duration) (Exchange, error)
	Revoke(ctx context.Context, user string, token *Token) error
}

// Guard limits attempts: Try books one and may refuse it with a problem; succeeded gives the booking back.
type Guard interface {
	Try(r *http.Request, account string) (succeeded func(context.Context), err error)
}

// Login serves the endpoints under /auth.
type Login struct {
	store Store
	keys  *Keys
	guard Guard
	log   *zap.Logger
}

// New makes the endpoints.
func New(store Store, keys *Keys, guard Guard, log *zap.Logger) *Login {
	return &Login{store: store, keys: keys, guard: guard, log: log}
}

// grant is the answer to login and refresh (RFC 6749, 5.1).
type grant struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int    `json:"expires_in"`
	RefreshToken string `json:"refresh_token"`
}

func missing(pointer string) error {
	return problem.New(http.StatusBadRequest, "missing-field", "a member is missing").Field(pointer, "required")
}

func tooLong(pointer string) error {
	return problem.New(http.StatusUnprocessableEntity, "invalid-field", "names and passwords have at most 128 bytes").Field(pointer, "at most 128 bytes")
}

// Login is POST /auth/login. It takes no parameter, least of all a password that would then stand in somebody's log.
func (l *Login) Login(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	in, err := problem.Decode[struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}](w, r)
	switch {
	case err != nil:
		return err
	case in.Username == "":
		return missing("/username")
	case in.Password == "":
		return missing("/password")
	case len(in.Username) > password.MaxLength:
		return tooLong("/username")
	case len(in.Password) > password.MaxLength:
		return tooLong("/password")
	}
	user, err := l.check(r, in.Username, in.Password)
	if err != nil {
		return err
	}
	token := NewToken()
	if err := l.store.Begin(r.Context(), user.Name, token, refreshLife, familyLife); err != nil {
		return err
	}
	telemetry.Log(r.Context(), l.log).Info("login", zap.String("user", user.Name), zap.Int64("tenant", user.Tenant))
	return l.grant(w, user, token)
}

// check finds the user with that password. The attempt is booked only once there is a slot for it, so that a crowd of good logins of one
// account never has more than four bookings open.
func (l *Login) check(r *http.Request, name, typed string) (User, error) {
	ctx := r.Context()
	release, err := password.Slot(ctx)
	if err != nil {
		return User{}, fmt.Errorf("wait for a slot: %w", err)
	}
	defer release()
	succeeded, err := l.guard.Try(r, name)
	if err != nil {
		return User{}, err
	}
	user, err := l.store.User(ctx, name)
	if err != nil {
		return User{}, err
	}
	ok, err := password.Check(user.PasswordHash, typed)
	if err != nil {
		return User{}, fmt.Errorf("check password: %w", err)
	}
	if !ok {
		telemetry.Log(ctx, l.log).Warn("login refused") // the name is not logged: it may be a password typed into the wrong field
		return User{}, problem.New(http.StatusUnauthorized, "invalid-credentials", "user name or password is wrong")
	}
	succeeded(ctx)
	return user, nil
}

func (l *Login) grant(w http.ResponseWriter, u User, refresh Token) error {
	access, err := l.keys.sign(u, time.Now())
	if err != nil {
		return err
	}
	return problem.JSON(w, http.StatusOK, grant{access, "Bearer", int(accessLife.Seconds()), refresh.String()})
}

// Refresh is POST /auth/refresh.
func (l *Login) Refresh(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	in, err := problem.Decode[struct {
		RefreshToken string `json:"refresh_token"`
	}](w, r)
	if err != nil {
		return err
	}
	if in.RefreshToken == "" {
		return missing("/refresh_token")
	}
	invalid := problem.New(http.StatusUnauthorized, "invalid-grant", "this refresh token is not good")
	token, ok := ParseToken(in.RefreshToken)
	if !ok {
		return invalid
	}
	out, err := l.store.Exchange(r.Context(), token, NewToken(), refreshLife, grace)
	if err != nil {
		return err
	}
	switch out.Outcome {
	case Rotated, Repeated:
		if out.Outcome == Rotated {
			if err := failpoint.Hit("auth.after_rotate"); err != nil {
				return err
			}
		}
		return l.grant(w, out.User, out.Next)
	case Reused:
		telemetry.Log(r.Context(), l.log).Warn("refresh token was used twice, family revoked", zap.String("user", out.User.Name))
		return problem.New(http.StatusUnauthorized, "token-reuse", "this refresh token was used before; log in again")
	}
	return invalid.Because(errors.New(string(out.Outcome)))
}

// Logout is POST /auth/logout, with an access token. A body names the session to end; without one all of the user's end.
func (l *Login) Logout(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	var token *Token
	if r.ContentLength != 0 {
		in, err := problem.Decode[struct {
			RefreshToken string `json:"refresh_token"`
		}](w, r)
		if err != nil {
			return err
		}
		if t, ok := ParseToken(in.RefreshToken); ok {
			token = &t
		} else {
			return missing("/refresh_token")
		}
	}
	if err := l.store.Revoke(r.Context(), auth.From(r.Context()).Subject, token); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// JWKS is GET /.well-known/jwks.json.
func (l *Login) JWKS(w http.ResponseWriter, r *http.Request) error {
	doc, err := l.keys.JWKS(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=30") // below the verifiers' own refresh
	_, _ = w.Write(doc)
	return nil
}
