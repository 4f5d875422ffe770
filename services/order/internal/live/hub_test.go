package live

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/services/order/internal/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// table is a history in memory.
type table struct {
	mu      sync.Mutex
	lines   []postgres.Line
	queries int
	asked   []string
}

func (b *table) After(_ context.Context, ids []string, after []int64) (out []postgres.Line, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queries++
	b.asked = slices.Clone(ids)
	slices.Sort(b.asked)
	for i, id := range ids {
		for _, l := range b.lines {
			if l.OrderID == id && l.ID > after[i] {
				out = append(out, l)
			}
		}
	}
	return out, nil
}

func (b *table) add(id int64, order string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, postgres.Line{ID: id, OrderID: order})
}

// seen is how many queries there were, and whom the last one asked for.
func (b *table) seen() (queries int, asked []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.queries, b.asked
}

func running(t *testing.T, b *table) (*Hub, func()) {
	h := New(b, zap.NewNop())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.Run(ctx) }()
	return h, func() { cancel(); <-done }
}

func waiting(w *Watcher) (ids []int64) {
	for {
		select {
		case l, ok := <-w.Lines():
			if !ok {
				return append(ids, -1)
			}
			ids = append(ids, l.ID)
		default:
			return ids
		}
	}
}

func TestWatchersShareAQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &table{}
		h, stop := running(t, b)
		defer stop()
		time.Sleep(2*every + every/2) // between two reads
		if n, _ := b.seen(); n != 0 {
			t.Errorf("%d queries for nobody", n)
		}
		b.add(1, "a")
		b.add(2, "b")
		b.add(3, "a")
		first, late, other := h.Watch("a", "u", 0, 5), h.Watch("a", "u", 1, 5), h.Watch("b", "u", 0, 5)
		time.Sleep(every)
		if n, asked := b.seen(); n != 1 || !slices.Equal(asked, []string{"a", "b"}) {
			t.Errorf("%d queries, the last for %v", n, asked)
		}
		b.add(4, "a")
		time.Sleep(every)
		for n, c := range []struct {
			w    *Watcher
			want []int64
		}{{first, []int64{1, 3, 4}}, {late, []int64{3, 4}}, {other, []int64{2}}} {
			if got := waiting(c.w); !slices.Equal(got, c.want) {
				t.Errorf("watcher %d got %v, want %v", n, got, c.want)
			}
			h.Leave(c.w)
		}
		before, _ := b.seen()
		time.Sleep(5 * every)
		if after, _ := b.seen(); after != before {
			t.Error("queries for those who have left")
		}
	})
}

func TestSlowReadersAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &table{}
		h, stop := running(t, b)
		defer stop()
		w, quick := h.Watch("a", "u", 0, 5), h.Watch("a", "v", 0, 5)
		for n := range int64(backlog + 10) {
			b.add(n+1, "a")
			if n == backlog/2 {
				time.Sleep(2 * every)
				_ = waiting(quick)
			}
		}
		time.Sleep(2 * every)
		if got := waiting(w); len(got) != backlog+1 || got[backlog] != -1 {
			t.Errorf("a slow reader got %d entries", len(got))
		}
		if got := waiting(quick); len(got) == 0 || got[len(got)-1] != backlog+10 {
			t.Errorf("a quick reader got %v", got)
		}
		h.Leave(w)
		h.Leave(quick)
	})
}

func TestStreamsPerUserAreBounded(t *testing.T) {
	h := New(&table{}, zap.NewNop())
	a, b := h.Watch("o", "u", 0, 2), h.Watch("o", "u", 0, 2)
	if h.Watch("o", "u", 0, 2) != nil {
		t.Error("a third of two streams")
	}
	if h.Watch("o", "v", 0, 2) == nil {
		t.Error("another user is refused")
	}
	h.Leave(a)
	h.Leave(b)
	if h.Watch("o", "u", 0, 2) == nil {
		t.Error("refused after leaving")
	}
}
