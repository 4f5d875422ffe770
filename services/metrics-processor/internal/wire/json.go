package wire

import (
	"bytes"
	"encoding/json"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
)

// JSON reads one object a line: {"name":"x","labels":{"a":"b"},"value":1.5,"ts":1760000000000,"type":"counter"}. ts is in
// milliseconds, and now where it is absent. type is sample (the default), counter (increments) or gauge. Members may come in
// any order, and there are no others.
type JSON struct {
	a       *aggregate.Aggregator
	source  *aggregate.Source
	batches [3]*aggregate.Batch
}

var jsonKinds = [3]aggregate.Kind{aggregate.KindSample, aggregate.KindDelta, aggregate.KindGauge}

// NewJSON makes a decoder.
func NewJSON(a *aggregate.Aggregator, source *aggregate.Source) *JSON {
	d := &JSON{a: a, source: source}
	for i, k := range jsonKinds {
		d.batches[i] = a.NewBatch(source, jsonFormat{k}, uint8(numberJSON+i))
	}
	return d
}

// Dropped sums up the batches of the three types.
func (d *JSON) Dropped() (all [len(aggregate.Reasons)]uint64) {
	for _, b := range d.batches {
		for r, n := range b.Dropped() {
			all[r] += n
		}
	}
	return all
}

// Decode reads lines. The first that cannot be read ends it.
func (d *JSON) Decode(b []byte) error {
	d.batches[0].Tick()
	defer func() {
		for _, x := range d.batches {
			x.Flush()
		}
	}()
	for len(b) > 0 {
		line := b
		if e := bytes.IndexByte(b, '\n'); e >= 0 {
			line, b = b[:e], b[e+1:]
		} else {
			b = nil
		}
		if line = bytes.TrimRight(line, " \t\r"); len(line) == 0 {
			continue
		}
		if !d.line(line) {
			d.a.Refuse(d.source, aggregate.ReasonMalformed, 1)
			return ErrMalformed
		}
	}
	return nil
}

func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t') {
		i++
	}
	return i
}

func (d *JSON) line(b []byte) bool {
	var name, labels []byte
	var v float64
	var seen bool
	at, kind := d.batches[0].Now(), 0
	i := space(b, 0)
	if i >= len(b) || b[i] != '{' {
		return false
	}
	for i++; ; i++ {
		i = space(b, i)
		if i >= len(b) || b[i] != '"' {
			return false
		}
		e := text(b, i)
		if e < 0 {
			return false
		}
		member := b[i+1 : e-1]
		if i = space(b, e); i >= len(b) || b[i] != ':' {
			return false
		}
		i = space(b, i+1)
		from := i
		if i = value(b, i); i <= from {
			return false
		}
		what, ok := b[from:i], true
		switch string(member) {
		case "name":
			name, ok = what, what[0] == '"'
		case "labels":
			labels, ok = what, what[0] == '{'
		case "value":
			v, ok = number(what)
			seen = true
		case "ts":
			var t float64
			if t, ok = number(what); ok && t >= 0 && t < 1<<53 {
				at = int64(t)
			} else {
				ok = false
			}
		case "type":
			switch string(what) {
			case `"sample"`:
				kind = 0
			case `"counter"`:
				kind = 1
			case `"gauge"`:
				kind = 2
			default:
				ok = false
			}
		default:
			ok = false
		}
		if !ok {
			return false
		}
		if i = space(b, i); i >= len(b) {
			return false
		}
		if b[i] == '}' {
			break
		}
		if b[i] != ',' {
			return false
		}
	}
	if i+1 != len(b) || len(name) < 3 || !seen {
		return false
	}
	d.batches[kind].Add(name, labels, v, at)
	return true
}

// value is the index after the value that begins at i; i where there is none, less where it does not end.
func value(b []byte, i int) int {
	if i >= len(b) {
		return i
	}
	switch b[i] {
	case '"':
		return text(b, i)
	case '{':
		for i++; i < len(b); {
			switch b[i] {
			case '"':
				if i = text(b, i); i < 0 {
					return -1
				}
			case '}':
				return i + 1
			case '{', '[': // labels are flat
				return -1
			default:
				i++
			}
		}
		return -1
	}
	for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ' ' && b[i] != '\t' {
		i++
	}
	return i
}

// text is the index after the string that opens at i, -1 where it does not end.
func text(b []byte, i int) int {
	for i++; i < len(b); i++ {
		k := bytes.IndexByte(b[i:], '"')
		if k < 0 {
			return -1
		}
		i += k
		back := i - 1
		for b[back] == '\\' { // ends at the opening quote
			back--
		}
		if (i-back)%2 == 1 {
			return i + 1
		}
	}
	return -1
}

type jsonFormat struct{ kind aggregate.Kind }

// Identity has the standard library read the strings.
func (f jsonFormat) Identity(name, labels []byte) (aggregate.Identity, error) {
	id := aggregate.Identity{Kind: f.kind}
	if err := json.Unmarshal(name, &id.Name); err != nil {
		return id, err
	}
	if len(labels) > 0 {
		var m map[string]string
		if err := json.Unmarshal(labels, &m); err != nil {
			return id, err
		}
		for k, v := range m {
			id.Labels = append(id.Labels, aggregate.Label{Name: k, Value: v})
		}
	}
	return id, nil
}
