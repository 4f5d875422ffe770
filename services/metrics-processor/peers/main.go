// Command peers measures libraries that do what the metrics processor does, with the same workload, and prints a line of JSON
// for each. It is a module of its own, so that the service links none of them.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"unsafe"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/HdrHistogram/hdrhistogram-go"
	vm "github.com/VictoriaMetrics/metrics"
	"github.com/klauspost/compress/s2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/statsd_exporter/pkg/event"
	"github.com/prometheus/statsd_exporter/pkg/line"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/workload"
	"github.com/waybill-dev/waybill/services/metrics-processor/peers/limit"
)

// peer makes a recorder of rows that many goroutines may use.
type peer struct {
	name string
	new  func() func(buf []byte, row []string, v float64) []byte
}

var peers = []peer{
	{"VictoriaMetrics/metrics", func() func([]byte, []string, float64) []byte {
		set := vm.NewSet()
		return func(b []byte, row []string, v float64) []byte {
			b = append(b[:0], workload.Name...)
			for i, x := range row {
				sep := byte(',')
				if i == 0 {
					sep = '{'
				}
				b = append(append(append(append(b, sep), workload.Labels[i]...), `="`...), x...)
				b = append(b, '"')
			}
			b = append(b, '}')
			k := unsafe.String(unsafe.SliceData(b), len(b))
			set.GetOrCreateHistogram(k).Update(v)
			return b
		}
	}},
	{"HdrHistogram", func() func([]byte, []string, float64) []byte {
		return sharded(func() func(float64) {
			h := hdrhistogram.New(1, 100_000_000, 2)
			return func(v float64) { _ = h.RecordValue(int64(v * 1e6)) }
		})
	}},
	{"DDSketch", func() func([]byte, []string, float64) []byte {
		return sharded(func() func(float64) {
			s, err := ddsketch.NewDefaultDDSketchWithExactSummaryStatistics(0.01)
			if err != nil {
				panic(err)
			}
			return func(v float64) { _ = s.Add(v) }
		})
	}},
	{"client_golang", func() func([]byte, []string, float64) []byte {
		v := vec()
		return func(b []byte, row []string, x float64) []byte { v.WithLabelValues(row...).Observe(x); return b }
	}},
	{"OpenTelemetry SDK", func() func([]byte, []string, float64) []byte {
		provider := sdk.NewMeterProvider(sdk.WithReader(sdk.NewManualReader()), sdk.WithCardinalityLimit(0))
		h, err := provider.Meter("bench").Float64Histogram(workload.Name)
		if err != nil {
			panic(err)
		}
		ctx := context.Background()
		return func(b []byte, row []string, v float64) []byte {
			h.Record(ctx, v, metric.WithAttributes(attribute.String(workload.Labels[0], row[0]), attribute.String(workload.Labels[1], row[1]),
				attribute.String(workload.Labels[2], row[2]), attribute.String(workload.Labels[3], row[3])))
			return b
		}
	}},
}

func vec() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: workload.Name, Help: "h"}, workload.Labels[:])
}

// sharded gives a sketch, which knows no series and no goroutines, the usual registry: 64 maps behind read locks, and a lock
// for each series.
func sharded(one func() func(float64)) func([]byte, []string, float64) []byte {
	type entry struct {
		mu  sync.Mutex
		add func(float64)
	}
	var shards [64]struct {
		mu sync.RWMutex
		m  map[string]*entry
	}
	for i := range shards {
		shards[i].m = map[string]*entry{}
	}
	return func(b []byte, row []string, v float64) []byte {
		b = b[:0]
		for _, x := range row {
			b = append(append(b, x...), 0xff)
		}
		h := uint32(2166136261)
		for _, c := range b {
			h = (h ^ uint32(c)) * 16777619
		}
		s := &shards[h%64]
		s.mu.RLock()
		e := s.m[string(b)]
		s.mu.RUnlock()
		if e == nil {
			s.mu.Lock()
			if e = s.m[string(b)]; e == nil {
				e = &entry{add: one()}
				s.m[string(b)] = e
			}
			s.mu.Unlock()
		}
		e.mu.Lock()
		e.add(v)
		e.mu.Unlock()
		return b
	}
}

func main() {
	err := workload.Peers(os.Args[1:], os.Stdout, func(w *workload.Workload, say workload.Say) error {
		for _, p := range peers {
			record := p.new()
			for i := range w.Series { // every series exists: VictoriaMetrics keeps the key, so it gets memory of its own
				record(nil, w.Rows[4*i:4*i+4], w.Values[i])
			}
			say("label-lookup", p.name, func(int) func(int) int {
				b := make([]byte, 0, 512)
				return func(i int) int {
					rows, values := w.Batch(i)
					for j, v := range values {
						b = record(b, rows[4*j:4*j+4], v)
					}
					return len(values)
				}
			})
		}
		if err := prototypes(w, say); err != nil {
			return err
		}
		lines, exports, writes, statsd := w.JSON(), w.OTLP(), w.RemoteWrite(), w.StatsD()
		v := vec()
		say("json", "encoding/json + client_golang", func(int) func(int) int {
			return func(i int) int { return jsonLines(v, lines[i%len(lines)]) }
		})
		say("otlp", "OTLP protobuf + client_golang", func(int) func(int) int {
			return func(i int) int { return export(v, exports[i%len(exports)]) }
		})
		say("remote-write", "protowire + client_golang", func(int) func(int) int {
			var buf []byte
			return func(i int) int {
				var err error
				if buf, err = s2.Decode(buf[:cap(buf)], writes[i%len(writes)]); err != nil {
					panic(err)
				}
				return write(v, buf)
			}
		})
		say("statsd", "statsd_exporter's parser + client_golang", func(int) func(int) int {
			parse := statsdParser()
			return func(i int) (n int) {
				for text := range strings.Lines(string(statsd[i%len(statsd)])) {
					e := parse(strings.TrimSuffix(text, "\n"))[0]
					x := e.Labels()
					v.WithLabelValues(x["method"], x["region"], x["route"], x["service"]).Observe(e.Value())
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

// prototypes measures what the machine could do if there were no windows, no order of labels, no budget, no ledger and nobody
// who reads: a shard for each goroutine, and the same passes over cache misses.
func prototypes(w *workload.Workload, say workload.Say) error {
	var shards [2]*limit.Shard
	var locks [2]sync.Mutex
	for i := range shards {
		var err error
		if shards[i], err = limit.New(w.Series); err != nil {
			return err
		}
		defer shards[i].Close()
		for from := 0; from < w.Series; from += limit.Block {
			to := min(from+limit.Block, w.Series)
			shards[i].Record(w.Rows[4*from:4*to], w.Values[from:to])
		}
	}
	say("label-lookup", workload.Limit, func(g int) func(int) int {
		return func(i int) int {
			rows, values := w.Batch(i)
			for from := 0; from < len(values); from += 4 * limit.Block {
				to := min(from+4*limit.Block, len(values))
				at := g % len(shards)
				if !locks[at].TryLock() {
					if at = 1 - at; !locks[at].TryLock() {
						locks[at].Lock()
					}
				}
				shards[at].Record(rows[4*from:4*to], values[from:to])
				locks[at].Unlock()
			}
			return len(values)
		}
	})
	return nil
}

func jsonLines(v *prometheus.HistogramVec, b []byte) (n int) {
	for line := range bytes.SplitSeq(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")) {
		var x struct {
			Name   string            `json:"name"`
			Labels map[string]string `json:"labels"`
			Value  float64           `json:"value"`
			TS     int64             `json:"ts"`
		}
		if err := json.Unmarshal(line, &x); err != nil {
			panic(err)
		}
		v.WithLabelValues(x.Labels["method"], x.Labels["region"], x.Labels["route"], x.Labels["service"]).Observe(x.Value)
		n++
	}
	return n
}

func export(v *prometheus.HistogramVec, b []byte) (n int) {
	var r collector.ExportMetricsServiceRequest
	if err := proto.Unmarshal(b, &r); err != nil {
		panic(err)
	}
	for _, p := range r.ResourceMetrics[0].ScopeMetrics[0].Metrics[0].GetGauge().DataPoints {
		a := p.Attributes
		v.WithLabelValues(a[0].Value.GetStringValue(), a[1].Value.GetStringValue(), a[2].Value.GetStringValue(), a[3].Value.GetStringValue()).Observe(p.GetAsDouble())
		n++
	}
	return n
}

// statsdParser is what the statsd_exporter makes events with. It observes them on one goroutine, behind a channel; here each
// goroutine observes its own.
func statsdParser() func(line string) event.Events {
	counter := func() prometheus.Counter { return prometheus.NewCounter(prometheus.CounterOpts{Name: "n"}) }
	failed := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "n"}, []string{"reason"})
	received, tagErrors, tags := counter(), counter(), counter()
	p := line.NewParser()
	p.EnableDogstatsdParsing()
	return func(text string) event.Events {
		return p.LineToEvents(text, *failed, received, tagErrors, tags, slog.New(slog.DiscardHandler))
	}
}

// write decodes a request with the protobuf project's own field reader: every label of every sample.
func write(v *prometheus.HistogramVec, b []byte) (n int) {
	each := func(b []byte, f func(num protowire.Number, data []byte, fixed uint64)) {
		for len(b) > 0 {
			num, typ, k := protowire.ConsumeTag(b)
			b = b[k:]
			switch typ {
			case protowire.BytesType:
				data, k := protowire.ConsumeBytes(b)
				f(num, data, 0)
				b = b[k:]
			case protowire.Fixed64Type:
				x, k := protowire.ConsumeFixed64(b)
				f(num, nil, x)
				b = b[k:]
			default:
				b = b[protowire.ConsumeFieldValue(num, typ, b):]
			}
		}
	}
	var values [5]string
	each(b, func(_ protowire.Number, series []byte, _ uint64) {
		i := 0
		each(series, func(num protowire.Number, data []byte, _ uint64) {
			switch num {
			case 1:
				each(data, func(num protowire.Number, data []byte, _ uint64) {
					if num == 2 {
						values[i] = string(data)
						i++
					}
				})
			case 2:
				each(data, func(num protowire.Number, _ []byte, x uint64) {
					if num == 1 {
						v.WithLabelValues(values[1:]...).Observe(math.Float64frombits(x))
						n++
					}
				})
			}
		})
	})
	return n
}
