package wire

import (
	"encoding/binary"
	"math"
	"strings"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
)

// RemoteWrite1 reads prometheus.WriteRequest, the body of remote write 1.0 without its compression.
type RemoteWrite1 struct {
	*aggregate.Batch
	a      *aggregate.Aggregator
	source *aggregate.Source
}

// NewRemoteWrite1 makes a decoder.
func NewRemoteWrite1(a *aggregate.Aggregator, source *aggregate.Source) *RemoteWrite1 {
	return &RemoteWrite1{a.NewBatch(source, write1Format{}, numberWrite1), a, source}
}

// Decode reads a request.
func (d *RemoteWrite1) Decode(b []byte) error {
	defer d.Flush()
	for len(b) > 0 {
		num, typ, _, series, rest, ok := field(b)
		if !ok {
			return ErrMalformed
		}
		b = rest
		if num == 1 && typ == wireBytes {
			if err := d.series(series); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *RemoteWrite1) series(b []byte) error {
	// Every sender writes the labels first; their bytes are the key.
	n := 0
	for n < len(b) && b[n] == 1<<3|wireBytes {
		l, k := uvarint(b[n+1:])
		if k <= 0 || l > uint64(len(b)-n-1-k) {
			return ErrMalformed
		}
		n += 1 + k + int(l)
	}
	key, b := b[:n], b[n:]
	for len(b) > 0 {
		num, _, _, data, rest, ok := field(b)
		if !ok {
			return ErrMalformed
		}
		b = rest
		switch num {
		case 1:
			return ErrMalformed // a label after a sample
		case 2:
			v, at, ok := sample(data)
			if !ok {
				return ErrMalformed
			}
			d.Add(key, nil, v, at)
		case 4: // a native histogram
			d.a.Refuse(d.source, aggregate.ReasonUnsupported, 1)
		}
	}
	return nil
}

// sample reads value = 1 (double) and timestamp = 2 (int64), in both versions.
func sample(b []byte) (v float64, at int64, ok bool) {
	for len(b) > 0 {
		switch b[0] {
		case 1<<3 | wire64:
			if len(b) < 9 {
				return 0, 0, false
			}
			v = math.Float64frombits(binary.LittleEndian.Uint64(b[1:]))
			b = b[9:]
		case 2<<3 | wireVarint:
			t, k := binary.Uvarint(b[1:])
			if k <= 0 {
				return 0, 0, false
			}
			at = int64(t)
			b = b[1+k:]
		default:
			_, _, _, _, rest, ok := field(b)
			if !ok {
				return 0, 0, false
			}
			b = rest
		}
	}
	return v, at, true
}

// conventional is the kind that a name tells, as Prometheus's naming has it.
func conventional(name string) aggregate.Kind {
	for _, end := range [...]string{"_total", "_count", "_sum", "_bucket"} {
		if strings.HasSuffix(name, end) {
			return aggregate.KindCumulative
		}
	}
	return aggregate.KindGauge
}

type write1Format struct{}

// Identity reads the labels of a series.
func (write1Format) Identity(b, _ []byte) (aggregate.Identity, error) {
	var id aggregate.Identity
	for len(b) > 0 {
		_, _, _, label, rest, ok := field(b)
		if !ok {
			return id, ErrMalformed
		}
		b = rest
		var l aggregate.Label
		for len(label) > 0 {
			num, _, _, data, rest, ok := field(label)
			if !ok {
				return id, ErrMalformed
			}
			label = rest
			switch num {
			case 1:
				l.Name = string(data)
			case 2:
				l.Value = string(data)
			}
		}
		if l.Name == "__name__" {
			id.Name = l.Value
		} else {
			id.Labels = append(id.Labels, l)
		}
	}
	id.Kind = conventional(id.Name)
	return id, nil
}

// RemoteWrite2 reads io.prometheus.write.v2.Request. Its labels are numbers of a table of strings that each request brings
// along, so the same series has other bytes each time: the strings are joined to a key.
type RemoteWrite2 struct {
	*aggregate.Batch
	a       *aggregate.Aggregator
	source  *aggregate.Source
	symbols [][]byte
	scratch scratch
}

// NewRemoteWrite2 makes a decoder.
func NewRemoteWrite2(a *aggregate.Aggregator, source *aggregate.Source) *RemoteWrite2 {
	return &RemoteWrite2{Batch: a.NewBatch(source, write2Format{}, numberWrite2), a: a, source: source, scratch: make(scratch, 0, scratchSize)}
}

// Decode reads a request.
func (d *RemoteWrite2) Decode(b []byte) error {
	defer d.Flush()
	d.symbols = d.symbols[:0]
	for rest := b; len(rest) > 0; { // all symbols, wherever they stand
		num, typ, _, data, next, ok := field(rest)
		if !ok {
			return ErrMalformed
		}
		rest = next
		if num == 4 && typ == wireBytes {
			d.symbols = append(d.symbols, data)
		}
	}
	for len(b) > 0 {
		num, typ, _, series, rest, _ := field(b)
		b = rest
		if num == 5 && typ == wireBytes {
			if err := d.series(series); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *RemoteWrite2) series(b []byte) error {
	var refs []byte
	kind := uint64(0)
	for rest := b; len(rest) > 0; {
		num, typ, _, data, next, ok := field(rest)
		if !ok {
			return ErrMalformed
		}
		rest = next
		switch {
		case num == 1 && typ == wireBytes:
			refs = data
		case num == 5 && typ == wireBytes:
			if n, typ, v, _, _, ok := field(data); ok && n == 1 && typ == wireVarint {
				kind = v
			}
		}
	}
	key, err := d.key(byte(kind), refs)
	if err != nil {
		return err
	}
	for len(b) > 0 {
		num, typ, _, data, rest, _ := field(b)
		b = rest
		switch {
		case num == 2 && typ == wireBytes:
			v, at, ok := sample(data)
			if !ok {
				return ErrMalformed
			}
			d.Add(key, nil, v, at)
		case num == 3:
			d.a.Refuse(d.source, aggregate.ReasonUnsupported, 1)
		}
	}
	return nil
}

// key writes the kind and each string with its length.
func (d *RemoteWrite2) key(kind byte, refs []byte) ([]byte, error) {
	size := 1
	for rest := refs; len(rest) > 0; {
		i, k := uvarint(rest)
		if k <= 0 || i >= uint64(len(d.symbols)) {
			return nil, ErrMalformed
		}
		size += len(d.symbols[i]) + binary.MaxVarintLen32
		rest = rest[k:]
	}
	if !d.scratch.room(size) {
		d.Flush()
		if d.scratch = d.scratch[:0]; !d.scratch.room(size) {
			return nil, ErrMalformed
		}
	}
	from := len(d.scratch)
	d.scratch = append(d.scratch, kind)
	for len(refs) > 0 {
		i, k := uvarint(refs)
		d.scratch = binary.AppendUvarint(d.scratch, uint64(len(d.symbols[i])))
		d.scratch = append(d.scratch, d.symbols[i]...)
		refs = refs[k:]
	}
	return d.scratch[from:len(d.scratch):len(d.scratch)], nil
}

type write2Format struct{}

// Identity reads what key wrote.
func (write2Format) Identity(b, _ []byte) (aggregate.Identity, error) {
	var id aggregate.Identity
	var strs []string
	kind := b[0]
	for b = b[1:]; len(b) > 0; {
		n, k := uvarint(b)
		strs = append(strs, string(b[k:k+int(n)]))
		b = b[k+int(n):]
	}
	if len(strs)%2 != 0 {
		return id, ErrMalformed
	}
	for i := 0; i < len(strs); i += 2 {
		if strs[i] == "__name__" {
			id.Name = strs[i+1]
		} else {
			id.Labels = append(id.Labels, aggregate.Label{Name: strs[i], Value: strs[i+1]})
		}
	}
	switch kind {
	case 0:
		id.Kind = conventional(id.Name)
	case 1, 3, 5: // counter, histogram, summary
		id.Kind = aggregate.KindCumulative
		if kind != 1 && conventional(id.Name) != aggregate.KindCumulative {
			id.Kind = aggregate.KindGauge // the quantiles of a summary
		}
	default:
		id.Kind = aggregate.KindGauge
	}
	return id, nil
}
