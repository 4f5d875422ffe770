package history

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What several goroutines write is what is read, line by line, also after the file was opened again.
func TestWrittenIsRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "history.jsonl")
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	want := map[string]Op{}
	for run := range 2 {
		w, err := NewWriter(path)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, id := range []string{"a", "b", "c"} {
			op := Op{Op: Create, ID: id + string(rune('0'+run)), Key: "k", Caller: "1/customer", Sent: "s", Invoke: at, Done: at.Add(time.Second), Type: OK, Status: 202, BodyHash: "h"}
			want[op.ID] = op
			wg.Go(func() {
				if err := w.Append(op); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]Op{}
	if err := ReadFile(path, func(op Op) error { got[op.ID] = op; return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDamagedHistories(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"op":"create"`, `{"op":"create","type":"perhaps"}`, `[]`} {
		if err := Read(strings.NewReader(text), func(Op) error { return nil }); err == nil {
			t.Errorf("%s was read without an error", text)
		}
	}
}

func TestTypeOf(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]Type{0: Info, 200: OK, 202: OK, 302: Info, 400: Fail, 404: Fail, 408: Info, 409: Fail, 422: Fail, 425: Info, 429: Info, 500: Info, 503: Info} {
		if got := TypeOf(status); got != want {
			t.Errorf("%d is %s, not %s", status, want, got)
		}
	}
}

// The hash tells orders apart and does not depend on the order of items.
func TestOrderHash(t *testing.T) {
	t.Parallel()
	base := Order{ID: "o", Amount: 1, Currency: "EUR", Method: "card", Email: "a@example.com", Items: map[string]int64{"a": 1, "b": 2}}
	seen := map[string]bool{base.Hash(): true}
	for _, change := range []func(*Order){
		func(o *Order) { o.ID = "p" }, func(o *Order) { o.Amount = 2 }, func(o *Order) { o.Currency = "USD" }, func(o *Order) { o.Method = "card_slow" },
		func(o *Order) { o.Email = "" }, func(o *Order) { o.Items = map[string]int64{"a": 2, "b": 1} }, func(o *Order) { o.Items = nil },
	} {
		o := base
		change(&o)
		if h := o.Hash(); seen[h] {
			t.Errorf("%+v has the hash of another order", o)
		} else {
			seen[h] = true
		}
	}
	none, empty := base, base
	none.Items, empty.Items = nil, map[string]int64{}
	if none.Hash() != empty.Hash() {
		t.Error("an order without items has two hashes")
	}
	same := base
	same.Items = map[string]int64{"b": 2, "a": 1}
	if same.Hash() != base.Hash() {
		t.Error("the order of items changes the hash")
	}
}
