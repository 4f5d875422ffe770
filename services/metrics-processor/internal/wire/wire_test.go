package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
)

var source = &aggregate.Source{Name: "test"}

func aggregator(t testing.TB) *aggregate.Aggregator {
	a, err := aggregate.New(aggregate.Options{Series: 1000, Shards: 1}, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// sums says what each series has: kind, count, sum.
func sums(a *aggregate.Aggregator) map[string]string {
	out := map[string]string{}
	a.Sums(aggregate.Matcher{}, func(s aggregate.Sum) bool {
		out[s.Identity.String()] = fmt.Sprintf("%v %d %g", s.Kind, s.Count, s.Sum)
		return true
	})
	return out
}

func check(t *testing.T, a *aggregate.Aggregator, want map[string]string, drops map[string]uint64) {
	t.Helper()
	if diff := cmp.Diff(want, sums(a)); diff != "" {
		t.Errorf("series, want - got +:\n%s", diff)
	}
	l := a.Ledger()[0]
	n := l.Aggregated
	for _, d := range l.Dropped {
		n += d
	}
	if diff := cmp.Diff(drops, l.Dropped); diff != "" || n != l.Accepted {
		t.Errorf("ledger %+v:\n%s", l, diff)
	}
}

func TestNumbers(t *testing.T) {
	for _, s := range []string{"0", "1", "-1.5", "0.0001", "123456789012345", "1234567890123456789", "1e3", "-0", ".5", "5.", "1.7976931348623157e308", "0.1", "99999999999999.9"} {
		want, _ := strconv.ParseFloat(s, 64)
		if got, ok := number([]byte(s)); !ok || got != want {
			t.Errorf("%s: %v %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "-", ".", "1.2.3", "x", "1 ", "--1"} {
		if v, ok := number([]byte(s)); ok {
			t.Errorf("%q is %v", s, v)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.Float64().Draw(t, "v")
		for _, format := range []byte{'f', 'g'} {
			if got, ok := number(strconv.AppendFloat(nil, want, format, -1, 64)); !ok || got != want {
				t.Fatalf("%v is read as %v", want, got)
			}
		}
	})
}

func TestStatsD(t *testing.T) {
	a := aggregator(t)
	if err := NewStatsD(a, source).Decode([]byte("a:1|c\na:2|c|@0.5\r\nt:1:2:3|ms|#k:v,flag\nt:4|ms|#flag,k:v\nt:1|h|@0.1\n\ng:7|g\n_e{1,1}:a|b\nbroken\nx:|c\nx:1\nx:1|c|@2\n" +
		"_sc|db|2|h:one|#k:v|m:down: no|#x:y\n_sc|db|9\n_sc|\nlast:5|d")); err != nil {
		t.Fatal(err)
	}
	check(t, a, map[string]string{
		"a": "delta 2 5", `t{flag="true",k="v"}`: "sample 4 10", "t": "sample 10 10", "g": "gauge 1 7", "last": "sample 1 5", `db{host="one",k="v"}`: "gauge 1 2",
	}, map[string]uint64{"unsupported": 1, "malformed": 6})
}

// Levels with a sign are relative to the last one, whichever decoder it came from, also within one datagram.
func TestStatsDRelativeLevels(t *testing.T) {
	src := &aggregate.Source{Name: "test"}
	a, err := aggregate.New(aggregate.Options{Series: 10, Shards: 3}, src)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	last := func(name string) float64 {
		v, ok := a.Last(aggregate.Identity{Name: name, Kind: aggregate.KindGauge})
		if !ok {
			t.Fatalf("%s has no value", name)
		}
		return v
	}
	for _, x := range []struct {
		lines string
		want  float64
	}{{"g:10|g\ng:+5|g\ng:-2.5|g", 12.5}, {"g:+0.5|g", 13}, {"g:1|g", 1}, {"g:-3|g\ng:+1|g\ng:4|g\ng:-1|g", 3}} {
		if err := NewStatsD(a, src).Decode([]byte(x.lines)); err != nil {
			t.Fatal(err)
		}
		if got := last("g"); got != x.want {
			t.Errorf("after %q: %v, want %v", x.lines, got, x.want)
		}
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			d := NewStatsD(a, src)
			for range 100 {
				_ = d.Decode([]byte("n:+2|g\nn:-1|g"))
			}
		})
	}
	all.Wait()
	if got := last("n"); got != 400 {
		t.Errorf("after 800 moves: %v", got)
	}
}

func TestStatsDSets(t *testing.T) {
	for _, n := range []int{1, 10, 100, 2000, 10_000} {
		a := aggregator(t)
		for from := range 2 { // the same members twice
			d := NewStatsD(a, source)
			for i := from; i < n; i++ {
				if err := d.Decode(fmt.Appendf(nil, "users:u:%d|s|#page:home", i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		now, seen := time.Now(), 0.0
		a.Query(aggregate.Matcher{Name: "users"}, now.Add(-10*time.Second), now.Add(time.Second), func(w aggregate.Window) bool { seen = w.Stat.Distinct(); return true })
		if math.Abs(seen-float64(n)) > 0.1*float64(n) || n <= 10 && seen != float64(n) {
			t.Errorf("%v of %d", seen, n)
		}
	}
}

// A timestamp says when, and is no part of the series.
func TestStatsDTimestamps(t *testing.T) {
	a := aggregator(t)
	now := time.Now().Unix()
	if err := NewStatsD(a, source).Decode(fmt.Appendf(nil, "a:1|c|#k:v|T%d\na:1|c|T%d|#k:v\na:1|c|#k:v\na:1|c|#k:v|T1000\na:1|c|Tx", now, now-1)); err != nil {
		t.Fatal(err)
	}
	check(t, a, map[string]string{`a{k="v"}`: "delta 3 3"}, map[string]uint64{"late": 1, "malformed": 1})
}

func TestJSON(t *testing.T) {
	a := aggregator(t)
	now := time.Now().UnixMilli()
	d := NewJSON(a, source)
	body := fmt.Sprintf(`{"name":"x","labels":{"a":"1","b":"}\"{"},"value":1.5,"ts":%d}
 { "value" : 2 , "labels" : {"b":"}\"{", "a":"1"} , "name" : "x" }
{"name":"c","value":3,"type":"counter"}

{"name":"old","value":3,"ts":1000}`, now)
	if err := d.Decode([]byte(body)); err != nil {
		t.Fatal(err)
	}
	check(t, a, map[string]string{`x{a="1",b="}\"{"}`: "sample 2 3.5", "c": "delta 1 3"}, map[string]uint64{"late": 1})
	for _, s := range []string{"{", "{}", `{"name":"x"}`, `{"value":1}`, `{"name":"x","value":"1"}`, `{"name":"x","value":1,"other":1}`, `{"name":"x","value":1}x`, `{"name":"x`,
		`{"name":"x","value":1,"labels":{"a":{}}}`, `{"name":"","value":1}`, `{"name":"x","value":1,"ts":-1}`, `[]`, `{"name":"x","value":1,"type":"x"}`, `{"name":"x\"}`} {
		if err := d.Decode([]byte(s)); err == nil {
			t.Errorf("%s is taken", s)
		}
	}
}

func pb(b []byte, n byte, data []byte) []byte {
	b = binary.AppendUvarint(append(b, n<<3|wireBytes), uint64(len(data)))
	return append(b, data...)
}

func pbSample(v float64, at int64) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{1<<3 | wire64}, math.Float64bits(v))
	return binary.AppendUvarint(append(b, 2<<3), uint64(at))
}

func write1(at int64, v float64, labels ...string) []byte {
	var s []byte
	for i := 0; i < len(labels); i += 2 {
		s = pb(s, 1, pb(pb(nil, 1, []byte(labels[i])), 2, []byte(labels[i+1])))
	}
	return pb(nil, 1, pb(s, 2, pbSample(v, at)))
}

func TestRemoteWrite1(t *testing.T) {
	a := aggregator(t)
	now := time.Now().UnixMilli()
	d := NewRemoteWrite1(a, source)
	body := write1(now, 5, "__name__", "r_total", "job", "x")
	body = append(body, write1(now+1, 7, "job", "x", "__name__", "r_total")...)
	body = append(body, write1(now, 3, "__name__", "temperature")...)
	body = append(body, write1(now, math.NaN(), "__name__", "stale")...)
	body = append(body, write1(now, 1)...) // no name
	body = append(body, pb(nil, 1, pb(pb(nil, 1, pb(pb(nil, 1, []byte("__name__")), 2, []byte("h"))), 4, nil))...)
	if err := d.Decode(body); err != nil {
		t.Fatal(err)
	}
	check(t, a, map[string]string{`r_total{job="x"}`: "cumulative 2 12", "temperature": "gauge 1 3", "stale": "gauge 0 0"},
		map[string]uint64{"not_finite": 1, "malformed": 1, "unsupported": 1})
	for i := range body {
		_ = d.Decode(body[:i]) // must not panic
	}
}

func write2(at int64, v float64) []byte {
	var b, refs []byte
	for i, s := range []string{"", "__name__", "r", "job", "x"} {
		b = pb(b, 4, []byte(s))
		if i > 0 {
			refs = binary.AppendUvarint(refs, uint64(i))
		}
	}
	return pb(b, 5, pb(pb(pb(nil, 1, refs), 2, pbSample(v, at)), 5, []byte{1 << 3, 1}))
}

func TestRemoteWrite2(t *testing.T) {
	a := aggregator(t)
	now := time.Now().UnixMilli()
	d := NewRemoteWrite2(a, source)
	for i := range 3 {
		if err := d.Decode(write2(now, float64(i))); err != nil {
			t.Fatal(err)
		}
	}
	check(t, a, map[string]string{`r{job="x"}`: "cumulative 3 3"}, map[string]uint64{})
	if err := d.Decode(pb(nil, 5, pb(nil, 1, []byte{7}))); err == nil {
		t.Error("a label outside the table is taken")
	}
}

func otlpRequest(t testing.TB, at time.Time) []byte {
	kv := func(k, v string) *common.KeyValue {
		return &common.KeyValue{Key: k, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: v}}}
	}
	nanos := uint64(at.UnixNano())
	point := func(v float64, kvs ...*common.KeyValue) *metrics.NumberDataPoint {
		return &metrics.NumberDataPoint{TimeUnixNano: nanos, Attributes: kvs, Value: &metrics.NumberDataPoint_AsDouble{AsDouble: v}}
	}
	sum, low := 2.5, 0.25
	start := uint64(at.Add(time.Second).UnixNano()) // after the decoder was made
	b, err := proto.Marshal(&collector.ExportMetricsServiceRequest{ResourceMetrics: []*metrics.ResourceMetrics{{
		Resource: &resource.Resource{Attributes: []*common.KeyValue{kv("service.name", "shop"), kv("host.name", "h")}},
		ScopeMetrics: []*metrics.ScopeMetrics{{Metrics: []*metrics.Metric{
			{Name: "level", Data: &metrics.Metric_Gauge{Gauge: &metrics.Gauge{DataPoints: []*metrics.NumberDataPoint{point(1, kv("a", "1"), kv("b", "2")), point(2, kv("b", "2"), kv("a", "1"))}}}},
			{Name: "clicks", Data: &metrics.Metric_Sum{Sum: &metrics.Sum{IsMonotonic: true, AggregationTemporality: metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA, DataPoints: []*metrics.NumberDataPoint{
				{TimeUnixNano: nanos, Value: &metrics.NumberDataPoint_AsInt{AsInt: 3}}}}}},
			{Name: "took", Data: &metrics.Metric_Histogram{Histogram: &metrics.Histogram{AggregationTemporality: metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE,
				DataPoints: []*metrics.HistogramDataPoint{{StartTimeUnixNano: start, TimeUnixNano: nanos, Count: 4, Sum: &sum, Min: &low, ExplicitBounds: []float64{0.5, 1}, BucketCounts: []uint64{1, 2, 1}, Attributes: []*common.KeyValue{kv("a", "1")}}}}}},
			{Name: "waited", Data: &metrics.Metric_ExponentialHistogram{ExponentialHistogram: &metrics.ExponentialHistogram{AggregationTemporality: metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA,
				DataPoints: []*metrics.ExponentialHistogramDataPoint{{TimeUnixNano: nanos, Count: 6, Sum: &sum, ZeroCount: 1, Scale: 3,
					Positive: &metrics.ExponentialHistogramDataPoint_Buckets{Offset: -8, BucketCounts: []uint64{0, 3}}, Negative: &metrics.ExponentialHistogramDataPoint_Buckets{Offset: 1, BucketCounts: []uint64{2}}}}}}},
			{Name: "old", Data: &metrics.Metric_Summary{Summary: &metrics.Summary{DataPoints: []*metrics.SummaryDataPoint{{TimeUnixNano: nanos, Count: 9, Sum: 4.5,
				QuantileValues: []*metrics.SummaryDataPoint_ValueAtQuantile{{Quantile: 0.5, Value: 0.4}}}}}}},
		}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOTLP(t *testing.T) {
	for _, format := range []string{"protobuf", "JSON"} {
		a := aggregator(t)
		b := otlpRequest(t, time.Now())
		var d Decoder = NewOTLP(a, source, NewFormer())
		if format == "JSON" {
			d = OTLPJSON{NewOTLP(a, source, NewFormer())}
			var request collector.ExportMetricsServiceRequest
			if err := proto.Unmarshal(b, &request); err != nil {
				t.Fatal(err)
			}
			var err error
			if b, err = protojson.Marshal(&request); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // cumulative ones count what came since
			if err := d.Decode(b); err != nil {
				t.Fatal(format, err)
			}
		}
		check(t, a, map[string]string{
			`level{a="1",b="2",service.name="shop"}`: "gauge 4 6", `clicks{service.name="shop"}`: "delta 2 6",
			`took{a="1",service.name="shop"}`: "sample 4 2.5", `waited{service.name="shop"}`: "sample 12 5",
			`old_count{service.name="shop"}`: "cumulative 2 18", `old_sum{service.name="shop"}`: "cumulative 2 9", `old{quantile="0.5",service.name="shop"}`: "gauge 2 0.8",
		}, map[string]uint64{})
		now := time.Now()
		a.Query(aggregate.Matcher{Name: "waited"}, now.Add(-10*time.Second), now.Add(time.Second), func(w aggregate.Window) bool {
			for q, want := range map[float64]float64{0: -math.Exp2(1.5 / 8), 0.4: 0, 0.9: math.Exp2(-6.5 / 8)} {
				if got := w.Stat.Quantile(q); math.Abs(got-want) > 0.01*math.Abs(want) {
					t.Errorf("q%v is %v, want %v", q, got, want)
				}
			}
			return true
		})
		for i := range b {
			_ = d.Decode(b[:i]) // must not panic
		}
	}
}

// Of cumulative histograms counts what came since the point before, also when buckets became wider or it began again; what a
// process before has read is not counted again.
func TestCumulativeHistograms(t *testing.T) {
	a := aggregator(t)
	d := NewOTLP(a, source, NewFormer())
	now := time.Now()
	send := func(start time.Time, scale int32, offset int32, counts ...uint64) uint64 {
		t.Helper()
		n := uint64(0)
		for _, c := range counts {
			n += c
		}
		sum := float64(n)
		b, err := proto.Marshal(&collector.ExportMetricsServiceRequest{ResourceMetrics: []*metrics.ResourceMetrics{{ScopeMetrics: []*metrics.ScopeMetrics{{Metrics: []*metrics.Metric{
			{Name: "x", Data: &metrics.Metric_ExponentialHistogram{ExponentialHistogram: &metrics.ExponentialHistogram{AggregationTemporality: metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE,
				DataPoints: []*metrics.ExponentialHistogramDataPoint{{StartTimeUnixNano: uint64(start.UnixNano()), TimeUnixNano: uint64(now.UnixNano()), Count: n, Sum: &sum, Scale: scale,
					Positive: &metrics.ExponentialHistogramDataPoint_Buckets{Offset: offset, BucketCounts: counts}}}}}},
		}}}}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Decode(b); err != nil {
			t.Fatal(err)
		}
		return a.Ledger()[0].Aggregated
	}
	began := now.Add(-time.Hour)
	send(began, 2, 4, 1)                // never seen: all of it
	d = NewOTLP(a, source, NewFormer()) // as after a restart
	for i, x := range []struct{ got, want uint64 }{
		{send(began, 2, 4, 5, 3), 1}, // before us
		{send(began, 2, 4, 6, 3, 1), 3},
		{send(began, 1, 2, 9, 4), 6},                      // buckets 4 and 5 are now 2, bucket 6 is now 3
		{send(now.Add(time.Minute), 1, 2, 1), 7},          // began again
		{send(now.Add(time.Minute), 1, 2, 1), 7},          // nothing new
		{send(now.Add(2*time.Minute), 5, 2, 1, 1), 9},     // and again, finer
		{send(now.Add(2*time.Minute), 5, 0, 1, 0, 1), 10}, // a bucket fell: a sender's fault, and never below zero
	} {
		if x.got != x.want {
			t.Errorf("step %d: %d, want %d", i, x.got, x.want)
		}
	}
}

func TestNothingIsAllocatedForASample(t *testing.T) {
	a := aggregator(t)
	now := time.Now().UnixMilli()
	for name, x := range map[string]struct {
		d    Decoder
		body []byte
	}{
		"statsd": {NewStatsD(a, source), []byte("t:1|ms|#k:v\nc:1|c\n")},
		"json":   {NewJSON(a, source), fmt.Appendf(nil, `{"name":"x","labels":{"a":"1"},"value":1.5,"ts":%d}`, now)},
		"write1": {NewRemoteWrite1(a, source), write1(now, 5, "__name__", "r_total", "job", "x")},
		"write2": {NewRemoteWrite2(a, source), write2(now, 5)},
	} {
		f := func() {
			if err := x.d.Decode(x.body); err != nil {
				t.Fatal(err)
			}
		}
		f()
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// fuzz says that a decoder neither panics nor loses count, whatever it gets.
func fuzz(f *testing.F, decoder func(*aggregate.Aggregator) Decoder) {
	f.Fuzz(func(t *testing.T, b []byte) {
		a := aggregator(t)
		d := decoder(a)
		_ = d.Decode(b)
		_ = d.Decode(b)
		for _, l := range a.Ledger() {
			n := l.Aggregated
			for _, x := range l.Dropped {
				n += x
			}
			if n != l.Accepted {
				t.Errorf("%+v", l)
			}
		}
	})
}

func FuzzStatsD(f *testing.F) {
	f.Add([]byte("a:1|c|@0.5|#k:v\nb:1:2|ms"))
	fuzz(f, func(a *aggregate.Aggregator) Decoder { return NewStatsD(a, source) })
}

func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"name":"x","labels":{"a":"b\"}"},"value":1e3,"ts":1,"type":"gauge"}`))
	fuzz(f, func(a *aggregate.Aggregator) Decoder { return NewJSON(a, source) })
}

func FuzzRemoteWrite1(f *testing.F) {
	f.Add(write1(time.Now().UnixMilli(), 1, "__name__", "x", "a", "b"))
	fuzz(f, func(a *aggregate.Aggregator) Decoder { return NewRemoteWrite1(a, source) })
}

func FuzzRemoteWrite2(f *testing.F) {
	f.Add(write2(time.Now().UnixMilli(), 1))
	fuzz(f, func(a *aggregate.Aggregator) Decoder { return NewRemoteWrite2(a, source) })
}

func FuzzOTLP(f *testing.F) {
	f.Add(otlpRequest(f, time.Now()))
	fuzz(f, func(a *aggregate.Aggregator) Decoder { return NewOTLP(a, source, NewFormer()) })
}

// What is taken as JSON is JSON to the standard library as well.
func FuzzJSONAgrees(f *testing.F) {
	f.Add([]byte(`{"name":"x","labels":{"a":"b"},"value":1.5}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := aggregator(t)
		d := NewJSON(a, source)
		if d.Decode(b) != nil || a.Ledger()[0].Aggregated != 1 {
			return
		}
		var x struct {
			Name  string  `json:"name"`
			Value float64 `json:"value"`
		}
		if json.Unmarshal(b, &x) == nil {
			found := false
			a.Sums(aggregate.Matcher{}, func(s aggregate.Sum) bool { found = found || s.Count == 1 && s.Sum == x.Value; return true })
			if !found {
				t.Errorf("%q: %v", b, sums(a))
			}
		}
	})
}

func FuzzOTLPJSON(f *testing.F) {
	var request collector.ExportMetricsServiceRequest
	if err := proto.Unmarshal(otlpRequest(f, time.Now()), &request); err != nil {
		f.Fatal(err)
	}
	b, err := protojson.Marshal(&request)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	fuzz(f, func(a *aggregate.Aggregator) Decoder { return OTLPJSON{NewOTLP(a, source, NewFormer())} })
}
