package aggregate

import (
	"encoding/binary"
	"math"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/sketch"
)

// Stat is what happened to one series in some stretch of time. The zero value is nothing.
type Stat struct {
	Count         uint64
	Sum, Min, Max float64
	Last          float64
	at            int64 // milliseconds since 1970 at which Last was

	sketch sketch.Sketch
}

// Reset makes st empty and keeps its memory.
func (st *Stat) Reset() {
	st.Count, st.Sum, st.Min, st.Max, st.Last, st.at = 0, 0, 0, 0, 0, 0
	st.sketch.Reset()
}

// Quantile is within sketch.RelativeError of the exact one and between Min and Max; NaN when nothing happened.
func (st *Stat) Quantile(q float64) float64 {
	v := st.sketch.Quantile(q)
	return min(max(v, st.Min), st.Max)
}

func (st *Stat) merge(count uint64, sum, low, high, last float64, at int64) {
	if st.Count == 0 {
		st.Min, st.Max, st.Last, st.at = low, high, last, at
	} else {
		st.Min, st.Max = min(st.Min, low), max(st.Max, high)
		if at >= st.at {
			st.Last, st.at = last, at
		}
	}
	st.Count += count
	st.Sum += sum
}

// append writes st to b.
func (st *Stat) append(b []byte) []byte {
	b = binary.AppendUvarint(b, st.Count)
	for _, v := range [...]float64{st.Sum, st.Min, st.Max, st.Last} {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	b = binary.AppendVarint(b, st.at)
	return st.sketch.Append(b)
}

// read merges what append wrote into st; scratch is overwritten. The rest of b comes back.
func (st *Stat) read(b []byte, scratch *sketch.Sketch) ([]byte, error) {
	count, k := binary.Uvarint(b)
	if k <= 0 || len(b) < k+32 {
		return nil, sketch.ErrCorrupt
	}
	b = b[k:]
	var v [4]float64
	for i := range v {
		v[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
	at, k := binary.Varint(b[32:])
	if k <= 0 || count == 0 {
		return nil, sketch.ErrCorrupt
	}
	rest, err := scratch.Read(b[32+k:])
	if err != nil {
		return nil, err
	}
	st.merge(count, v[0], v[1], v[2], v[3], at)
	st.sketch.Merge(scratch)
	return rest, nil
}

// frame holds what all series did in one pane, or a part of it, as bytes: what was measured once is some ten buckets of a
// few bytes, where a cell has counters for all it may yet see.
type frame struct {
	pane   int64
	series []uint32 // ascending
	ends   []uint32 // where the bytes of each end
	data   []byte
}

func (f *frame) bytes() int { return cap(f.series)*4 + cap(f.ends)*4 + cap(f.data) + 96 }

// put adds a series; they come in order.
func (f *frame) put(series uint32, st *Stat) {
	f.data = st.append(f.data)
	f.series, f.ends = append(f.series, series), append(f.ends, uint32(len(f.data)))
}

// part is the bytes of the i-th series.
func (f *frame) part(i int) []byte {
	if i == 0 {
		return f.data[:f.ends[0]]
	}
	return f.data[f.ends[i-1]:f.ends[i]]
}

// addTo merges what the frame has of a series into st.
func (f *frame) addTo(st *Stat, series uint32, scratch *sketch.Sketch) {
	i, ok := search(f.series, series)
	if !ok {
		return
	}
	_, _ = st.read(f.part(i), scratch) // it was checked when it was read from outside
}

func search(in []uint32, x uint32) (int, bool) {
	lo, hi := 0, len(in)
	for lo < hi {
		if m := (lo + hi) / 2; in[m] < x {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo, lo < len(in) && in[lo] == x
}

// marshal writes f so that another process that gives its series the same numbers can read it.
func (f *frame) marshal() []byte {
	b := binary.AppendVarint(nil, f.pane)
	b = binary.AppendUvarint(b, uint64(len(f.series)))
	for i, s := range f.series {
		b = binary.AppendUvarint(b, uint64(s))
		b = append(b, f.part(i)...)
	}
	return b
}

// unmarshalFrame reads what marshal wrote and checks all of it.
func unmarshalFrame(b []byte, series int) (*frame, error) {
	pane, k := binary.Varint(b)
	if k <= 0 {
		return nil, sketch.ErrCorrupt
	}
	b = b[k:]
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)) {
		return nil, sketch.ErrCorrupt
	}
	b = b[k:]
	f := &frame{pane: pane}
	var scratch sketch.Sketch
	last := int64(-1)
	for range n {
		s, k := binary.Uvarint(b)
		if k <= 0 || s >= uint64(series) || int64(s) <= last {
			return nil, sketch.ErrCorrupt
		}
		last = int64(s)
		b = b[k:]
		var st Stat
		rest, err := st.read(b, &scratch)
		if err != nil {
			return nil, err
		}
		f.data = append(f.data, b[:len(b)-len(rest)]...)
		f.series, f.ends = append(f.series, uint32(s)), append(f.ends, uint32(len(f.data)))
		b = rest
	}
	if len(b) != 0 {
		return nil, sketch.ErrCorrupt
	}
	return f, nil
}
