package aggregate

import (
	"math"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/sketch"
)

// places is how many places there are for the members of a set: as many as a cell has counters. What is counted are the
// places that are taken, so sets merge as sketches do, by adding.
const places = widest

// MostMembers is how many different members can be told from more: by then, all places are taken.
const MostMembers = 15_000

// firstPlace is the bucket of the first place, that of 1.
const firstPlace = 1023 << sketch.SubBits

// Member is the value that stands for a member of a set, in this process as in any other: FNV-1a, mixed once more.
func Member(name []byte) float64 {
	h := uint64(14695981039346656037)
	for _, c := range name {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return math.Float64frombits((firstPlace + fold(h, 0x9e3779b97f4a7c15)%places) << sketch.Shift)
}

// Distinct is about how many different members a set has (linear counting): exact for a few, within 2 % (one standard deviation)
// for 2,000 and 5 % for 10,000.
func (st *Stat) Distinct() float64 {
	empty := float64(places - st.sketch.Len())
	if empty < 1 {
		return MostMembers
	}
	return math.Round(-places * math.Log(empty/places))
}
