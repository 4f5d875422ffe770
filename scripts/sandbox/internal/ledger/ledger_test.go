package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func open(t *testing.T, dir string) (*Ledger, []Entry) {
	t.Helper()
	var seen []Entry
	l, err := Open(dir, func(e Entry) { seen = append(seen, e) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, seen
}

func TestFactsSurviveARestartAndATornLine(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, dir)
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	facts := []Entry{
		{At: at, Kind: ChargeAttempt, Key: "o-1:charge", OrderID: "o-1"},
		{At: at, Kind: Capture, Key: "o-1:charge", OrderID: "o-1", Amount: 5990, Currency: "EUR"},
		{At: at, Kind: Ship, Key: "o-1:ship:1", OrderID: "o-1", Attempt: 1, Lost: true},
	}
	if err := l.Append(facts...); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()

	f, err := os.OpenFile(filepath.Join(dir, "ledger.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.WriteString(`{"seq":3,"kind":"del`) // the process died here
	_ = f.Close()

	l, seen := open(t, dir)
	facts[1].Seq, facts[2].Seq = 1, 2
	if diff := cmp.Diff(facts, seen); diff != "" {
		t.Errorf("after the restart (-want +got):\n%s", diff)
	}
	if err := l.Append(Entry{At: at, Kind: Deliver, Key: "o-1:ship:1"}); err != nil {
		t.Fatal(err)
	}
	got, last, err := l.Read(2, 10)
	if err != nil {
		t.Fatal(err)
	}
	if want := []Entry{{Seq: 3, At: at, Kind: Deliver, Key: "o-1:ship:1"}}; last != 3 || !cmp.Equal(want, got) {
		t.Errorf("last %d (want 3); facts (-want +got):\n%s", last, cmp.Diff(want, got))
	}
}

func TestReadPagesFromAnywhere(t *testing.T) {
	l, _ := open(t, t.TempDir())
	const n = 3*every + 7
	for i := range n {
		// A private fact before each public one: the index must count public ones only.
		err := l.Append(Entry{Kind: Transit, Key: "x"}, Entry{Kind: Capture, Key: fmt.Sprint(i + 1)})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, after := range []int64{-1, 0, 1, every - 1, every, every + 1, 3 * every, n - 1, n, n + 5} {
		got, last, err := l.Read(after, 10)
		if err != nil {
			t.Fatal(err)
		}
		want := min(10, max(0, n-max(after, 0)))
		if int64(len(got)) != want || last != n {
			t.Errorf("after %d: %d facts (want %d), last %d (want %d)", after, len(got), want, last, n)
		}
		for i, e := range got {
			if seq := max(after, 0) + int64(i) + 1; e.Seq != seq || e.Key != fmt.Sprint(seq) {
				t.Errorf("after %d: fact %d is %d %q", after, i, e.Seq, e.Key)
			}
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	l, err := Open(b.TempDir(), func(Entry) {})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	e := Entry{At: time.Now(), Kind: Capture, Key: "o-123456:charge", OrderID: "o-123456", Amount: 5990, Currency: "EUR"}
	for b.Loop() {
		if err := l.Append(e); err != nil {
			b.Fatal(err)
		}
	}
}
