package aggregate

import (
	"math"
	"time"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/sketch"
)

// Matcher says which series are wanted: those of a name, if it is not empty, whose labels pass.
type Matcher struct {
	Name   string
	Labels []LabelMatcher
	number uint32 // one more than the only number wanted, where it is known
}

// LabelMatcher passes a series whose label has the value, or with Not has another. An absent label has the value "".
type LabelMatcher struct {
	Label
	Not bool
}

// Matches says whether a series is wanted.
func (m Matcher) Matches(id Identity) bool {
	if m.Name != "" && m.Name != id.Name {
		return false
	}
	for _, want := range m.Labels {
		value := ""
		for _, l := range id.Labels {
			if l.Name == want.Name {
				value = l.Value
			}
		}
		if (value == want.Value) == want.Not {
			return false
		}
	}
	return true
}

// Window is a stretch of time of one series.
type Window struct {
	Identity
	From, To time.Time
	Stat     *Stat
	Rate     float64 // a second: see Kind
}

// Panes is the length of a pane, and the times between which there is something to ask.
func (a *Aggregator) Panes() (length time.Duration, from, to time.Time) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	first := a.open.Load()
	if len(a.frames) > 0 {
		first = a.frames[0].pane
	}
	return a.options.Pane, time.UnixMilli(first * a.pane), time.UnixMilli((a.ahead.Load() + 1) * a.pane)
}

// chunk is how many series are read from a shard at once: some 50 µs, which a writer may have to wait.
const chunk = 64

// Query calls yield with the wanted series that have samples between two times, which are widened to whole panes, until it
// returns false. What was closed while it ran may be missing in the first series and not in the last, never counted twice. The
// Stat is the callee's only during the call.
func (a *Aggregator) Query(m Matcher, from, to time.Time, yield func(Window) bool) {
	first, last := floor(from.UnixMilli(), a.pane), floor(to.UnixMilli()-1, a.pane)
	ids, entries := a.registry.wanted(m)
	stats := make([]Stat, chunk+1)
	var scratch sketch.Sketch
	for len(ids) > 0 {
		n := min(len(ids), chunk)
		for i := range stats {
			stats[i].Reset()
		}
		before := a.gather(ids[:n], entries[:n], first, last, stats, &scratch)
		for i, e := range entries[:n] {
			st := &stats[i]
			if st.Count == 0 {
				continue
			}
			w := Window{Identity: e.Identity, From: time.UnixMilli(first * a.pane), To: time.UnixMilli((last + 1) * a.pane), Stat: st}
			seconds := w.To.Sub(w.From).Seconds()
			switch w.Kind {
			case KindDelta:
				w.Rate = st.Sum / seconds
			case KindCumulative:
				w.Rate = increase(before[i], st) / seconds
			default:
				w.Rate = float64(st.Count) / seconds
			}
			if !yield(w) {
				return
			}
		}
		ids, entries = ids[n:], entries[n:]
	}
}

// increase is what a counter grew by: from the last reading before the window, or the first that is known, to its last.
// A reading below that means that the counter began again.
func increase(before float64, st *Stat) float64 {
	if math.IsNaN(before) {
		before = st.Min
	}
	if st.Last < before {
		return st.Last
	}
	return st.Last - before
}

// gather adds up panes first to last of some series. It returns the last value before them, NaN where there is none. Of a
// series that was forgotten meanwhile there is nothing.
func (a *Aggregator) gather(ids []uint32, entries []*entry, first, last int64, stats []Stat, scratch *sketch.Sketch) []float64 {
	before := make([]float64, len(ids))
	a.mu.RLock()
	defer a.mu.RUnlock()
	for i := range before {
		before[i] = math.NaN()
	}
	defer func() { // a.mu is still held: nothing was forgotten since
		for i, n := range ids {
			if !a.still(n, entries[i]) {
				stats[i].Reset()
			}
		}
	}()
	for _, f := range a.frames {
		switch {
		case f.pane > last:
		case f.pane >= first:
			for i, series := range ids {
				if f.pane >= entries[i].born {
					f.addTo(&stats[i], series, scratch)
				}
			}
		case f.pane >= first-openPanes: // a reading older than that says little about the window
			for i, series := range ids {
				if f.pane < entries[i].born {
					continue
				}
				st := &stats[len(stats)-1]
				st.Reset()
				if f.addTo(st, series, scratch); st.Count > 0 {
					before[i] = st.Last
				}
			}
		}
	}
	if c := a.closingPane.Load(); c != nil && c.index >= first && c.index <= last {
		for i, series := range ids {
			c.addTo(&stats[i], series, scratch)
		}
	}
	a.gatherOpen(ids, first, last, stats, scratch)
	return before
}

// still says whether a number stands for what it stood for. a.mu is held. A series that is pinned meanwhile stays itself.
func (a *Aggregator) still(n uint32, e *entry) bool {
	now := a.registry.list[n].Load()
	return now == e || now != nil && now.pinned && now.born == e.born
}

// gatherOpen adds up open panes. a.mu is held, so none is closed meanwhile.
func (a *Aggregator) gatherOpen(ids []uint32, first, last int64, stats []Stat, scratch *sketch.Sketch) {
	for i, f := range a.held {
		if i >= first && i <= last {
			for j, series := range ids {
				f.addTo(&stats[j], series, scratch)
			}
		}
	}
	for _, s := range a.shards {
		s.mu.Lock()
		for _, p := range s.panes {
			if p != nil && p.index >= first && p.index <= last {
				for j, series := range ids {
					p.addTo(&stats[j], series)
				}
			}
		}
		s.mu.Unlock()
	}
}

// Sum is what a series counted since the first start, open panes included.
type Sum struct {
	Identity
	Count uint64
	Sum   float64
	Last  float64
	At    time.Time // of Last
}

// Sums calls yield with every wanted series, also those without samples, until it returns false.
func (a *Aggregator) Sums(m Matcher, yield func(Sum) bool) {
	ids, entries := a.registry.wanted(m)
	if len(ids) > 0 && ids[0] == overflowSeries && a.registry.overflowed() == 0 {
		ids, entries = ids[1:], entries[1:]
	}
	stats := make([]Stat, chunk)
	var scratch sketch.Sketch
	for len(ids) > 0 {
		n := min(len(ids), chunk)
		for i := range stats {
			stats[i].Reset()
		}
		sums := make([]total, n)
		a.mu.RLock()
		for i, series := range ids[:n] {
			if int(series) < len(a.totals) {
				sums[i] = a.totals[series]
			}
		}
		if c := a.closingPane.Load(); c != nil {
			for i, series := range ids[:n] {
				c.addTo(&stats[i], series, &scratch)
			}
		}
		a.gatherOpen(ids[:n], math.MinInt64, math.MaxInt64, stats, &scratch)
		there := [chunk]bool{}
		for i, series := range ids[:n] {
			there[i] = a.still(series, entries[i])
		}
		a.mu.RUnlock()
		for i, e := range entries[:n] {
			if !there[i] {
				continue
			}
			sums[i].add(total{stats[i].Count, stats[i].Sum, stats[i].Last, stats[i].at})
			if !yield(Sum{e.Identity, sums[i].count, sums[i].sum, sums[i].last, time.UnixMilli(sums[i].at)}) {
				return
			}
		}
		ids, entries = ids[n:], entries[n:]
	}
}

// Last is the last value of a series; ok is false where there is none.
func (a *Aggregator) Last(id Identity) (v float64, ok bool) {
	id.Sort()
	a.registry.mu.RLock()
	n, known := a.registry.byKey[id.key()]
	a.registry.mu.RUnlock()
	if !known {
		return 0, false
	}
	var found bool
	a.Sums(Matcher{number: n + 1}, func(s Sum) bool { v, found = s.Last, s.Count > 0; return true })
	return v, found
}

// Health is what the aggregator says about itself.
type Health struct {
	Series      int    `json:"series"`
	Budget      int    `json:"budget"`
	Overflowed  uint64 `json:"overflowed"`   // samples' first sights that ended in an overflow series
	MemoryBytes int    `json:"memory_bytes"` // series, open and closed panes
	Frames      int    `json:"frames"`
	GivenUp     uint64 `json:"given_up"`  // closed panes that were given up for memory
	Collapsed   uint64 `json:"collapsed"` // values whose quantiles may be off by more than the bound
	// Forgotten is what idle series had counted: aggregated, and in no series any more.
	Forgotten Forgotten `json:"forgotten"`
	Watermark string    `json:"watermark"`
}

// Health reads the state of the bounds.
func (a *Aggregator) Health() Health {
	h := Health{Series: a.Series(), Budget: a.options.Series, Overflowed: a.registry.overflowed()}
	a.mu.RLock()
	h.MemoryBytes, h.Frames, h.GivenUp = a.memory+cap(a.totals)*32, len(a.frames), a.given.Load()
	h.Forgotten = a.forgotten
	a.mu.RUnlock()
	h.Collapsed = a.folded.Load()
	for _, s := range a.shards {
		s.mu.Lock()
		// Of tables that are sized for the whole budget, only what is used has memory.
		h.MemoryBytes += s.used*(int(sizeOfKey)+3*8+12) + s.longs // a key, two slots and a link; a shape, and a first key
		for _, p := range append(s.spare[:len(s.spare):len(s.spare)], s.panes[:]...) {
			if p != nil {
				h.MemoryBytes += p.mem.Bytes() - (p.capacity-int(p.top))*cellSize
				h.Collapsed += p.collapsed
			}
		}
		s.mu.Unlock()
	}
	h.Watermark = time.UnixMilli(a.open.Load() * a.pane).UTC().Format(time.RFC3339)
	return h
}
