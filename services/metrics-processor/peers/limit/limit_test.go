package limit

import (
	"math"
	"testing"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/workload"
)

// A yardstick that miscounts would measure nothing.
func TestEverySampleIsCounted(t *testing.T) {
	w := workload.New(500, 20_000)
	s, err := New(500)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Record(w.Rows, w.Values)
	var count, counted uint64
	sum, want := 0.0, 0.0
	for i := range s.records {
		r := &s.records[i]
		count += r.count
		sum += r.sum
		for _, n := range s.counters(r) {
			counted += uint64(n)
		}
	}
	for _, v := range w.Values {
		want += v
	}
	if n := uint64(len(w.Values)); s.used != 500 || count != n || counted != n || math.Abs(sum-want) > 1e-6*want {
		t.Errorf("%d series, %d samples, %d in buckets, sum %v, want %d and %v", s.used, count, counted, sum, n, want)
	}
}
