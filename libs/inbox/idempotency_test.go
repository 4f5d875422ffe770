package inbox

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/problem"
)

// serve is what an HTTP intake does: find, else effect and answer, in one transaction.
func (b *bench) serve(ctx context.Context, hold func(), rs ...Request) (answers []Response, replays int, err error) {
	err = pg.Do(ctx, b.pool, func(ctx context.Context, u *pg.Unit) error {
		answers, replays = nil, 0
		found := FindResponses(u, rs)
		if err := u.Fetch(ctx); err != nil {
			return err
		}
		if hold != nil {
			hold()
		}
		var fresh []Request
		var out []Response
		for _, r := range rs {
			a, replay, err := found.Get(r)
			switch {
			case err != nil:
				return err
			case replay:
				replays++
			default:
				a = Response{Status: http.StatusAccepted, ContentType: "application/json", Location: "/things/" + r.Key, Body: []byte(`{"key":"` + r.Key + `"}`)}
				fresh, out = append(fresh, r), append(out, a)
			}
			answers = append(answers, a)
		}
		StoreResponses(u, fresh, out)
		for _, r := range fresh {
			u.Write(`INSERT INTO effects (source, subject, seq) VALUES ('http', $1, 1)`, r.Key)
		}
		return nil
	})
	return answers, replays, err
}

func request(key string) Request {
	return Request{Caller: "1/ann", Route: "POST /things", Key: key, Fingerprint: Fingerprint("POST", "/things", "ann", map[string]int{"a": 1})}
}

func TestADuplicateRequestGetsTheFirstAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first, replays, err := b.serve(t.Context(), nil, request("k-1"), request("k-2"))
	if err != nil || replays != 0 {
		t.Fatalf("first: %v, %d replays", err, replays)
	}
	again, replays, err := b.serve(t.Context(), nil, request("k-2"), request("k-3"), request("k-1"))
	if err != nil || replays != 2 {
		t.Fatalf("again: %v, %d replays, want 2", err, replays)
	}
	if diff := cmp.Diff([]Response{first[1], first[0]}, []Response{again[0], again[2]}); diff != "" {
		t.Errorf("replayed answers (-first +again):\n%s", diff)
	}
	b.applied("k-1/1", "k-2/1", "k-3/1")
}

func TestAKeyBelongsToItsCallerAndRoute(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other, route := request("k"), request("k")
	other.Caller, route.Route = "2/ann", "POST /other"
	for _, r := range []Request{request("k"), other, route} {
		if _, replays, err := b.serve(t.Context(), nil, r); err != nil || replays != 0 {
			t.Errorf("%+v: %d replays, %v", r, replays, err)
		}
	}
	reused := request("k")
	reused.Fingerprint = Fingerprint("POST", "/things", "ann", map[string]int{"a": 2})
	if _, _, err := b.serve(t.Context(), nil, reused); !errors.Is(err, problem.New(422, "idempotency-key-reused", "")) {
		t.Errorf("another request under a used key: %v", err)
	}
	b.applied("k/1", "k/1", "k/1")
}

func TestConcurrentDuplicatesHaveOneEffect(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var wg sync.WaitGroup
	var read sync.WaitGroup // both have read that there is no answer before either writes one
	read.Add(2)
	var mu sync.Mutex
	total := 0
	for n := range 2 {
		var once sync.Once
		rs := []Request{request("k-1"), request("k-2")}
		if n == 1 {
			rs[0], rs[1] = rs[1], rs[0]
		}
		wg.Go(func() {
			_, replays, err := b.serve(t.Context(), func() { once.Do(func() { read.Done(); read.Wait() }) }, rs...)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			total += replays
			mu.Unlock()
		})
	}
	wg.Wait()
	if total != 2 {
		t.Errorf("%d replays, want 2: one of the two requests replays both", total)
	}
	b.applied("k-1/1", "k-2/1")
}

func TestStoreTakesTheFirstOfEqualRequests(t *testing.T) {
	t.Parallel()
	b := setup(t)
	err := pg.Do(t.Context(), b.pool, func(_ context.Context, u *pg.Unit) error {
		StoreResponses(u, nil, nil)
		StoreResponses(u, []Request{request("k"), request("k")}, []Response{{Status: 202, Body: []byte("1")}, {Status: 202, Body: []byte("2")}})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := b.serve(t.Context(), nil, request("k")); err != nil || string(got[0].Body) != "1" {
		t.Errorf("stored %+v, %v", got, err)
	}
}

func TestAReplaySaysSo(t *testing.T) {
	t.Parallel()
	for _, replayed := range []bool{false, true} {
		w := httptest.NewRecorder()
		r := Response{Status: 202, ContentType: "application/json", Location: "/things/1", Body: []byte(`{}`)}
		if err := r.Write(w, replayed); err != nil {
			t.Fatal(err)
		}
		if got := w.Header().Get("Idempotent-Replayed"); (got == "true") != replayed || w.Code != 202 || w.Header().Get("Location") != "/things/1" {
			t.Errorf("replayed %v: %d, %v", replayed, w.Code, w.Header())
		}
	}
}

func TestOldKeysAreDeleted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, _, err := b.serve(t.Context(), nil, request("old"), request("new")); err != nil {
		t.Fatal(err)
	}
	b.exec(`UPDATE idempotency_keys SET stored_at = now() - interval '73 h' WHERE key = 'old'`)
	if err := b.in.purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query[string](b, `SELECT key FROM idempotency_keys`); !cmp.Equal(got, []string{"new"}) {
		t.Errorf("keys left: %v", got)
	}
}

func TestKeyFrom(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		header   []string
		fallback string
		want     string
		slug     string
	}{
		"bare":             {header: []string{"abc-1"}, want: "abc-1"},
		"quoted":           {header: []string{`"abc-1"`}, want: "abc-1"},
		"escaped":          {header: []string{`"a\"b\\c"`}, want: `a"b\c`},
		"fallback":         {fallback: "o-1", want: "o-1"},
		"header first":     {header: []string{"k"}, fallback: "o-1", want: "k"},
		"longest":          {header: []string{strings.Repeat("k", 255)}, want: strings.Repeat("k", 255)},
		"missing":          {slug: "idempotency-key-missing"},
		"empty":            {header: []string{""}, fallback: "o-1", slug: "idempotency-key-invalid"},
		"empty quoted":     {header: []string{`""`}, slug: "idempotency-key-invalid"},
		"too long":         {header: []string{strings.Repeat("k", 256)}, slug: "idempotency-key-invalid"},
		"twice":            {header: []string{"a", "a"}, slug: "idempotency-key-invalid"},
		"twice quoted":     {header: []string{`"a"`, `"a"`}, slug: "idempotency-key-invalid"},
		"space":            {header: []string{"a b"}, slug: "idempotency-key-invalid"},
		"not ASCII":        {header: []string{"clé"}, slug: "idempotency-key-invalid"},
		"control":          {header: []string{"a\x7f"}, slug: "idempotency-key-invalid"},
		"open quote":       {header: []string{`"a`}, slug: "idempotency-key-invalid"},
		"after the quote":  {header: []string{`"a";x=1`}, slug: "idempotency-key-invalid"},
		"unknown escape":   {header: []string{`"a\n"`}, slug: "idempotency-key-invalid"},
		"only a backslash": {header: []string{`"\`}, slug: "idempotency-key-invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/", nil)
			r.Header["Idempotency-Key"] = tc.header
			got, err := KeyFrom(r, tc.fallback)
			if tc.slug != "" {
				if !errors.Is(err, problem.New(400, tc.slug, "")) {
					t.Errorf("got %q, %v; want 400 %s", got, err, tc.slug)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

func TestFingerprintSeparatesItsParts(t *testing.T) {
	t.Parallel()
	type body struct {
		A string `json:"a"`
	}
	base := Fingerprint("POST", "/things", "ann", body{"x"})
	if again := Fingerprint("POST", "/things", "ann", map[string]string{"a": "x"}); again != base {
		t.Error("the same body has two fingerprints")
	}
	for name, other := range map[string][32]byte{
		"method":   Fingerprint("PUT", "/things", "ann", body{"x"}),
		"route":    Fingerprint("POST", "/thing", "sann", body{"x"}),
		"subject":  Fingerprint("POST", "/things", "bob", body{"x"}),
		"body":     Fingerprint("POST", "/things", "ann", body{"y"}),
		"boundary": Fingerprint("POST", "/thingsa", "nn", body{"x"}),
	} {
		if other == base {
			t.Errorf("another %s has the same fingerprint", name)
		}
	}
}
