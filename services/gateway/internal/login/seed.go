package login

import (
	"context"
	"fmt"

	"github.com/waybill-dev/waybill/services/gateway/internal/password"
)

// wellKnown is the password of all users of the development profile. It is in the README.
const wellKnown = "password"

// demo are the users of the development profile.
var demo = []User{
	{Name: "admin", Tenant: 1, Roles: []string{"customer", "merchant", "operator", "admin"}},
	{Name: "merchant", Tenant: 1, Roles: []string{"merchant"}},
	{Name: "operator", Tenant: 1, Roles: []string{"operator"}},
	{Name: "customer", Tenant: 1, Roles: []string{"customer"}},
	{Name: "merchant2", Tenant: 2, Roles: []string{"merchant"}},
	{Name: "customer2", Tenant: 2, Roles: []string{"customer"}},
}

// Users is what seeding needs of the store.
type Users interface {
	User(ctx context.Context, name string) (User, error)
	AddUser(ctx context.Context, u User, seeded bool) (added bool, err error)
	Seeded(ctx context.Context) ([]User, error)
}

// Seed makes the users of the development profile that are not there.
func Seed(ctx context.Context, users Users) error {
	for _, u := range demo {
		known, err := users.User(ctx, u.Name)
		if err != nil {
			return err
		}
		if known.Name != "" {
			continue // hashing costs 30 ms, and each start would pay it six times
		}
		u.PasswordHash = password.Hash(wellKnown)
		if _, err := users.AddUser(ctx, u, true); err != nil {
			return err
		}
	}
	return nil
}

// RefuseDemo is the production profile's first question: it is an error while anybody could log in with the well-known password.
func RefuseDemo(ctx context.Context, users Users) error {
	seeded, err := users.Seeded(ctx)
	if err != nil {
		return err
	}
	for _, u := range seeded {
		ok, err := password.Check(u.PasswordHash, wellKnown)
		if err != nil {
			return fmt.Errorf("check password of %s: %w", u.Name, err)
		}
		if ok {
			return fmt.Errorf("user %s of the development profile has its well-known password: delete the user or give another password, "+
				"or set WAYBILL_ENV=development", u.Name)
		}
	}
	return nil
}
