package postgres

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/libs/testkit"
	"github.com/waybill-dev/waybill/services/gateway/internal/login"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestFamilyModel: any history of refreshes, repeats, pauses and logouts does what the rule says.
func TestFamilyModel(t *testing.T) {
	pool, _ := testkit.Postgres(t, Migrations)
	store := New(pool)
	ctx := t.Context()
	const grace = 10 * time.Second
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		n++
		user := fmt.Sprintf("user-%d", n)
		if _, err := store.AddUser(ctx, login.User{Name: user, Tenant: 1, Roles: []string{"customer"}, PasswordHash: "x"}, false); err != nil {
			r.Fatal(err)
		}
		first := login.NewToken()
		if err := store.Begin(ctx, user, first, time.Hour, 24*time.Hour); err != nil {
			r.Fatal(err)
		}
		chain := []login.Token{first} // all tokens of the family, oldest first
		usedAt := map[int]int{}       // seconds, by place in the chain
		now, revoked := 0, false
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			switch rapid.SampledFrom([]string{"refresh", "refresh", "repeat", "wait", "logout"}).Draw(r, "step") {
			case "wait": // time passes by making the past older
				d := rapid.SampledFrom([]int{1, 9, 11}).Draw(r, "seconds")
				now += d
				if _, err := pool.Exec(ctx, `UPDATE refresh_tokens t SET used_at = used_at - make_interval(secs => $2)
					FROM families f WHERE f.id = t.family AND f.user_name = $1`, user, d); err != nil {
					r.Fatal(err)
				}
			case "logout":
				if rapid.IntRange(0, 3).Draw(r, "really") > 0 {
					continue
				}
				if err := store.Revoke(ctx, user, nil); err != nil {
					r.Fatal(err)
				}
				revoked = true
			case "refresh", "repeat":
				i := len(chain) - 1
				if i > 0 && rapid.Bool().Draw(r, "old") {
					i = rapid.IntRange(0, i-1).Draw(r, "which")
				}
				want := login.Rotated
				at, used := usedAt[i]
				switch {
				case revoked:
					want = login.Revoked
				case used && now-at < int(grace.Seconds()) && i == len(chain)-2:
					want = login.Repeated
				case used:
					want = login.Reused
				}
				out, err := store.Exchange(ctx, chain[i], login.NewToken(), time.Hour, grace)
				if err != nil {
					r.Fatal(err)
				}
				if out.Outcome != want {
					r.Fatalf("token %d of %d: %s, want %s", i+1, len(chain), out.Outcome, want)
				}
				switch want {
				case login.Rotated:
					usedAt[i] = now
					chain = append(chain, out.Next)
				case login.Repeated:
					if out.Next != chain[i+1] {
						r.Fatal("another successor")
					}
				case login.Reused:
					revoked = true
				}
			}
		}
	})
}

func TestExpiry(t *testing.T) {
	pool, _ := testkit.Postgres(t, Migrations)
	store := New(pool)
	ctx := t.Context()
	if _, err := store.AddUser(ctx, login.User{Name: "a", Tenant: 1, Roles: []string{"customer"}, PasswordHash: "x"}, false); err != nil {
		t.Fatal(err)
	}
	for name, life := range map[string][2]time.Duration{"token": {-time.Second, time.Hour}, "family": {time.Hour, -time.Second}} {
		token := login.NewToken()
		if err := store.Begin(ctx, "a", token, life[0], life[1]); err != nil {
			t.Fatal(err)
		}
		if out, err := store.Exchange(ctx, token, login.NewToken(), time.Hour, time.Second); err != nil || out.Outcome != login.Expired {
			t.Errorf("%s: %v %v", name, out.Outcome, err)
		}
	}
	if out, err := store.Exchange(ctx, login.NewToken(), login.NewToken(), time.Hour, time.Second); err != nil || out.Outcome != login.Unknown {
		t.Errorf("%v %v", out.Outcome, err)
	}
}

func TestKeysRotate(t *testing.T) {
	pool, _ := testkit.Postgres(t, Migrations)
	store := New(pool)
	ctx := t.Context()
	made := 0
	load := func() []string {
		t.Helper()
		keys, err := store.Keys(ctx, func() (string, string, error) { made++; return fmt.Sprint("k", made), "x", nil }, 30*24*time.Hour, 15*time.Minute, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, k := range keys {
			out = append(out, fmt.Sprint(k.ID, k.Active))
		}
		return out
	}
	age := func(interval string) {
		t.Helper()
		if _, err := pool.Exec(ctx, `UPDATE signing_keys SET created_at = created_at - $1::text::interval, active_at = active_at - $1::text::interval`, interval); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ wait, want string }{
		{"0", "[k1true]"},
		{"29 days", "[k1true]"},
		{"2 days", "[k1true k2false]"}, // published before it signs
		{"14 minutes", "[k1true k2false]"},
		{"2 minutes", "[k1true k2true]"}, // the newest signs, the old one is still published
		{"2 hours", "[k2true]"},
	} {
		age(c.wait)
		if got := fmt.Sprint(load()); got != c.want {
			t.Errorf("after %s more: %s, want %s", c.wait, got, c.want)
		}
	}
}
