package aggregate

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Kind says what the samples of a series are, which decides what its rate is.
type Kind uint8

// The kinds of series.
const (
	KindSample     Kind = iota // measurements, such as durations: the rate is samples a second
	KindGauge                  // a level at a time: the rate is samples a second
	KindDelta                  // increments of a counter: the rate is their sum a second
	KindCumulative             // readings of a counter: the rate is what it grew by a second
	KindSet                    // members of a set, by Member: what counts is how many different ones there are
)

var kindNames = [...]string{"sample", "gauge", "delta", "cumulative", "set"}

func (k Kind) String() string { return kindNames[k] }

// Label is a name and its value.
type Label struct{ Name, Value string }

// Identity is what makes a series: its name, its labels in the order of their names, and its kind.
type Identity struct {
	Name   string
	Labels []Label
	Kind   Kind
}

// Sort brings labels into the order of their names; of equal names the last wins, empty values count as absent.
func (id *Identity) Sort() {
	slices.SortStableFunc(id.Labels, func(a, b Label) int { return cmp.Compare(a.Name, b.Name) })
	kept := id.Labels[:0]
	for i, l := range id.Labels {
		if i+1 < len(id.Labels) && id.Labels[i+1].Name == l.Name || l.Value == "" {
			continue
		}
		kept = append(kept, l)
	}
	id.Labels = kept
}

// String is the series as Prometheus writes it.
func (id Identity) String() string {
	var b strings.Builder
	b.WriteString(id.Name)
	for i, l := range id.Labels {
		if i == 0 {
			b.WriteByte('{')
		} else {
			b.WriteByte(',')
		}
		b.WriteString(l.Name)
		b.WriteByte('=')
		b.WriteString(strconv.Quote(l.Value))
	}
	if len(id.Labels) > 0 {
		b.WriteByte('}')
	}
	return b.String()
}

// key is the identity as bytes that no other identity has.
func (id Identity) key() string {
	var b []byte
	part := func(s string) {
		b = strconv.AppendInt(b, int64(len(s)), 10)
		b = append(append(b, ':'), s...)
	}
	b = append(b, byte('0'+id.Kind))
	part(id.Name)
	for _, l := range id.Labels {
		part(l.Name)
		part(l.Value)
	}
	return string(b)
}

const (
	// overflowSeries is the series of last resort.
	overflowSeries = 0
	// overflowNames is how many metric names have an overflow series of their own.
	overflowNames = 256
	// OverflowLabel marks the series that hold what came after the budget was spent, as OpenTelemetry names it.
	OverflowLabel = "otel.metric.overflow"
)

// entry is what a number stands for.
type entry struct {
	Identity
	// born is the pane before which the number stood for another series.
	born int64
	// made is when it was first seen, in milliseconds.
	made int64
	// pinned ones are not forgotten.
	pinned bool
}

// registry numbers series. The number of a series that is forgotten is given to another.
type registry struct {
	limit int
	list  []atomic.Pointer[entry] // by number, nil where there is none
	top   atomic.Uint32           // one more than the highest number that was given

	mu       sync.RWMutex
	byKey    map[string]uint32
	free     []vacancy
	overflow map[string]uint32 // by metric name
	refused  uint64            // lookups that ended in an overflow series
	fresh    int64             // born of numbers that were never given
	// changes counts numbers that were given or taken away, changed says by number at which count that was.
	changes uint64
	changed []uint64
}

// vacancy is a number that can be given again, for panes from one on.
type vacancy struct {
	number uint32
	from   int64
}

func newRegistry(limit int) *registry {
	g := &registry{limit: limit, byKey: map[string]uint32{}, overflow: map[string]uint32{}}
	g.list, g.changed = make([]atomic.Pointer[entry], g.capacity()), make([]uint64, g.capacity())
	g.add(&entry{Identity: Identity{Name: "waybill_metrics_overflow", Labels: []Label{{OverflowLabel, "true"}}}, pinned: true})
	return g
}

// capacity is one more than the highest number there can be.
func (g *registry) capacity() int { return g.limit + overflowNames + 1 }

// put has a number stand for an entry.
func (g *registry) put(n uint32, e *entry) {
	g.list[n].Store(e)
	g.byKey[e.key()] = n
	if n >= g.top.Load() {
		g.top.Store(n + 1)
	}
}

func (g *registry) add(e *entry) uint32 {
	n := g.top.Load()
	e.born = g.fresh
	if last := len(g.free) - 1; last >= 0 {
		n, e.born = g.free[last].number, g.free[last].from
		g.free = g.free[:last]
	}
	g.put(n, e)
	g.change(n)
	return n
}

func (g *registry) change(n uint32) {
	g.changes++
	g.changed[n] = g.changes
}

// series is the number of series that have a name and labels of their own.
func (g *registry) series() int { return int(g.top.Load()) - len(g.free) - len(g.overflow) - 1 }

// resolve returns the number of a series. The identity must be sorted; it is kept when it is new. What comes after the
// budget is spent is told so and belongs to the overflow series of its name.
func (g *registry) resolve(id Identity) (n uint32, overflow bool) {
	key := id.key()
	g.mu.RLock()
	n, ok := g.byKey[key]
	g.mu.RUnlock()
	if ok {
		return n, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if n, ok := g.byKey[key]; ok {
		return n, false
	}
	if g.series() < g.limit {
		labels := make([]Label, len(id.Labels)) // the caller's bytes may be a message that is about to be overwritten
		for i, l := range id.Labels {
			labels[i] = Label{strings.Clone(l.Name), strings.Clone(l.Value)}
		}
		return g.add(&entry{Identity: Identity{strings.Clone(id.Name), labels, id.Kind}, made: time.Now().UnixMilli()}), false
	}
	g.refused++
	if n, ok := g.overflow[id.Name]; ok {
		return n, true
	}
	if len(g.overflow) == overflowNames {
		return overflowSeries, true
	}
	name := strings.Clone(id.Name)
	n = g.add(&entry{Identity: Identity{Name: name, Labels: []Label{{OverflowLabel, "true"}}, Kind: id.Kind}, pinned: true})
	g.overflow[name] = n
	return n, true
}

// pin has a series never be forgotten.
func (g *registry) pin(n uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := *g.list[n].Load()
	e.pinned = true
	g.list[n].Store(&e)
}

// remove takes a number away from its series. mu is held.
func (g *registry) remove(n uint32, from int64) {
	delete(g.byKey, g.list[n].Load().key())
	g.list[n].Store(nil)
	g.free = append(g.free, vacancy{n, from})
	g.change(n)
}

// wanted lists the numbers of the series that a matcher wants, and what they stand for.
func (g *registry) wanted(m Matcher) (ids []uint32, entries []*entry) {
	if m.number > 0 {
		if e := g.list[m.number-1].Load(); e != nil {
			return []uint32{m.number - 1}, []*entry{e}
		}
		return nil, nil
	}
	for n := range g.top.Load() {
		if e := g.list[n].Load(); e != nil && m.Matches(e.Identity) {
			ids, entries = append(ids, n), append(entries, e)
		}
	}
	return ids, entries
}

func (g *registry) overflowed() uint64 {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.refused
}
