package aggregate

import (
	"fmt"
	"math"
	"math/rand"
	"slices"
	"sync"
	"testing"
	"time"
)

// load is label values in fresh memory, in the order of arrival.
func load(series, n int) (rows []string, values []float64) {
	r := rand.New(rand.NewSource(1))
	z := rand.NewZipf(r, 1.1, 1, uint64(series-1))
	for range n {
		i := int(z.Uint64())
		rows = append(rows, []string{"GET", "PUT", "POST", "DELETE"}[i%4], []string{"eu-west-1", "us-east-1"}[i/4%2],
			fmt.Sprintf("/api/v1/resource/%03d", i/1000), fmt.Sprintf("checkout-svc-%03d", i/8%125))
		values = append(values, math.Exp(math.Log(0.05)+r.NormFloat64()))
	}
	return rows, values
}

func BenchmarkRecord(b *testing.B) {
	for _, series := range []int{1000, 100_000} {
		for _, g := range []int{1, 2} {
			b.Run(fmt.Sprintf("series=%d/g=%d", series, g), func(b *testing.B) {
				src := &Source{Name: "test"}
				a := newAggregator(b, Options{}, src)
				v := a.NewVec(src, KindSample, "x", "method", "region", "route", "service")
				rows, values := load(series, 1<<20)
				v.Writer().Record(time.Now().UnixMilli(), rows, values)
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				for i := range g {
					wg.Go(func() {
						w := v.Writer()
						const batch = 1024
						at := i * len(values) / g / batch * batch
						for n := 0; n < b.N/g; n += batch {
							if at+batch > len(values) {
								at = 0
							}
							w.Record(time.Now().UnixMilli(), rows[4*at:4*(at+batch)], values[at:at+batch])
							at += batch
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Msamples/s")
			})
		}
	}
}

// What a flush of 100,000 series does to those who write meanwhile: the p99 of a batch of 1,000 samples, without and with it.
func BenchmarkFlush(b *testing.B) {
	src := &Source{Name: "test"}
	a := newAggregator(b, Options{Pane: time.Second, Lateness: 500 * time.Millisecond}, src)
	v := a.NewVec(src, KindSample, "x", "method", "region", "route", "service")
	rows, values := load(100_000, 1<<20)
	run := func(flush bool) (p99 time.Duration) {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
					if flush {
						a.Advance()
					}
				}
			}
		})
		w := v.Writer()
		var took []time.Duration
		at := 0
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
			if at += 1000; at+1000 > len(values) {
				at = 0
			}
			now := time.Now()
			var t int64 = (a.open.Load() + 1) * a.pane
			w.Record(t, rows[4*at:4*(at+1000)], values[at:at+1000])
			took = append(took, time.Since(now))
		}
		close(stop)
		wg.Wait()
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	for range b.N {
		a.Advance()
		run(true)
		quiet, busy := run(false), run(true)
		b.ReportMetric(float64(quiet.Microseconds()), "p99-quiet-µs")
		b.ReportMetric(float64(busy.Microseconds()), "p99-flushing-µs")
		b.ReportMetric(float64(busy)/float64(quiet), "ratio")
	}
}

func TestNothingIsAllocatedForASample(t *testing.T) {
	src := &Source{Name: "test"}
	a := newAggregator(t, Options{Series: 100, Shards: 1}, src)
	w := a.NewVec(src, KindSample, "x", "l").Writer()
	b := a.NewBatch(src, plain{}, 1)
	rows, values := []string{"1", "2"}, []float64{1, 2}
	x, y := []byte("n"), []byte("a=1")
	now := time.Now().UnixMilli()
	f := func() {
		w.Record(now, rows, values)
		for range hold {
			b.Add(x, y, 1, now)
		}
		b.Flush()
	}
	f()
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
