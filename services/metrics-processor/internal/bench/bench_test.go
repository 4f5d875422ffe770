package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/workload"
)

func TestEveryWorkIsMeasured(t *testing.T) {
	w := workload.New(100, 1<<16)
	var m measured
	for _, work := range works {
		if err := m.measure(w, work, plan{length: 20 * time.Millisecond, goroutines: []int{1, 2}}); err != nil {
			t.Fatal(err)
		}
	}
	all := m.rows()
	if len(all) != 2*len(works) {
		t.Fatalf("%d rows: %+v", len(all), all)
	}
	for i, r := range all {
		if r.Work != works[i/2] || r.Goroutines != 1+i%2 || r.Rate <= 0 || r.p99 < r.p50 || r.PeerRate != nil {
			t.Errorf("%+v", r)
		}
	}
	if b := median(m.perSeries[100]); b <= 0 {
		t.Errorf("%v bytes a series", b)
	}
}

// The median of the rounds stands beside the median of each peer's; the prototype is no peer.
func TestRowsAreJoinedWithTheirPeers(t *testing.T) {
	m := measured{}
	for _, rate := range []float64{40, 30, 10} {
		m.ours = append(m.ours, Row{Work: "json", Series: 10, Goroutines: 2, Rate: rate}, Row{Work: "statsd", Series: 10, Goroutines: 2, Rate: rate})
		m.peers = append(m.peers, workload.Rate{Work: "json", Series: 10, Goroutines: 2, Peer: "<p>", Rate: rate / 2},
			workload.Rate{Work: "json", Series: 10, Goroutines: 2, Peer: workload.Limit, Rate: 2 * rate},
			workload.Rate{Work: "json", Series: 10, Goroutines: 1, Peer: "other", Rate: rate})
	}
	all := m.rows()
	peer, ratio := 15.0, 2.0
	want := []Row{
		{Work: "statsd", Series: 10, Goroutines: 2, Rate: 30},
		{Work: "json", Series: 10, Goroutines: 2, Rate: 30, Peer: "<p>", PeerRate: &peer, Ratio: &ratio, limit: 60},
	}
	if diff := cmp.Diff(want, all, cmp.AllowUnexported(Row{})); diff != "" {
		t.Fatal(diff)
	}
	if notes := strings.Join(m.notes(all), "\n"); !strings.Contains(notes, "json, 10 series, 2 goroutines: 0.50 of the prototype") {
		t.Error(notes)
	}
	html := string(report(all, nil, ""))
	if strings.Contains(html, "<p>\n") || strings.Count(html, "<svg") != 2 || !strings.Contains(html, "&lt;p&gt;") {
		t.Error(html)
	}
	if svg := overview(all); strings.Count(svg, "<rect") != 3 || !strings.Contains(svg, "json, 10 series") {
		t.Error(svg)
	}
}
