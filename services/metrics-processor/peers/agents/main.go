// Command agents measures the aggregating parts of two agents, vmagent and veneur, from the bytes of a message to the
// aggregate, and prints a line of JSON for each. Their requirements are many, so they are a module of their own.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/VictoriaMetrics/VictoriaMetrics/lib/prompb"
	"github.com/VictoriaMetrics/VictoriaMetrics/lib/streamaggr"
	"github.com/klauspost/compress/s2"
	"github.com/sirupsen/logrus"
	"github.com/stripe/veneur/v14"
	"github.com/stripe/veneur/v14/samplers"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/workload"
)

func main() {
	err := workload.Peers(os.Args[1:], os.Stdout, func(w *workload.Workload, say workload.Say) error {
		a, err := streamaggr.LoadFromData([]byte("- match: "+workload.Name+
			"\n  interval: 24h\n  no_align_flush_to_interval: true\n  outputs: [count_samples, sum_samples, min, max, \"quantiles(0.5,0.95,0.99)\"]\n"),
			func([]prompb.TimeSeries) {}, nil, "bench")
		if err != nil {
			return fmt.Errorf("start streamaggr: %w", err)
		}
		defer a.MustStop()
		writes := w.RemoteWrite()
		say("remote-write", "vmagent streamaggr", func(int) func(int) int {
			var buf []byte
			var u prompb.WriteRequestUnmarshaler
			var match []uint32
			return func(i int) int {
				var err error
				if buf, err = s2.Decode(buf[:cap(buf)], writes[i%len(writes)]); err != nil {
					panic(err)
				}
				r, err := u.UnmarshalProtobuf(buf)
				if err != nil {
					panic(err)
				}
				match = a.Push(r.Timeseries, match)
				return len(r.Timeseries)
			}
		})
		lines := w.StatsD()
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		var workers [8]*veneur.Worker // its default is one, and its documentation asks for more
		for i := range workers {
			workers[i] = veneur.NewWorker(i, true, false, nil, silent, nil)
		}
		say("statsd", "veneur", func(int) func(int) int {
			parser := samplers.NewParser(nil)
			return func(i int) (n int) {
				for line := range bytes.SplitSeq(bytes.TrimSuffix(lines[i%len(lines)], []byte("\n")), []byte("\n")) {
					m, err := parser.ParseMetric(line)
					if err != nil {
						panic(err)
					}
					workers[m.Digest%uint32(len(workers))].ProcessMetric(m)
					n++
				}
				return n
			}
		})
		return nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
