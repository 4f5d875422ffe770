package oracle

import (
	"testing"

	"github.com/google/uuid"
)

// A day of 65,000 events and more still fits: the sum is taken modulo 2^48, here and in analytics' query.
func TestTallyOfManyEventsFits(t *testing.T) {
	t.Parallel()
	last := uuid.Max
	var all tally
	const n = 200_000
	for range n {
		all.add(last)
	}
	want := int64(1<<48 - n) // n times -1
	if all.n != n || all.sum != want {
		t.Errorf("%d events add up to %d, want %d", all.n, all.sum, want)
	}
}
