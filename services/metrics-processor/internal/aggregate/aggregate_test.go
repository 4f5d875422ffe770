package aggregate

import (
	"fmt"
	"math"
	"math/rand"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/sketch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plain is a format whose keys are "name,label=value,label=value".
type plain struct{}

func (plain) Identity(x, y []byte) (Identity, error) {
	id := Identity{Name: strings.Clone(string(x))}
	for part := range strings.SplitSeq(string(y), ",") {
		if name, value, ok := strings.Cut(part, "="); ok {
			id.Labels = append(id.Labels, Label{name, value})
		}
	}
	return id, nil
}

func newAggregator(t testing.TB, o Options, sources ...*Source) *Aggregator {
	t.Helper()
	a, err := New(o, sources...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// sums are the counts and sums of all series, by name.
func sums(a *Aggregator) map[string]Sum {
	out := map[string]Sum{}
	a.Sums(Matcher{}, func(s Sum) bool { out[s.Identity.String()] = s; return true })
	return out
}

func balanced(t testing.TB, a *Aggregator) (accepted, aggregated uint64) {
	t.Helper()
	var counted uint64
	for _, s := range sums(a) {
		counted += s.Count
	}
	for _, b := range a.Ledger() {
		n := b.Aggregated
		for _, d := range b.Dropped {
			n += d
		}
		if b.Accepted != n {
			t.Errorf("%s: accepted %d, aggregated and dropped %d", b.Source, b.Accepted, n)
		}
		accepted += b.Accepted
		aggregated += b.Aggregated
	}
	if forgotten := a.Health().Forgotten.Samples; aggregated != counted+forgotten {
		t.Errorf("aggregated %d, the series have %d, forgotten ones had %d", aggregated, counted, forgotten)
	}
	return accepted, aggregated
}

func TestAnyOrderOfLabelsIsTheSameSeries(t *testing.T) {
	src := &Source{Name: "test"}
	a := newAggregator(t, Options{Series: 100}, src)
	b := a.NewBatch(src, plain{}, 1)
	now := time.Now().UnixMilli()
	for i, y := range []string{"a=1,b=2,c=3", "c=3,b=2,a=1", "b=2,c=3,a=1", "b=2,c=3,a=1,d="} {
		b.Add([]byte("x"), []byte(y), float64(i+1), now)
	}
	b.Flush()
	v := a.NewVec(src, KindSample, "x", "c", "a", "b").Writer()
	v.Record(now+1, []string{"3", "1", "2", "3", "1", "2"}, []float64{5, 6})
	got := sums(a)[`x{a="1",b="2",c="3"}`]
	if got.Count != 6 || got.Sum != 21 || got.Last != 6 {
		t.Errorf("%+v of %v", got, sums(a))
	}
}

// Both ways in, on keys of every length, against a map.
func TestSeriesAreNotMixedUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		src := &Source{Name: "test"}
		a, err := New(Options{Series: 500, Shards: 2}, src)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		now := time.Now().UnixMilli()
		b := a.NewBatch(src, plain{}, 1)
		w := a.NewVec(src, KindSample, "v", "l", "m").Writer()
		type sum struct {
			n uint64
			s float64
		}
		want := map[string]sum{}
		add := func(id Identity, v float64) {
			id.Sort()
			k := want[id.String()]
			want[id.String()] = sum{k.n + 1, k.s + v}
		}
		value := rapid.StringMatching(`[ab]{0,3}|[ab]{60}|[ab]{254,256}`)
		for i := range rapid.IntRange(1, 200).Draw(t, "samples") {
			x, y, v := value.Draw(t, "x"), value.Draw(t, "y"), float64(i%7)
			if i%2 == 0 {
				w.Record(now, []string{x, y}, []float64{v})
				add(Identity{Name: "v", Labels: []Label{{"l", x}, {"m", y}}}, v)
			} else {
				b.Add([]byte("n"+x), []byte("l="+y), v, now)
				add(Identity{Name: "n" + x, Labels: []Label{{"l", y}}}, v)
			}
		}
		b.Flush()
		got := map[string]sum{}
		for name, s := range sums(a) {
			got[name] = sum{s.Count, s.Sum}
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(sum{})); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestWindowsAgreeWithTheValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		src := &Source{Name: "test"}
		a, err := New(Options{Series: 10, Shards: 2}, src)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		values := rapid.SliceOfN(rapid.OneOf(rapid.Float64Range(0.001, 100), rapid.Just(0.0), rapid.Float64Range(-10, 1e12)), 1, 300).Draw(t, "values")
		now := time.Now()
		for part := range slices.Chunk(values, 7) { // writers of both shards
			w := a.NewVec(src, KindSample, "x", "l").Writer()
			rows := slices.Repeat([]string{"1"}, len(part))
			w.Record(now.UnixMilli(), rows, part)
		}
		seen := 0
		a.Query(Matcher{Name: "x"}, now, now.Add(1), func(w Window) bool {
			seen++
			vs := slices.Sorted(slices.Values(values))
			sum := 0.0
			for _, v := range values {
				sum += v
			}
			if w.Stat.Count != uint64(len(vs)) || w.Stat.Min != vs[0] || w.Stat.Max != vs[len(vs)-1] || math.Abs(w.Stat.Sum-sum) > 1e-9*math.Abs(sum)+1e-9 {
				t.Fatalf("%+v of %v", w.Stat, vs)
			}
			for _, q := range []float64{0.5, 0.9, 0.95, 0.99} {
				exact := vs[int(q*float64(len(vs)-1))]
				if got := w.Stat.Quantile(q); math.Abs(got-exact) > 0.01*math.Abs(exact) {
					t.Fatalf("q%v: %v, exactly %v", q, got, exact)
				}
			}
			return true
		})
		if seen != 1 {
			t.Fatalf("%d series", seen)
		}
	})
}

// Counters that run over, their carries that do so too, and a far outlier are counted right.
func TestCountersThatRunOver(t *testing.T) {
	p, err := newPane(make([]shape, 2))
	if err != nil {
		t.Fatal(err)
	}
	defer p.mem.Close()
	c := p.cell(1)
	record := func(v float64, times int) {
		for range times {
			p.record(c, v, 1)
		}
	}
	record(2, 1000)
	record(200, 1) // wider: carries move along
	b := uint32(math.Float64bits(2)>>sketch.Shift) - c.base
	before := p.carries(c)[b]
	p.carries(c)[b] = math.MaxUint16 // as if as many had come as it can hold
	more := uint64(math.MaxUint16-before) * carried
	c.count += more
	record(2, 1000)
	record(1e200, 1)
	record(-1, 2)
	var st Stat
	p.addTo(&st, 1)
	want := map[int32]uint64{sketch.Key(2): 2000 + more, sketch.Key(200): 1, sketch.Key(1e200): 1, sketch.Key(-1): 2}
	got := map[int32]uint64{}
	st.sketch.Each(func(key int32, n uint64) { got[key] = n })
	if diff := cmp.Diff(want, got); diff != "" || st.Count != st.sketch.Count() || st.Min != -1 || st.Max != 1e200 {
		t.Errorf("%+v\n%s", st, diff)
	}
}

// A pane gives a series the counters at once that it had in the one before.
func TestShapesAreKept(t *testing.T) {
	shapes := make([]shape, 1)
	var used []int
	for range 2 {
		p, err := newPane(shapes)
		if err != nil {
			t.Fatal(err)
		}
		defer p.mem.Close()
		empty := p.mem.Bytes()
		for v := 1.0; v < 1000; v *= 1.1 {
			p.record(p.cell(0), v, 1)
		}
		used = append(used, p.mem.Bytes()-empty)
	}
	if used[1] >= used[0] || used[1] != int(shapes[0].n) {
		t.Errorf("%v bytes of counters for %v", used, shapes)
	}
}

func TestPanesCloseBehindTheWatermark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		strict, patient := &Source{Name: "strict"}, &Source{Name: "patient", Clamp: true}
		a := newAggregator(t, Options{Series: 10, Shards: 2}, strict, patient) // begins at 2000-01-01 00:00:00
		w := a.NewVec(strict, KindDelta, "x", "l").Writer()
		p := a.NewVec(patient, KindDelta, "x", "l").Writer()
		began := time.Now()
		at := func(d time.Duration) int64 { return began.Add(d).UnixMilli() }
		one := func(w *Writer, at int64) { w.Record(at, []string{"1"}, []float64{1}) }
		query := func(from, to time.Duration) (n uint64, rate float64) {
			a.Query(Matcher{Name: "x"}, began.Add(from), began.Add(to), func(w Window) bool { n, rate = w.Stat.Count, w.Rate; return true })
			return n, rate
		}
		one(w, at(time.Second))
		time.Sleep(12 * time.Second)
		a.Advance()
		one(w, at(2*time.Second)) // 10 s late, its pane is open until second 18
		time.Sleep(7 * time.Second)
		a.Advance()
		one(w, at(3*time.Second))  // late
		one(p, at(-time.Hour))     // late, and counted in the oldest open pane
		one(w, at(21*time.Second)) // a clock that is ahead a little
		one(w, at(time.Hour))      // and much
		if n, rate := query(0, 10*time.Second); n != 2 || rate != 0.2 {
			t.Errorf("first pane: %d, %v a second", n, rate)
		}
		if n, _ := query(10*time.Second, 20*time.Second); n != 1 {
			t.Errorf("second pane: %d", n)
		}
		if n, _ := query(0, 30*time.Second); n != 4 {
			t.Errorf("sliding window: %d", n)
		}
		want := []Account{
			{Source: "strict", Accepted: 5, Aggregated: 3, Dropped: map[string]uint64{"late": 1, "future": 1}},
			{Source: "patient", Accepted: 1, Aggregated: 1, Dropped: map[string]uint64{}},
		}
		if diff := cmp.Diff(want, a.Ledger()); diff != "" {
			t.Error(diff)
		}
		time.Sleep(time.Hour) // stopped: nothing advanced it, the next sample does
		one(w, time.Now().UnixMilli())
		if n, _ := query(time.Hour, 2*time.Hour); n != 1 {
			t.Errorf("after an hour: %d", n)
		}
		balanced(t, a)
	})
}

func TestCumulativeRateSurvivesAReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &Source{Name: "test"}
		a := newAggregator(t, Options{Series: 10, Shards: 1}, src)
		w := a.NewVec(src, KindCumulative, "x", "l").Writer()
		began := time.Now()
		for _, v := range []float64{100, 110, 130, 20} {
			w.Record(time.Now().UnixMilli(), []string{"1"}, []float64{v})
			time.Sleep(10 * time.Second)
			a.Advance()
		}
		for i, want := range []float64{0, 1, 2, 2} {
			a.Query(Matcher{}, began.Add(time.Duration(i)*10*time.Second), began.Add(time.Duration(i+1)*10*time.Second), func(w Window) bool {
				if w.Rate != want {
					t.Errorf("pane %d: %v a second, want %v", i, w.Rate, want)
				}
				return true
			})
		}
	})
}

func TestBudgetEndsInOverflowSeries(t *testing.T) {
	src := &Source{Name: "test"}
	a := newAggregator(t, Options{Series: 50, Shards: 2}, src)
	b := a.NewBatch(src, plain{}, 1)
	now := time.Now().UnixMilli()
	for i := range 1000 {
		b.Add([]byte("x"), fmt.Appendf(nil, "i=%d", i), 1, now)
	}
	for i := range 2 * overflowNames {
		b.Add(fmt.Appendf(nil, "n%d", i), nil, 1, now)
	}
	b.Flush()
	got := sums(a)
	if n := got[`x{otel.metric.overflow="true"}`].Count; n != 950 {
		t.Errorf("%d samples in the overflow series of the name", n)
	}
	if n := got[`waybill_metrics_overflow{otel.metric.overflow="true"}`].Count; n != overflowNames+1 {
		t.Errorf("%d samples in the overflow series of all", n)
	}
	if n := a.Series(); n != 50+overflowNames+1 {
		t.Errorf("%d series", n)
	}
	balanced(t, a)
}

// Under overload, with late and broken samples, reads and closing panes, the books balance, and what was read before is never more.
func TestBooksBalanceUnderOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sources := []*Source{{Name: "a"}, {Name: "b", Clamp: true}}
		a := newAggregator(t, Options{Series: 200, Shards: 2, HistoryBytes: 1 << 20}, sources...)
		var sent sync.WaitGroup
		const each = 20_000
		for g := range 6 {
			sent.Go(func() {
				r := rand.New(rand.NewSource(int64(g)))
				b := a.NewBatch(sources[g%2], plain{}, 1)
				for i := range each {
					v := r.ExpFloat64()
					if i%100 == 0 {
						v = math.NaN()
					}
					b.Add([]byte("x"), fmt.Appendf(nil, "i=%d", r.Intn(400)), v, time.Now().UnixMilli()-int64(r.Intn(30_000))+5_000)
					if i%500 == 0 {
						b.Flush()
						time.Sleep(time.Second)
					}
				}
				b.Flush()
			})
		}
		stop := make(chan struct{})
		var reading sync.WaitGroup
		reading.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(700 * time.Millisecond):
					a.Advance()
					for _, b := range a.Ledger() {
						n := b.Aggregated
						for _, d := range b.Dropped {
							n += d
						}
						if n != b.Accepted {
							t.Errorf("%+v", b)
						}
					}
					a.Query(Matcher{}, time.Now().Add(-time.Minute), time.Now(), func(Window) bool { return true })
				}
			}
		})
		sent.Wait()
		close(stop)
		reading.Wait()
		if accepted, aggregated := balanced(t, a); accepted != 6*each || aggregated == 0 || aggregated == accepted {
			t.Errorf("accepted %d, aggregated %d", accepted, aggregated)
		}
		if h := a.Health(); h.GivenUp == 0 && h.Frames < 3 {
			t.Errorf("%+v", h)
		}
	})
}

func TestHistoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &Source{Name: "test"}
		a := newAggregator(t, Options{Series: 100, Shards: 1, HistoryBytes: 20_000}, src)
		b := a.NewBatch(src, plain{}, 1)
		for range 30 {
			for i := range 100 {
				b.Add([]byte("x"), fmt.Appendf(nil, "i=%d", i), 1, time.Now().UnixMilli())
			}
			b.Flush()
			time.Sleep(10 * time.Second)
			a.Advance()
		}
		if h := a.Health(); h.GivenUp == 0 || a.memory > 20_000 {
			t.Errorf("%+v, %d bytes of frames", h, a.memory)
		}
		balanced(t, a)
	})
}

func TestAProcessGoesOnWhereAnotherWasKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		replayed, pushed := &Source{Name: "replayed", Replayed: true}, &Source{Name: "pushed"}
		memory := new(Survivor)
		first := newAggregator(t, Options{Series: 100, Shards: 2, Survivor: memory}, replayed, pushed)
		push := func(a *Aggregator, src *Source, n int) {
			b := a.NewBatch(src, plain{}, 1)
			for i := range n {
				b.Add([]byte("x"), fmt.Appendf(nil, "i=%d", i%10), 1, time.Now().UnixMilli())
			}
			b.Flush()
		}
		began := time.Now()
		var cursor Cursor
		var series []Numbered
		closed := [][]byte{}
		var last *Snapshot
		snapshot := func(a *Aggregator) {
			last, cursor = a.Snapshot(cursor)
			series = append(series, last.Series...)
			for i := last.Oldest; len(last.Closed) > 0; i++ {
				if b := last.Closed[i]; b != nil {
					closed = append(closed, b)
					delete(last.Closed, i)
				}
			}
		}
		for range 3 {
			push(first, pushed, 100)
			push(first, replayed, 50)
			time.Sleep(10 * time.Second)
			first.Advance()
			snapshot(first)
		}
		push(first, pushed, 70)
		snapshot(first)
		push(first, pushed, 33) // lost
		push(first, replayed, 20)

		survived := *memory
		var open [][]byte
		for _, b := range last.Open {
			open = append(open, b)
		}
		second := newAggregator(t, Options{Series: 100, Shards: 2}, replayed, pushed)
		if _, err := second.Restore(series, closed, open, last.Totals, last.Books, last.Forgotten, &survived); err != nil {
			t.Fatal(err)
		}
		push(second, replayed, 20) // come again
		push(second, pushed, 5)
		want := []Account{
			{Source: "replayed", Accepted: 170, Aggregated: 170, Dropped: map[string]uint64{}},
			{Source: "pushed", Accepted: 408, Aggregated: 375, Dropped: map[string]uint64{"crash": 33}},
		}
		if diff := cmp.Diff(want, second.Ledger()); diff != "" {
			t.Error(diff)
		}
		balanced(t, second)
		n := uint64(0)
		second.Query(Matcher{Name: "x"}, began, began.Add(time.Minute), func(w Window) bool { n += w.Stat.Count; return true })
		if n != 545 {
			t.Errorf("windows have %d", n)
		}
		time.Sleep(time.Minute)
		second.Advance()
		balanced(t, second)
	})
}

func FuzzUnmarshalFrame(f *testing.F) {
	var st Stat
	st.merge(2, 3, 1, 2, 2, 5)
	st.sketch.Add(70000, 2)
	x := &frame{pane: 3}
	x.put(1, &st)
	f.Add(x.marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, err := unmarshalFrame(b, 10); err == nil {
			if diff := cmp.Diff(len(x.series), len(x.ends)); diff != "" {
				t.Error(diff)
			}
		}
	})
}
