package ratelimit

import (
	"context"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// setup is a limiter whose Redis and own clock are the test's.
type setup struct {
	*Limiter
	redis *miniredis.Miniredis
	t     time.Time
}

func newSetup(t testing.TB, replicas int) *setup {
	t.Helper()
	s := &setup{redis: miniredis.NewMiniRedis(), t: epoch}
	if err := s.redis.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.redis.Close)
	s.redis.SetTime(epoch)
	client := NewRedis(s.redis.Addr(), "", 10*time.Second)
	t.Cleanup(func() { client.Close() })
	s.Limiter = New(client, replicas, zap.NewNop(), prometheus.NewRegistry())
	s.now = func() time.Time { return s.t }
	return s
}

func (s *setup) add(d time.Duration) { s.t = s.t.Add(d); s.redis.SetTime(s.t) }

// oracle is the same budget as a leaky bucket in exact fractions.
type oracle struct {
	level *big.Rat // requests in the bucket
	at    int64    // microseconds
}

func (o *oracle) take(now, interval, burst, cost int64) bool {
	o.level.Sub(o.level, big.NewRat(now-o.at, interval))
	o.at = now
	if o.level.Sign() < 0 {
		o.level.SetInt64(0)
	}
	next := new(big.Rat).Add(o.level, new(big.Rat).SetInt64(cost))
	if next.Cmp(new(big.Rat).SetInt64(burst)) > 0 {
		return false
	}
	if next.Sign() < 0 {
		next.SetInt64(0)
	}
	o.level = next
	return true
}

// TestGCRAIsExact: the Go form, the script in Redis and a bucket in fractions agree on any history.
func TestGCRAIsExact(t *testing.T) {
	s := newSetup(t, 1)
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		n++
		p := Policy{Name: "p", Burst: rapid.IntRange(1, 20).Draw(r, "burst"), Interval: time.Duration(rapid.Int64Range(1, 3_000_000).Draw(r, "interval")) * time.Microsecond}
		key := fmt.Sprint(n)
		o := oracle{level: new(big.Rat), at: s.t.UnixMicro()}
		var tat int64
		for range rapid.IntRange(1, 30).Draw(r, "steps") {
			s.add(time.Duration(rapid.Int64Range(0, 2*p.Interval.Microseconds()).Draw(r, "wait")) * time.Microsecond)
			cost := rapid.SampledFrom([]int64{1, 1, 1, 2, -1}).Draw(r, "cost")
			now, interval, burst := s.t.UnixMicro(), p.Interval.Microseconds(), int64(p.Burst)
			want := o.take(now, interval, burst, cost)
			var d Decision
			tat, d = decide(tat, now, interval, burst, cost)
			got := s.take(context.Background(), p, key, cost)
			if d.Allowed != want || cmp.Diff(d, got) != "" {
				r.Fatalf("oracle %v; script against Go: %s", want, cmp.Diff(d, got))
			}
			if !d.Allowed { // Retry is the first moment at which it is allowed
				if _, early := decide(tat, now+d.Retry.Microseconds()-1, interval, burst, cost); early.Allowed && int(cost) <= p.Burst {
					r.Fatal("allowed before Retry")
				}
				if _, then := decide(tat, now+d.Retry.Microseconds(), interval, burst, cost); !then.Allowed && int(cost) <= p.Burst {
					r.Fatal("refused at Retry")
				}
			}
		}
	})
}

// TestNobodySlipsThrough: many callers over three gateways share one budget to the last request.
func TestNobodySlipsThrough(t *testing.T) {
	s := newSetup(t, 1)
	p := PerSecond("p", 1, 50)
	var mu sync.Mutex
	var wg sync.WaitGroup
	allowed := 0
	for range 3 {
		client := NewRedis(s.redis.Addr(), "", 10*time.Second)
		defer client.Close()
		l := New(client, 3, zap.NewNop(), prometheus.NewRegistry())
		for range 20 {
			wg.Go(func() {
				for range 5 {
					if l.Take(context.Background(), p, "k").Allowed {
						mu.Lock()
						allowed++
						mu.Unlock()
					}
				}
			})
		}
	}
	wg.Wait()
	if allowed != 50 {
		t.Errorf("%d of a budget of 50 passed", allowed)
	}
}

func TestLeasesNeverGiveMore(t *testing.T) {
	s := newSetup(t, 1)
	p := PerSecond("p", 10, 100)
	allowed := 0
	for range 300 {
		if d := s.TakeLeased(t.Context(), p, "k"); d.Allowed {
			allowed++
			if want := 100 - allowed; d.Remaining != want {
				t.Fatalf("after %d: %d remain, want %d", allowed, d.Remaining, want)
			}
		}
	}
	if allowed != 100 {
		t.Errorf("%d of 100 passed", allowed)
	}
	s.add(5 * time.Second)
	allowed = 0
	for range 300 {
		if s.TakeLeased(t.Context(), p, "k").Allowed {
			allowed++
		}
	}
	if allowed != 50 {
		t.Errorf("after 5 s %d passed, want 50", allowed)
	}
	if calls := s.redis.CommandCount(); calls > 200 { // four commands a call
		t.Errorf("%d commands", calls)
	}
}

// TestLeasesAreShared: callers that come at the same moment use up one lease after the other and not one each.
func TestLeasesAreShared(t *testing.T) {
	s := newSetup(t, 1)
	p := PerSecond("p", 10, 100)
	var wg sync.WaitGroup
	var refused atomic.Int64
	for range 100 {
		wg.Go(func() {
			if !s.TakeLeased(t.Context(), p, "k").Allowed {
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	if n := refused.Load(); n != 0 {
		t.Errorf("%d of 100 were refused with a budget of 100", n)
	}
	if s.TakeLeased(t.Context(), p, "k").Allowed {
		t.Error("one more passed")
	}
}

func TestSharesWhileRedisIsAway(t *testing.T) {
	for _, c := range []struct {
		strict   bool
		replicas int
		want     int
	}{{false, 1, 12}, {false, 3, 4}, {true, 1, 6}, {true, 3, 2}, {true, 100, 1}} {
		s := newSetup(t, c.replicas)
		s.redis.Close()
		p := PerSecond("p", 1, 12)
		p.Strict = c.strict
		allowed := 0
		for range 30 {
			if s.Take(t.Context(), p, "k").Allowed {
				allowed++
			}
		}
		if allowed != c.want {
			t.Errorf("%+v: %d passed", c, allowed)
		}
	}
}

func TestRedisIsAskedAgain(t *testing.T) {
	s := newSetup(t, 1)
	p := PerSecond("p", 1, 3)
	s.redis.SetError("LOADING")
	s.Take(t.Context(), p, "k")
	s.redis.SetError("")
	before := s.redis.CommandCount()
	for range 5 {
		s.Take(t.Context(), p, "k")
	}
	if n := s.redis.CommandCount() - before; n != 0 {
		t.Errorf("%d commands within a second of the failure", n)
	}
	s.add(breakFor)
	for range 3 {
		if !s.Take(t.Context(), p, "k").Allowed {
			t.Error("Redis' own budget is untouched, and yet a request is refused")
		}
	}
	if s.redis.CommandCount() == before {
		t.Error("Redis is never asked again")
	}
}

func TestForgetfulRedis(t *testing.T) {
	s := newSetup(t, 1)
	p := PerSecond("p", 1, 2)
	s.Take(t.Context(), p, "k")
	s.redis.FlushAll() // loses budgets and the script
	for i, want := range []bool{true, true, false} {
		if got := s.Take(t.Context(), p, "k").Allowed; got != want {
			t.Errorf("request %d after a flush: %v", i, got)
		}
	}
	if _, err := s.redis.Lpush("limit:p:other", "x"); err != nil { // somebody else's list under our key
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, false} {
		if got := s.Take(t.Context(), p, "other").Allowed; got != want {
			t.Errorf("request %d at a key of the wrong type: %v", i, got)
		}
	}
	if s.redis.TTL("limit:p:k") <= 0 {
		t.Error("a budget lives for ever")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	s := newSetup(t, 1)
	s.redis.Close()
	p := PerSecond("p", 1, 1)
	for i := range 3 * maxKeys {
		s.Take(t.Context(), p, fmt.Sprint(i))
	}
	if n := len(s.alone.young) + len(s.alone.old); n > maxKeys {
		t.Errorf("%d keys are kept", n)
	}
}

func TestMiddleware(t *testing.T) {
	s := newSetup(t, 1)
	h := s.Middleware(PerSecond("protected", 2, 2), true, func(*http.Request) string { return "k" })(
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for i, want := range []struct {
		status             int
		policy, left, wait string
	}{
		{200, `"protected";q=2;w=1`, `"protected";r=1;t=1`, ""},
		{200, `"protected";q=2;w=1`, `"protected";r=0;t=1`, ""},
		{429, `"protected";q=2;w=1`, `"protected";r=0;t=1`, "1"},
	} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
		if rec.Code != want.status || rec.Header().Get("RateLimit-Policy") != want.policy ||
			rec.Header().Get("RateLimit") != want.left || rec.Header().Get("Retry-After") != want.wait {
			t.Errorf("request %d: %d %v", i, rec.Code, rec.Header())
		}
	}
}
