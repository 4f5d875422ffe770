package aggregate

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Kind says what the samples of a series are, which decides what its rate is.
type Kind uint8

// The kinds of series.
const (
	KindSample     Kind = iota // measurements, such as durations: the rate is samples a second
	KindGauge                  // a level at a time: the rate is samples a second
	KindDelta                  // increments of a counter: the rate is their sum a second
	KindCumulative             // readings of a counter: the rate is what it grew by a second
)

var kindNames = [...]string{"sample", "gauge", "delta", "cumulative"}

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

// registry numbers series. A number, once given, stays.
type registry struct {
	limit int

	mu       sync.RWMutex
	byKey    map[string]uint32
	list     []Identity
	overflow map[string]uint32 // by metric name
	refused  uint64            // lookups that ended in an overflow series
}

func newRegistry(limit int) *registry {
	g := &registry{limit: limit, byKey: map[string]uint32{}, overflow: map[string]uint32{}}
	g.add(Identity{Name: "waybill_metrics_overflow", Labels: []Label{{OverflowLabel, "true"}}})
	return g
}

// capacity is one more than the highest number there can be.
func (g *registry) capacity() int { return g.limit + overflowNames + 1 }

func (g *registry) add(id Identity) uint32 {
	n := uint32(len(g.list))
	g.list = append(g.list, id)
	g.byKey[id.key()] = n
	return n
}

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
	if len(g.list)-len(g.overflow)-1 < g.limit {
		for i, l := range id.Labels { // the caller's bytes may be a message that is about to be overwritten
			id.Labels[i] = Label{strings.Clone(l.Name), strings.Clone(l.Value)}
		}
		id.Name, id.Labels = strings.Clone(id.Name), slices.Clone(id.Labels)
		return g.add(id), false
	}
	g.refused++
	if n, ok := g.overflow[id.Name]; ok {
		return n, true
	}
	if len(g.overflow) == overflowNames {
		return overflowSeries, true
	}
	name := strings.Clone(id.Name)
	n = g.add(Identity{Name: name, Labels: []Label{{OverflowLabel, "true"}}, Kind: id.Kind})
	g.overflow[name] = n
	return n, true
}

// all lists the series by number. The list only grows; what is returned is not changed.
func (g *registry) all() []Identity {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.list[:len(g.list):len(g.list)]
}

func (g *registry) overflowed() uint64 {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.refused
}
