package wire

import (
	"bytes"
	"slices"
	"strings"
	"sync"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
)

// StatsD reads lines name:value|type|@rate|#tag:value,tag:value|T<seconds>, with several values where they are joined by colons,
// as DogStatsD has them. Types are c, ms, h, d, g (with a sign: relative to the last level) and s. Service checks are levels.
// Events are not aggregated; they are booked as unsupported.
type StatsD struct {
	*aggregate.Batch
	// levels are in the order of arrival, for all decoders: what is relative must be so to the last.
	levels *aggregate.Batch
	a      *aggregate.Aggregator
	source *aggregate.Source
}

// NewStatsD makes a decoder.
func NewStatsD(a *aggregate.Aggregator, source *aggregate.Source) *StatsD {
	return &StatsD{a.NewBatch(source, statsdFormat{}, numberStatsD), a.NewOrderedBatch(source, statsdFormat{}, numberStatsD), a, source}
}

// relative has one decoder at a time read a level and write what it becomes.
var relative sync.Mutex

// Dropped sums up both batches.
func (d *StatsD) Dropped() (all [len(aggregate.Reasons)]uint64) {
	all = d.Batch.Dropped()
	for r, n := range d.levels.Dropped() {
		all[r] += n
	}
	return all
}

// mostRepeats bounds what a sample rate makes of one measurement.
const mostRepeats = 1000

// Decode reads lines. One that cannot be read is booked and passed over: it says nothing about the next.
func (d *StatsD) Decode(b []byte) error {
	d.Tick()
	defer d.levels.Flush()
	defer d.Flush()
	for len(b) > 0 {
		line := b
		if e := bytes.IndexByte(b, '\n'); e >= 0 {
			line, b = b[:e], b[e+1:]
		} else {
			b = nil
		}
		if len(line) > 0 && line[len(line)-1] == '\r' {
			line = line[:len(line)-1]
		}
		if len(line) == 0 {
			continue
		}
		if why, ok := d.line(line); !ok {
			d.a.Refuse(d.source, why, 1)
		}
	}
	return nil
}

func (d *StatsD) line(line []byte) (why aggregate.Reason, ok bool) {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 && !bytes.HasPrefix(line, []byte("_sc|")) {
		return aggregate.ReasonMalformed, false
	}
	if line[0] == '_' {
		if bytes.HasPrefix(line, []byte("_e{")) {
			return aggregate.ReasonUnsupported, false
		}
		if bytes.HasPrefix(line, []byte("_sc|")) {
			return d.check(line[4:])
		}
	}
	bar := colon + 1
	for bar < len(line) && line[bar] != '|' {
		bar++
	}
	name, values, rest := line[:colon], line[colon+1:bar], line[bar:]
	if len(rest) < 2 || len(values) == 0 {
		return aggregate.ReasonMalformed, false
	}
	kind, ok := statsdKind(rest)
	if !ok {
		return aggregate.ReasonUnsupported, false
	}
	rate := 1.0
	if i := bytes.Index(rest, []byte("|@")); i >= 0 {
		end := i + 2
		for end < len(rest) && rest[end] != '|' {
			end++
		}
		if rate, ok = number(rest[i+2 : end]); !ok || !(rate > 0 && rate <= 1) {
			return aggregate.ReasonMalformed, false
		}
	}
	at := d.Now()
	if i := bytes.Index(rest, []byte("|T")); i >= 0 {
		if at, rest, ok = timestamp(rest, i); !ok {
			return aggregate.ReasonMalformed, false
		}
	}
	for len(values) > 0 {
		one := values
		if i := bytes.IndexByte(values, ':'); i >= 0 && kind != aggregate.KindSet {
			one, values = values[:i], values[i+1:]
		} else {
			values = nil
		}
		if kind == aggregate.KindSet {
			d.Add(name, rest, aggregate.Member(one), at)
			continue
		}
		if kind == aggregate.KindGauge && len(one) > 0 && (one[0] == '+' || one[0] == '-') {
			if !d.move(name, rest, one, at) {
				return aggregate.ReasonMalformed, false
			}
			continue
		}
		v, ok := number(one)
		if !ok {
			return aggregate.ReasonMalformed, false
		}
		n := 1
		switch kind {
		case aggregate.KindGauge:
			d.levels.Add(name, rest, v, at)
			continue
		case aggregate.KindDelta:
			v /= rate
		case aggregate.KindSample:
			if rate < 1 {
				n = min(int(1/rate+0.5), mostRepeats)
			}
		}
		for range n {
			d.Add(name, rest, v, at)
		}
	}
	return 0, true
}

// timestamp reads the seconds since 1970 that stand in rest from i on, and cuts them out: they are no part of what names a
// series.
func timestamp(rest []byte, i int) (at int64, without []byte, ok bool) {
	end := i + 2
	for end < len(rest) && rest[end] != '|' {
		end++
	}
	v, ok := number(rest[i+2 : end])
	if !ok || v < 0 || v > 1<<40 {
		return 0, nil, false
	}
	if end == len(rest) {
		return int64(v * 1000), rest[:i], true
	}
	return int64(v * 1000), slices.Concat(rest[:i], rest[end:]), true
}

// move adds a level that is relative to the last one, and to 0 where there is none.
func (d *StatsD) move(name, rest, by []byte, at int64) bool {
	v, ok := number(bytes.TrimPrefix(by, []byte("+")))
	if !ok {
		return false
	}
	relative.Lock()
	defer relative.Unlock()
	d.levels.Flush()   // what came before
	if at == d.Now() { // another decoder may have read the clock later, and been here first
		d.Tick()
		at = d.Now()
	}
	id, err := statsdFormat{}.Identity(name, rest)
	if err != nil {
		return false
	}
	last, _ := d.a.Last(id)
	d.levels.Add(name, rest, last+v, at)
	d.levels.Flush()
	return true
}

// check reads name|status|d:timestamp|h:host|#tags|m:message. The status, 0 to 3, is the level.
func (d *StatsD) check(line []byte) (why aggregate.Reason, ok bool) {
	name, rest, _ := bytes.Cut(line, []byte("|"))
	status, rest, _ := bytes.Cut(rest, []byte("|"))
	v, ok := number(status)
	if !ok || v < 0 || v > 3 || len(name) == 0 {
		return aggregate.ReasonMalformed, false
	}
	key := []byte("|g") // the message differs each time, and is not kept
	for field := range bytes.SplitSeq(rest, []byte("|")) {
		switch {
		case bytes.HasPrefix(field, []byte("m:")):
			rest = nil
		case bytes.HasPrefix(field, []byte("#")):
			key = append(append(key, '|'), field...)
		case bytes.HasPrefix(field, []byte("h:")):
			key = append(append(key, "|#host:"...), field[2:]...)
		}
		if rest == nil {
			break // a message is the last, and may hold anything
		}
	}
	d.levels.Add(slices.Clone(name), key, v, d.Now())
	return 0, true
}

func statsdKind(rest []byte) (aggregate.Kind, bool) {
	end := 1
	for end < len(rest) && rest[end] != '|' {
		end++
	}
	switch string(rest[1:end]) {
	case "c":
		return aggregate.KindDelta, true
	case "ms", "h", "d":
		return aggregate.KindSample, true
	case "g":
		return aggregate.KindGauge, true
	case "s":
		return aggregate.KindSet, true
	}
	return 0, false
}

type statsdFormat struct{}

// Identity reads the name, and from the type on what follows the value.
func (statsdFormat) Identity(name, rest []byte) (aggregate.Identity, error) {
	kind, _ := statsdKind(rest)
	id := aggregate.Identity{Name: string(name), Kind: kind}
	for part := range bytes.SplitSeq(rest[1:], []byte("|")) {
		if len(part) == 0 || part[0] != '#' {
			continue
		}
		for tag := range strings.SplitSeq(string(part[1:]), ",") {
			k, v, found := strings.Cut(tag, ":")
			if !found {
				v = "true"
			}
			if k != "" {
				id.Labels = append(id.Labels, aggregate.Label{Name: k, Value: v})
			}
		}
	}
	return id, nil
}
