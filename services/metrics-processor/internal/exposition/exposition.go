// Package exposition writes aggregates for Prometheus: as text for who asks, and as remote write to who is told.
package exposition

import (
	"bufio"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
)

// Over is the window of the quantiles.
const Over = time.Minute

// Quantiles are those that are written.
var Quantiles = []float64{0.5, 0.9, 0.95, 0.99}

// name makes a metric or label name of any text.
func name(s string, colon bool) string {
	ok := func(i int, c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || colon && c == ':' || i > 0 && c >= '0' && c <= '9'
	}
	for i := range len(s) {
		if !ok(i, s[i]) {
			b := []byte(s)
			for i, c := range b {
				if !ok(i, c) {
					b[i] = '_'
				}
			}
			return string(b)
		}
	}
	return s
}

// family is the series of one name and kind.
type family struct {
	name  string
	kind  aggregate.Kind
	lines []line
}

type line struct {
	labels []aggregate.Label
	sum    aggregate.Sum
	stat   []float64 // quantiles, where there were samples
}

func families(a *aggregate.Aggregator, m aggregate.Matcher) []*family {
	byName := map[string]*family{}
	var all []*family
	index := map[string]*line{}
	a.Sums(m, func(s aggregate.Sum) bool {
		n := name(s.Name, true)
		f := byName[n]
		if f == nil {
			f = &family{name: n, kind: s.Kind}
			byName[n] = f
			all = append(all, f)
		}
		if f.kind != s.Kind { // one name has one type; the first wins
			return true
		}
		f.lines = append(f.lines, line{labels: s.Labels, sum: s})
		return true
	})
	for _, f := range all {
		if f.kind != aggregate.KindSample && f.kind != aggregate.KindSet {
			continue
		}
		for i := range f.lines {
			index[f.lines[i].sum.Identity.String()] = &f.lines[i]
		}
	}
	if len(index) > 0 {
		now := time.Now()
		a.Query(m, now.Add(-Over), now, func(w aggregate.Window) bool {
			if l := index[w.Identity.String()]; l != nil && w.Kind == aggregate.KindSet {
				l.stat = append(l.stat, w.Stat.Distinct())
			} else if l != nil && w.Kind == aggregate.KindSample {
				for _, q := range Quantiles {
					l.stat = append(l.stat, w.Stat.Quantile(q))
				}
			}
			return true
		})
	}
	slices.SortFunc(all, func(x, y *family) int { return strings.Compare(x.name, y.name) })
	return all
}

var types = map[aggregate.Kind]string{
	aggregate.KindSample: "summary", aggregate.KindGauge: "gauge", aggregate.KindDelta: "counter", aggregate.KindCumulative: "counter",
	aggregate.KindSet: "gauge",
}

// Write writes the text format: increments summed up since the first start, levels and readings as they last were,
// measurements as a summary whose quantiles are those of the last minute, sets as how many different members it had.
func Write(to io.Writer, a *aggregate.Aggregator) error {
	w := bufio.NewWriterSize(to, 64<<10)
	for _, f := range families(a, aggregate.Matcher{}) {
		w.WriteString("# TYPE " + f.name + " " + types[f.kind] + "\n")
		for _, l := range f.lines {
			each(f.kind, l, func(suffix string, extra *aggregate.Label, v float64) {
				w.WriteString(f.name + suffix)
				writeLabels(w, l.labels, extra)
				w.WriteByte(' ')
				w.WriteString(strconv.FormatFloat(v, 'g', -1, 64))
				w.WriteByte('\n')
			})
		}
	}
	return w.Flush()
}

// each calls f with the values of a series.
func each(kind aggregate.Kind, l line, f func(suffix string, extra *aggregate.Label, v float64)) {
	switch kind {
	case aggregate.KindDelta:
		f("", nil, l.sum.Sum)
	case aggregate.KindSample:
		for i, v := range l.stat {
			f("", &aggregate.Label{Name: "quantile", Value: strconv.FormatFloat(Quantiles[i], 'g', -1, 64)}, v)
		}
		f("_sum", nil, l.sum.Sum)
		f("_count", nil, float64(l.sum.Count))
	case aggregate.KindSet:
		for _, v := range l.stat {
			f("", nil, v)
		}
	default:
		if l.sum.Count > 0 && !math.IsNaN(l.sum.Last) {
			f("", nil, l.sum.Last)
		}
	}
}

var escape = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

func writeLabels(w *bufio.Writer, labels []aggregate.Label, extra *aggregate.Label) {
	if len(labels) == 0 && extra == nil {
		return
	}
	sep := byte('{')
	put := func(l aggregate.Label) {
		w.WriteByte(sep)
		sep = ','
		w.WriteString(name(l.Name, false))
		w.WriteString(`="`)
		_, _ = escape.WriteString(w, strings.ToValidUTF8(l.Value, "�"))
		w.WriteByte('"')
	}
	for _, l := range labels {
		put(l)
	}
	if extra != nil {
		put(*extra)
	}
	w.WriteByte('}')
}
