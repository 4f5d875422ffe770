// Package postgres keeps users, refresh tokens and signing keys.
package postgres

import (
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/gateway/internal/login"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations make the tables of the gateway.
var Migrations = func() pg.Migrations {
	root, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err)
	}
	return pg.Migrations{Name: "gateway", FS: root}
}()

// Store is the gateway's database.
type Store struct{ pool *pgxpool.Pool }

// New makes a store on a migrated database.
func New(pool *pgxpool.Pool) *Store { return &Store{pool} }

const userColumns = `u.name, u.tenant_id, u.roles, u.password_hash`

func scanUser(u *login.User) []any { return []any{&u.Name, &u.Tenant, &u.Roles, &u.PasswordHash} }

// User finds a user, or gives one without a password.
func (s *Store) User(ctx context.Context, name string) (login.User, error) {
	var u login.User
	err := s.pool.QueryRow(ctx, `SELECT `+userColumns+` FROM users u WHERE u.name = $1`, name).Scan(scanUser(&u)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return login.User{}, nil
	}
	if err != nil {
		return u, fmt.Errorf("find user: %w", err)
	}
	return u, nil
}

// AddUser makes a user; one who exists is left alone, and added is false.
func (s *Store) AddUser(ctx context.Context, u login.User, seeded bool) (added bool, err error) {
	tag, err := s.pool.Exec(ctx, `INSERT INTO users (name, tenant_id, roles, password_hash, seeded) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (name) DO NOTHING`, u.Name, u.Tenant, u.Roles, u.PasswordHash, seeded)
	if err != nil {
		return false, fmt.Errorf("add user %s: %w", u.Name, err)
	}
	return tag.RowsAffected() == 1, nil
}

// Seeded lists the users whom the development profile has made.
func (s *Store) Seeded(ctx context.Context) ([]login.User, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+userColumns+` FROM users u WHERE seeded ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("list seeded users: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (login.User, error) {
		var u login.User
		return u, row.Scan(scanUser(&u)...)
	})
}

// Begin starts a family with its first token.
func (s *Store) Begin(ctx context.Context, user string, token login.Token, life, family time.Duration) error {
	hash, id := sha256.Sum256(token[:]), uuid.Must(uuid.NewV7())
	return pg.Do(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		u.Write(`INSERT INTO families (id, user_name, expires_at) VALUES ($1, $2, now() + $3)`, id, user, family)
		u.Write(`INSERT INTO refresh_tokens (hash, family, number, expires_at) VALUES ($1, $2, 1, now() + $3)`, hash[:], id, life)
		return nil
	})
}

// Exchange uses token for a successor, all under the lock of its family. decide gets what is known about the token and says what is to
// happen; next is the new successor, if that is it.
func (s *Store) Exchange(ctx context.Context, token, next login.Token, life, grace time.Duration) (login.Exchange, error) {
	hash := sha256.Sum256(token[:])
	var out login.Exchange
	err := pg.Do(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		out = login.Exchange{}
		var (
			family       uuid.UUID
			number, head int
			sealed       []byte
			t            login.State
			found        bool
		)
		// Both rows are locked, so both are read as they are after the wait.
		u.Read(`SELECT f.id, t.number, f.head, t.sealed, t.used_at IS NOT NULL, coalesce(now() - t.used_at <= $2, false),
				t.expires_at <= now() OR f.expires_at <= now(), f.revoked_at IS NOT NULL, `+userColumns+`
			FROM refresh_tokens t JOIN families f ON f.id = t.family JOIN users u ON u.name = f.user_name
			WHERE t.hash = $1 FOR UPDATE OF t, f`, hash[:], grace).Query(func(rows pgx.Rows) error {
			for rows.Next() {
				found = true
				if err := rows.Scan(append([]any{&family, &number, &head, &sealed, &t.Used, &t.InGrace, &t.Expired, &t.Revoked},
					scanUser(&out.User)...)...); err != nil {
					return err
				}
			}
			return rows.Err()
		})
		if err := u.Fetch(ctx); err != nil {
			return err
		}
		if !found {
			out.Outcome = login.Unknown
			return nil
		}
		t.SuccessorUsed = head > number+1
		out.Outcome = t.Decide()
		switch out.Outcome {
		case login.Rotated:
			successor := sha256.Sum256(next[:])
			sealed := login.Seal(token, next)
			out.Next = next
			u.Guard(1, `UPDATE refresh_tokens SET used_at = now(), sealed = $2 WHERE hash = $1 AND used_at IS NULL`, hash[:], sealed[:])
			u.Guard(1, `UPDATE families SET head = $2 WHERE id = $1 AND head = $2 - 1`, family, number+1)
			u.Write(`INSERT INTO refresh_tokens (hash, family, number, expires_at) VALUES ($1, $2, $3, now() + $4)`,
				successor[:], family, number+1, life)
		case login.Repeated:
			out.Next = login.Seal(token, login.Token(sealed)) // sealing twice opens
		case login.Reused:
			u.Write(`UPDATE families SET revoked_at = now(), revoked_for = 'reuse' WHERE id = $1 AND revoked_at IS NULL`, family)
		}
		return nil
	})
	if err != nil {
		return login.Exchange{}, fmt.Errorf("exchange refresh token: %w", err)
	}
	return out, nil
}

// Revoke ends the user's family of that token, or without one all families of the user.
func (s *Store) Revoke(ctx context.Context, user string, token *login.Token) error {
	var hash []byte
	if token != nil {
		h := sha256.Sum256(token[:])
		hash = h[:]
	}
	_, err := s.pool.Exec(ctx, `UPDATE families SET revoked_at = now(), revoked_for = 'logout'
		WHERE user_name = $1 AND revoked_at IS NULL
		AND ($2::bytea IS NULL OR id = (SELECT family FROM refresh_tokens WHERE hash = $2))`, user, hash)
	if err != nil {
		return fmt.Errorf("revoke refresh tokens: %w", err)
	}
	return nil
}

// forgetEvery is how often ended families are deleted; one delete an hour is far below one login.
const forgetEvery = time.Hour

// Run deletes families that ended a day ago; until then a reuse is still recognised.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(forgetEvery)
	defer tick.Stop()
	for {
		// An error is the database's to report elsewhere; the next hour deletes more.
		_, _ = s.pool.Exec(ctx, `DELETE FROM families WHERE expires_at < now() - interval '1 day'`)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
