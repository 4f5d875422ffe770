package ratelimit

import (
	_ "embed"
	"time"

	"github.com/redis/go-redis/v9"
)

// Policy is a budget: Burst at once, and one more each Interval.
type Policy struct {
	Name     string
	Burst    int
	Interval time.Duration
	// Strict budgets are halved while Redis is away: guessing passwords must not become cheaper by that.
	Strict bool
}

// PerSecond is a policy of n per second.
func PerSecond(name string, n, burst int) Policy {
	return Policy{Name: name, Burst: burst, Interval: time.Second / time.Duration(n)}
}

// Decision is the answer for one request.
type Decision struct {
	Allowed   bool
	Remaining int           // of the burst, now
	Reset     time.Duration // until the burst is whole again
	Retry     time.Duration // until the same request is allowed; 0 if it was
}

// decide is GCRA on microseconds: the same arithmetic as gcra.lua. A negative cost gives back.
func decide(tat, now, interval, burst, cost int64) (int64, Decision) {
	tat = max(tat, now)
	next := max(tat+cost*interval, now)
	if wait := next - burst*interval - now; wait > 0 {
		return tat, Decision{Remaining: remaining(tat, now, interval, burst), Reset: micros(tat - now), Retry: micros(wait)}
	}
	return next, Decision{Allowed: true, Remaining: remaining(next, now, interval, burst), Reset: micros(next - now)}
}

func remaining(tat, now, interval, burst int64) int {
	return int((now + burst*interval - tat) / interval)
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

//go:embed gcra.lua
var source string

var script = redis.NewScript(source) // EVALSHA, and EVAL where Redis has forgotten it
