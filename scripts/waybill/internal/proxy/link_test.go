package proxy

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// edge is a condition that a test sets.
type edge struct{ c atomic.Pointer[condition] }

func (e *edge) condition() *condition { return e.c.Load() }

func (e *edge) set(t Toxic) {
	toxics := map[string]Toxic{"": t}
	c := &condition{since: time.Now(), requests: mix(toxics, Requests), responses: mix(toxics, Responses), changed: make(chan struct{})}
	if old := e.c.Swap(c); old != nil {
		close(old.changed)
	}
}

// pair starts a link and returns its two ends.
func pair(t *testing.T, e *edge) (caller, callee net.Conn) {
	caller, near := net.Pipe()
	far, callee := net.Pipe()
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { defer close(ended); (&link{edge: e, caller: near, callee: far}).run(ctx) }()
	t.Cleanup(func() { cancel(); caller.Close(); callee.Close(); <-ended })
	return caller, callee
}

// send writes on one end and tells how long after that all of it came out of the other.
func send(t *testing.T, from, to net.Conn, b []byte) time.Duration {
	t.Helper()
	begin := time.Now()
	go func() { _, _ = from.Write(b) }()
	got := make([]byte, len(b))
	if _, err := io.ReadFull(to, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b) {
		t.Error("what came is not what was sent")
	}
	return time.Since(begin)
}

func TestToxicsTakeTheirTime(t *testing.T) {
	for name, c := range map[string]struct {
		toxic    Toxic
		bytes    int
		min, max time.Duration // requests
		back     time.Duration // responses, at least
	}{
		"none":          {Toxic{}, 100, 0, 0, 0},
		"latency":       {Toxic{LatencyMS: 700}, 100, 700 * time.Millisecond, 700 * time.Millisecond, 700 * time.Millisecond},
		"jitter":        {Toxic{LatencyMS: 700, JitterMS: 200}, 100, 700 * time.Millisecond, 900 * time.Millisecond, 700 * time.Millisecond},
		"one direction": {Toxic{LatencyMS: 700, Direction: Responses}, 100, 0, 0, 700 * time.Millisecond},
		"bandwidth":     {Toxic{BytesPerSecond: 1000}, 3000, 2900 * time.Millisecond, 3 * time.Second, 2900 * time.Millisecond},
		"slicer":        {Toxic{SliceBytes: 10}, 1000, 99 * time.Millisecond, 99 * time.Millisecond, 99 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &edge{}
				e.set(c.toxic)
				caller, callee := pair(t, e)
				if took := send(t, caller, callee, bytes.Repeat([]byte("q"), c.bytes)); took < c.min || took > c.max {
					t.Errorf("the request took %v, not %v to %v", took, c.min, c.max)
				}
				if took := send(t, callee, caller, bytes.Repeat([]byte("a"), c.bytes)); took < c.back {
					t.Errorf("the answer took %v, not %v", took, c.back)
				}
			})
		})
	}
}

// A network that heals delivers what was lost meanwhile; the other direction never suffered.
func TestBlackholeHoldsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &edge{}
		e.set(Toxic{Blackhole: true, Direction: Requests})
		caller, callee := pair(t, e)
		if took := send(t, callee, caller, []byte("hello")); took != 0 {
			t.Errorf("the direction that is well took %v", took)
		}
		time.AfterFunc(9*time.Second, func() { e.set(Toxic{}) })
		if took := send(t, caller, callee, []byte("request")); took != 9*time.Second {
			t.Errorf("the request came after %v, not when the hole was closed", took)
		}
	})
}

func TestLimitEndsInMidMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &edge{}
		e.set(Toxic{LimitBytes: 7})
		caller, callee := pair(t, e)
		go func() { _, _ = caller.Write([]byte("ten bytes.")) }()
		got, _ := io.ReadAll(callee)
		if string(got) != "ten byt" {
			t.Errorf("%q came through", got)
		}
	})
}

func TestResetComesWhenTheConnectionIsOldEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &edge{}
		e.set(Toxic{})
		caller, _ := pair(t, e)
		time.Sleep(time.Second)
		begin := time.Now()
		e.set(Toxic{ResetAfterMS: 300})
		_, err := caller.Read(make([]byte, 1))
		if took := time.Since(begin); err == nil || took != 300*time.Millisecond {
			t.Errorf("it ended after %v with %v", took, err)
		}
	})
}

// Pieces keep their order whatever the jitter.
func TestJitterKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &edge{}
		e.set(Toxic{LatencyMS: 1, JitterMS: 500})
		caller, callee := pair(t, e)
		var want []byte
		go func() {
			for i := range 200 {
				_, _ = caller.Write([]byte{byte(i)})
			}
		}()
		for i := range 200 {
			want = append(want, byte(i))
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(callee, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v %v", got, err)
		}
	})
}

func TestMixTakesTheWorst(t *testing.T) {
	toxics := map[string]Toxic{
		"1": {LatencyMS: 100, BytesPerSecond: 1000}, "2": {LatencyMS: 50, BytesPerSecond: 200, Blackhole: true, Direction: Responses}, "3": {ResetAfterMS: 900, LimitBytes: 5},
	}
	if got, want := mix(toxics, Requests), (Toxic{LatencyMS: 100, BytesPerSecond: 1000, ResetAfterMS: 900, LimitBytes: 5}); got != want {
		t.Errorf("requests: %+v", got)
	}
	if got, want := mix(toxics, Responses), (Toxic{LatencyMS: 100, BytesPerSecond: 200, ResetAfterMS: 900, LimitBytes: 5, Blackhole: true}); got != want {
		t.Errorf("responses: %+v", got)
	}
}
