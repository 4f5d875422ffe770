package recount

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCompare(t *testing.T) {
	tests := []struct {
		name    string
		counted int64
		stock   Stock
		want    Line
	}{
		{"as expected", 10, Stock{OnHand: 10}, Line{Counted: 10, Expected: 10, Outcome: Equal, OnHand: 10}},
		{"some missing", 8, Stock{OnHand: 10, Reserved: 8}, Line{Counted: 8, Expected: 10, Difference: -2, Outcome: Booked, OnHand: 8}},
		{"some too many", 12, Stock{OnHand: 10}, Line{Counted: 12, Expected: 10, Difference: 2, Outcome: Booked, OnHand: 12}},
		{"below what is promised", 7, Stock{OnHand: 10, Reserved: 8}, Line{Counted: 7, Expected: 10, Difference: -3, Outcome: BelowReserved, OnHand: 10}},
		{"three were sold since", 10, Stock{OnHand: 7, Since: -3}, Line{Counted: 10, Expected: 10, Outcome: Equal, OnHand: 7}},
		{"five came since, one was missing", 9, Stock{OnHand: 15, Since: 5}, Line{Counted: 9, Expected: 10, Difference: -1, Outcome: Booked, OnHand: 14}},
		{"nothing left", 0, Stock{OnHand: 10}, Line{Expected: 10, Difference: -10, Outcome: Booked, OnHand: 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Compare(Count{Counted: tt.counted}, tt.stock)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Whatever is booked explains the count, and never takes what is promised.
func TestCompareExplains(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Stock{OnHand: rapid.Int64Range(0, 50).Draw(t, "on hand")}
		s.Reserved = rapid.Int64Range(0, s.OnHand).Draw(t, "reserved")
		s.Since = rapid.Int64Range(-50, s.OnHand).Draw(t, "since")
		l := Compare(Count{Counted: rapid.Int64Range(0, 100).Draw(t, "counted")}, s)
		switch {
		case l.Expected+l.Difference != l.Counted:
			t.Fatalf("%+v does not add up", l)
		case l.OnHand < s.Reserved:
			t.Fatalf("%+v breaks a promise: %d reserved", l, s.Reserved)
		case l.Outcome == Booked && l.OnHand-s.Since != l.Counted:
			t.Fatalf("%+v: booked, and still not what was counted", l)
		case l.Outcome != Booked && l.OnHand != s.OnHand:
			t.Fatalf("%+v: stock changed without being booked", l)
		}
	})
}

type ledger struct {
	mu    sync.Mutex
	found []Drift
	err   error
	asked int
}

func (l *ledger) Drift(context.Context) ([]Drift, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	return l.found, l.err
}

func (l *ledger) will(found []Drift, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.found, l.err = found, err
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{found: []Drift{{Tenant: 1, Product: "mug", OnHand: 2, Ledger: 1}}}
		w := NewWatch(l, time.Minute, zap.NewNop(), prometheus.NewRegistry())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		synctest.Wait()
		if got := testutil.ToFloat64(w.products); got != 1 || l.asked != 1 {
			t.Errorf("at start: %v products, asked %d times", got, l.asked)
		}
		l.will(nil, errors.New("away"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := testutil.ToFloat64(w.products); got != 1 { // what is not known is not 0
			t.Errorf("while the database is away: %v products", got)
		}
		l.will(nil, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := testutil.ToFloat64(w.products); got != 0 || l.asked != 3 {
			t.Errorf("afterwards: %v products, asked %d times", got, l.asked)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
