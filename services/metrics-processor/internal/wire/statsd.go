package wire

import (
	"bytes"
	"strings"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
)

// StatsD reads lines name:value|type|@rate|#tag:value,tag:value, with several values where they are joined by colons, as
// DogStatsD has them. Types c, ms, h, d and g are aggregated. Sets, levels that are relative to the last one (g with a
// sign), events and checks are not; they are booked as unsupported.
type StatsD struct {
	*aggregate.Batch
	a      *aggregate.Aggregator
	source *aggregate.Source
}

// NewStatsD makes a decoder.
func NewStatsD(a *aggregate.Aggregator, source *aggregate.Source) *StatsD {
	return &StatsD{a.NewBatch(source, statsdFormat{}, numberStatsD), a, source}
}

// mostRepeats bounds what a sample rate makes of one measurement.
const mostRepeats = 1000

// Decode reads lines. One that cannot be read is booked and passed over: it says nothing about the next.
func (d *StatsD) Decode(b []byte) error {
	d.Tick()
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
	if colon <= 0 {
		return aggregate.ReasonMalformed, false
	}
	if bytes.HasPrefix(line, []byte("_e{")) || bytes.HasPrefix(line, []byte("_sc|")) {
		return aggregate.ReasonUnsupported, false
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
	for len(values) > 0 {
		one := values
		if i := bytes.IndexByte(values, ':'); i >= 0 {
			one, values = values[:i], values[i+1:]
		} else {
			values = nil
		}
		if kind == aggregate.KindGauge && len(one) > 0 && (one[0] == '+' || one[0] == '-') {
			return aggregate.ReasonUnsupported, false
		}
		v, ok := number(one)
		if !ok {
			return aggregate.ReasonMalformed, false
		}
		n := 1
		switch {
		case rate == 1:
		case kind == aggregate.KindDelta:
			v /= rate
		case kind == aggregate.KindSample:
			n = min(int(1/rate+0.5), mostRepeats)
		}
		for range n {
			d.Add(name, rest, v, d.Now())
		}
	}
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
