package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/workload"
)

func TestEveryWorkIsMeasured(t *testing.T) {
	w := workload.New(100, 1<<15)
	for _, work := range works {
		row, perSeries, err := measure(w, work, 2, 20*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if row.Work != work || row.Rate <= 0 || row.p99 < row.p50 || perSeries <= 0 {
			t.Errorf("%+v, %v bytes a series", row, perSeries)
		}
	}
}

func TestRowsAreJoinedWithTheirPeers(t *testing.T) {
	rows := []Row{{Work: "json", Series: 10, Goroutines: 2, Rate: 30}, {Work: "statsd", Series: 10, Goroutines: 2, Rate: 5}}
	name := workload.Rate{Work: "json", Series: 10, Goroutines: 2, Peer: "<p>"}
	all := join(rows, []workload.Rate{name}, map[string][]float64{"json10 2<p>": {10, 12}, "json 10 2 <p>": {10, 12}, "json102<p>": {10, 12}})
	if len(all) != 2 || all[0].Work != "statsd" || all[0].Ratio != nil || all[1].Ratio == nil {
		t.Fatalf("%+v", all)
	}
	html := string(report(all, nil, ""))
	if strings.Contains(html, "<p>\n") || strings.Count(html, "<svg") != 2 || !strings.Contains(html, "&lt;p&gt;") {
		t.Error(html)
	}
}
