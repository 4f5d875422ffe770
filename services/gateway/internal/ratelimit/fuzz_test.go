package ratelimit

import "testing"

// The rule, with any state that Redis may hold and any clock.
func FuzzDecide(f *testing.F) {
	f.Add(int64(0), int64(1_000_000), int64(500_000), int64(10), int64(1))
	f.Add(int64(1)<<60, int64(1), int64(1), int64(10), int64(3))
	f.Fuzz(func(t *testing.T, tat, now, interval, burst, cost int64) {
		// What policies and clocks can be: microseconds of some millennia, an hour between two requests.
		const years = int64(1) << 57
		if tat < 0 || tat > years || now < 0 || now > years || interval < 1 || interval > 3_600_000_000 || burst < 1 || burst > 1000 || cost < 1 || cost > burst {
			return
		}
		next, d := decide(tat, now, interval, burst, cost)
		fits := max(tat, now)+cost*interval <= now+burst*interval
		if d.Allowed != fits || next < max(tat, now) || d.Allowed && next != max(tat, now)+cost*interval || !d.Allowed && next != max(tat, now) {
			t.Fatalf("decide(%d, %d, %d, %d, %d) = %d, %+v", tat, now, interval, burst, cost, next, d)
		}
		if d.Allowed && (d.Remaining < 0 || d.Reset < 0) || !d.Allowed && d.Retry <= 0 {
			t.Fatalf("decide(%d, %d, %d, %d, %d) tells %+v", tat, now, interval, burst, cost, d)
		}
	})
}
