package aggregate

import (
	"fmt"
	"math/rand"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// Series that come and go for a day: what is idle is forgotten, the budget is never spent, numbers and keys are used again, no
// window shows what another series of the same number did, and every sample is accounted for, also by the process after a kill.
func TestIdleSeriesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &Source{Name: "test"}
		o := Options{Series: 200, Shards: 2, Idle: 10 * time.Minute}
		a := newAggregator(t, o, src)
		a.Know(Identity{Name: "known"})
		var cursor Cursor
		series := map[uint32]Numbered{}
		closed := [][]byte{}
		var last *Snapshot
		snapshot := func() {
			last, cursor = a.Snapshot(cursor)
			for _, n := range last.Gone {
				delete(series, n)
			}
			for _, n := range last.Series {
				series[n.Number] = n
			}
			for i := last.Oldest; len(last.Closed) > 0; i++ {
				if b := last.Closed[i]; b != nil {
					closed = append(closed, b)
					delete(last.Closed, i)
				}
			}
		}
		sent := uint64(0)
		hour := func(a *Aggregator, h int) {
			b, other := a.NewBatch(src, plain{}, 1), a.NewBatch(src, plain{}, 1) // of both shards
			for range 6 {
				for i := range 80 {
					at := time.Now().UnixMilli()
					b.Add([]byte("x"), fmt.Appendf(nil, "hour=%d,i=%d", h, i), float64(h), at)
					other.Add([]byte("x"), fmt.Appendf(nil, "i=%d,hour=%d,long=%s", i, h, "0123456789012345678901234567890123456789012345678901234567890123456789"[:70*(i%2)]), float64(h), at)
					b.Add([]byte("always"), nil, 1, at)
					sent += 3
				}
				b.Flush()
				other.Flush()
				time.Sleep(10 * time.Second)
				a.Advance()
			}
			snapshot()
			time.Sleep(time.Hour)
			a.Advance() // closes what is open
			time.Sleep(time.Minute)
			a.Advance()
		}
		first := time.Now()
		for h := range 24 {
			hour(a, h)
		}
		if h := a.Health(); h.Overflowed != 0 || h.Series > 3 || h.Forgotten.Series < 23*120 {
			t.Errorf("%+v", h)
		}
		for _, s := range a.shards {
			if s.used > 600 { // an hour has at most 161 spellings
				t.Errorf("%d keys of %d were ever used", s.used, len(s.keys))
			}
		}
		_, aggregated := balanced(t, a)
		if aggregated != sent {
			t.Errorf("%d aggregated, %d sent", aggregated, sent)
		}
		hour(a, 24)
		from := first.Add(24 * (time.Hour + 2*time.Minute))
		a.Query(Matcher{Name: "x"}, first, time.Now(), func(w Window) bool {
			if w.Stat.Min != 24 || w.Stat.Max != 24 {
				t.Errorf("%v since %v has values of other hours: %v to %v", w.Identity, from, w.Stat.Min, w.Stat.Max)
				return false
			}
			return true
		})
		snapshot()

		var list []Numbered
		for n := range uint32(a.registry.capacity()) {
			if s, ok := series[n]; ok {
				list = append(list, s)
			}
		}
		var open [][]byte
		for _, b := range last.Open {
			open = append(open, b)
		}
		survived := *a.survivor
		a = newAggregator(t, o, src)
		if _, err := a.Restore(list, closed, open, last.Totals, last.Books, last.Forgotten, &survived); err != nil {
			t.Fatal(err)
		}
		if _, n := balanced(t, a); n != sent {
			t.Errorf("%d aggregated after a kill, %d sent", n, sent)
		}
		cursor = Cursor{}
		hour(a, 25)
		a.Query(Matcher{Name: "x", Labels: []LabelMatcher{{Label: Label{"hour", "25"}}}}, first, time.Now(), func(w Window) bool {
			if w.Stat.Min != 25 || w.Stat.Max != 25 {
				t.Errorf("after a kill, %v has values of other hours: %v to %v", w.Identity, w.Stat.Min, w.Stat.Max)
			}
			return true
		})
		balanced(t, a)
	})
}

// Keys that are kept and dropped in any order are found exactly while they are kept.
func TestDroppedKeysLeaveTheOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var took [maxSources]uint64
		s, err := newShard(40, 60, &took)
		if err != nil {
			t.Fatal(err)
		}
		defer s.mem.Close()
		s.mask = 127 // a part of the table, so that clusters are long
		type spelling struct {
			hash uint64
			text []byte
		}
		r := rand.New(rand.NewSource(rapid.Int64().Draw(t, "seed")))
		var all []spelling
		for i := range 60 {
			all = append(all, spelling{uint64(r.Intn(40)) | uint64(r.Intn(3))<<60, fmt.Appendf(nil, "%*d", 1+r.Intn(100), i)})
		}
		find := func(x spelling) (uint32, uint32, bool) {
			return s.find(x.hash, head(len(x.text), 1, 0), unsafe.Pointer(unsafe.SliceData(x.text)), nil, len(x.text), 0)
		}
		want, got := map[int]uint32{}, map[int]uint32{}
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			i, series := r.Intn(len(all)), uint32(1+r.Intn(39))
			if _, kept := want[i]; !kept {
				_, at, _ := find(all[i])
				s.keep(at, all[i].hash, head(len(all[i].text), 1, 0), series, all[i].text)
				want[i] = series
				continue
			}
			s.drop(series)
			for j, x := range want {
				if x == series {
					delete(want, j)
				}
			}
		}
		for i, x := range all {
			if series, _, ok := find(x); ok {
				got[i] = series
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}
