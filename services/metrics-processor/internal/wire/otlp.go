package wire

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"
	"strconv"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
)

// OTLP reads opentelemetry.proto.collector.metrics.v1.ExportMetricsServiceRequest. Gauges and sums are aggregated as they
// are, histograms and exponential histograms as the measurements they count, of summaries count, sum and quantiles as Prometheus
// has them. Of the resource, service.name, service.namespace and service.instance.id become labels.
type OTLP struct {
	*aggregate.Batch
	a       *aggregate.Aggregator
	source  *aggregate.Source
	former  *Former
	scratch scratch
	point   histogramPoint
}

// NewOTLP makes a decoder. Decoders of one source share what they know of former points.
func NewOTLP(a *aggregate.Aggregator, source *aggregate.Source, former *Former) *OTLP {
	return &OTLP{Batch: a.NewBatch(source, otlpFormat{}, numberOTLP), a: a, source: source, former: former, scratch: make(scratch, 0, scratchSize)}
}

// Decode reads a request.
func (d *OTLP) Decode(b []byte) error {
	d.Tick()
	defer d.Flush()
	return each(b, 1, func(resource []byte) error {
		var attributes []byte
		if err := each(resource, 1, func(r []byte) error { attributes = r; return nil }); err != nil {
			return err
		}
		return each(resource, 2, func(scope []byte) error {
			return each(scope, 2, func(metric []byte) error { return d.metric(attributes, metric) })
		})
	})
}

// fields calls f with each field.
func fields(b []byte, f func(num uint64, typ byte, v uint64, data []byte) error) error {
	for len(b) > 0 {
		num, typ, v, data, rest, ok := field(b)
		if !ok {
			return ErrMalformed
		}
		b = rest
		if err := f(num, typ, v, data); err != nil {
			return err
		}
	}
	return nil
}

// each calls f with each field of the number that is bytes.
func each(b []byte, want uint64, f func([]byte) error) error {
	return fields(b, func(num uint64, typ byte, _ uint64, data []byte) error {
		if num == want && typ == wireBytes {
			return f(data)
		}
		return nil
	})
}

// What a metric holds.
const (
	otlpGauge       = 5
	otlpSum         = 7
	otlpHistogram   = 9
	otlpExponential = 10
	otlpSummary     = 11
)

func (d *OTLP) metric(resource, b []byte) error {
	var name, data []byte
	shape := uint64(0)
	for len(b) > 0 {
		num, typ, _, bytes, rest, ok := field(b)
		if !ok {
			return ErrMalformed
		}
		b = rest
		if typ != wireBytes {
			continue
		}
		switch num {
		case 1:
			name = bytes
		case otlpGauge, otlpSum, otlpHistogram, otlpExponential, otlpSummary:
			shape, data = num, bytes
		}
	}
	if shape == 0 {
		return nil
	}
	delta, monotonic := false, false
	for rest := data; len(rest) > 0; {
		num, typ, v, _, next, ok := field(rest)
		if !ok {
			return ErrMalformed
		}
		rest = next
		if typ == wireVarint {
			delta = delta || num == 2 && v == 1
			monotonic = monotonic || num == 3 && v == 1
		}
	}
	counter := aggregate.KindCumulative
	if delta {
		counter = aggregate.KindDelta
	}
	switch shape {
	case otlpGauge:
		return d.numbers(data, aggregate.KindGauge, resource, name)
	case otlpSum:
		if !monotonic {
			counter = aggregate.KindGauge
		}
		return d.numbers(data, counter, resource, name)
	case otlpHistogram:
		return d.histograms(data, delta, (*histogramPoint).readExplicit, 9, resource, name)
	case otlpExponential:
		return d.histograms(data, delta, (*histogramPoint).readExponential, 1, resource, name)
	}
	return d.summaries(data, resource, name)
}

// prefix is the part of the key that all points of a metric share: kind, name, resource.
func (d *OTLP) prefix(kind aggregate.Kind, resource, name []byte, suffix string) ([]byte, error) {
	size := 1 + binary.MaxVarintLen32 + len(name) + len(suffix) + len(resource)
	if !d.scratch.room(size) {
		d.Flush()
		if d.scratch = d.scratch[:0]; !d.scratch.room(size) {
			return nil, ErrMalformed
		}
	}
	from := len(d.scratch)
	s := append(d.scratch, byte(kind))
	s = binary.AppendUvarint(s, uint64(len(name)+len(suffix)))
	s = append(append(append(s, name...), suffix...), resource...)
	d.scratch = s
	return s[from:len(s):len(s)], nil
}

// attributes finds the fields of a number. They stand together in what every SDK sends; where not, they are put together.
func (d *OTLP) attributes(point []byte, want uint64) ([]byte, error) {
	from, to, apart := -1, 0, false
	for rest := point; len(rest) > 0; {
		at := len(point) - len(rest)
		num, typ, _, _, next, ok := field(rest)
		if !ok {
			return nil, ErrMalformed
		}
		rest = next
		if num == want && typ == wireBytes {
			apart = apart || from >= 0 && to != at
			if from < 0 {
				from = at
			}
			to = len(point) - len(rest)
		}
	}
	if from < 0 {
		return nil, nil
	}
	if !apart {
		return point[from:to], nil
	}
	var joined []byte
	for rest := point; len(rest) > 0; {
		num, typ, _, _, next, _ := field(rest)
		if num == want && typ == wireBytes {
			joined = append(joined, rest[:len(rest)-len(next)]...)
		}
		rest = next
	}
	return joined, nil
}

// when is a time in nanoseconds as one in milliseconds.
func (d *OTLP) when(nanos uint64) int64 {
	if nanos == 0 {
		return d.Now()
	}
	return int64(nanos / 1e6)
}

func (d *OTLP) numbers(b []byte, kind aggregate.Kind, resource, name []byte) error {
	key, err := d.prefix(kind, resource, name, "")
	if err != nil {
		return err
	}
	for len(b) > 0 {
		num, typ, _, point, rest, ok := field(b)
		if !ok {
			return ErrMalformed
		}
		b = rest
		if num != 1 || typ != wireBytes {
			continue
		}
		attributes, v, nanos, has, err := d.number(point)
		if err != nil {
			return err
		}
		if has {
			d.Add(key, attributes, v, d.when(nanos))
		}
	}
	return nil
}

func (d *OTLP) number(point []byte) (attributes []byte, v float64, nanos uint64, has bool, err error) {
	from, to, apart := -1, 0, false
	for rest := point; len(rest) > 0; {
		at := len(point) - len(rest)
		num, typ, x, _, next, ok := field(rest)
		if !ok {
			return nil, 0, 0, false, ErrMalformed
		}
		rest = next
		switch {
		case num == 7 && typ == wireBytes:
			apart = apart || from >= 0 && to != at
			if from < 0 {
				from = at
			}
			to = len(point) - len(rest)
		case num == 3 && typ == wire64:
			nanos = x
		case num == 4 && typ == wire64:
			v, has = math.Float64frombits(x), true
		case num == 6 && typ == wire64:
			v, has = float64(int64(x)), true
		}
	}
	if apart {
		attributes, err = d.attributes(point, 7)
	} else if from >= 0 {
		attributes = point[from:to]
	}
	return attributes, v, nanos, has, err
}

// histograms adds what the points count. Of cumulative ones that is what they count more than the point before.
func (d *OTLP) histograms(b []byte, delta bool, read func(*histogramPoint, []byte) error, attributesField uint64, resource, name []byte) error {
	key, err := d.prefix(aggregate.KindSample, resource, name, "")
	if err != nil {
		return err
	}
	return each(b, 1, func(point []byte) error {
		attributes, err := d.attributes(point, attributesField)
		if err != nil {
			return err
		}
		p := &d.point
		p.reset()
		if err := read(p, point); err != nil {
			return err
		}
		if !delta {
			d.former.subtract(key, attributes, p, func() bool {
				id, err := otlpFormat{}.Identity(key, attributes)
				if err != nil {
					return false
				}
				_, ok := d.a.Last(id)
				return ok
			})
		}
		d.AddAll(key, attributes, p.distribution(), d.when(p.nanos))
		return nil
	})
}

func (d *OTLP) summaries(b, resource, name []byte) error {
	return each(b, 1, func(point []byte) error {
		attributes, err := d.attributes(point, 7)
		if err != nil {
			return err
		}
		var nanos, count uint64
		var sum float64
		if err := fields(point, func(num uint64, typ byte, v uint64, _ []byte) error {
			switch {
			case typ != wire64:
			case num == 3:
				nanos = v
			case num == 4:
				count = v
			case num == 5:
				sum = math.Float64frombits(v)
			}
			return nil
		}); err != nil {
			return err
		}
		add := func(kind aggregate.Kind, suffix string, attributes []byte, v float64) error {
			key, err := d.prefix(kind, resource, name, suffix)
			if err == nil {
				d.Add(key, attributes, v, d.when(nanos))
			}
			return err
		}
		if err := add(aggregate.KindCumulative, "_count", attributes, float64(count)); err != nil {
			return err
		}
		if err := add(aggregate.KindCumulative, "_sum", attributes, sum); err != nil {
			return err
		}
		return each(point, 6, func(quantile []byte) error {
			var q, v float64
			if err := fields(quantile, func(num uint64, typ byte, x uint64, _ []byte) error {
				if typ == wire64 && num == 1 {
					q = math.Float64frombits(x)
				} else if typ == wire64 && num == 2 {
					v = math.Float64frombits(x)
				}
				return nil
			}); err != nil {
				return err
			}
			return add(aggregate.KindGauge, "", slices.Concat(attributes, quantileAttribute(q)), v)
		})
	})
}

// quantileAttribute is the label quantile, as the field of a point.
func quantileAttribute(q float64) []byte {
	part := func(b []byte, num byte, data []byte) []byte {
		return append(binary.AppendUvarint(append(b, num<<3|wireBytes), uint64(len(data))), data...)
	}
	return part(nil, 7, part(part(nil, 1, []byte("quantile")), 2, part(nil, 1, strconv.AppendFloat(nil, q, 'g', -1, 64))))
}

type otlpFormat struct{}

// Identity reads what prefix wrote, and the attributes of a point.
func (otlpFormat) Identity(prefix, attributes []byte) (aggregate.Identity, error) {
	n, k := uvarint(prefix[1:])
	id := aggregate.Identity{Kind: aggregate.Kind(prefix[0]), Name: string(prefix[1+k : 1+k+int(n)])}
	err := each(prefix[1+k+int(n):], 1, func(kv []byte) error {
		l, err := keyValue(kv)
		switch l.Name {
		case "service.name", "service.namespace", "service.instance.id":
			id.Labels = append(id.Labels, l)
		}
		return err
	})
	if err != nil {
		return id, err
	}
	for len(attributes) > 0 {
		_, _, _, kv, rest, ok := field(attributes)
		if !ok {
			return id, ErrMalformed
		}
		attributes = rest
		l, err := keyValue(kv)
		if err != nil {
			return id, err
		}
		id.Labels = append(id.Labels, l)
	}
	return id, nil
}

// keyValue reads an attribute. Values that are no strings are written as such; lists and maps as the hex of their bytes.
func keyValue(b []byte) (l aggregate.Label, err error) {
	for len(b) > 0 {
		num, _, _, data, rest, ok := field(b)
		if !ok {
			return l, ErrMalformed
		}
		b = rest
		switch num {
		case 1:
			l.Name = string(data)
		case 2:
			if len(data) == 0 {
				continue
			}
			num, _, v, text, _, ok := field(data)
			if !ok {
				return l, ErrMalformed
			}
			switch num {
			case 1:
				l.Value = string(text)
			case 2:
				l.Value = strconv.FormatBool(v != 0)
			case 3:
				l.Value = strconv.FormatInt(int64(v), 10)
			case 4:
				l.Value = strconv.FormatFloat(math.Float64frombits(v), 'g', -1, 64)
			default:
				l.Value = hex.EncodeToString(text)
			}
		}
	}
	return l, nil
}
