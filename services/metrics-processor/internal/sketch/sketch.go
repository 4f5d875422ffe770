// Package sketch answers quantiles of a stream from bucket counts. A bucket is the sign, the exponent and the first six
// bits of the mantissa of a float64, so finding it is a shift, and one number is within 1/129 (0.78 %) of every normal
// number in it. Sketches merge by adding counts: merged sketches answer what one sketch of all values would.
package sketch

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
)

// SubBits is the resolution: 64 buckets to a power of two.
const SubBits = 6

// Shift turns the bits of a positive float64 into its bucket.
const Shift = 52 - SubBits

// RelativeError bounds |estimate - exact| / |exact| for numbers of 2.3e-308 and more.
const RelativeError = 1.0 / 129

// Key is the bucket of a finite number. Keys order as their numbers do: 0 is zero, negative numbers have negative keys.
func Key(v float64) int32 {
	b := int32(math.Float64bits(v) &^ (1 << 63) >> Shift)
	switch {
	case v > 0:
		return b + 1
	case v < 0:
		return -b - 1
	}
	return 0
}

// Value is the number that stands for a bucket.
func Value(key int32) float64 {
	if key == 0 {
		return 0
	}
	b := uint64(max(key, -key) - 1)
	lo, hi := math.Float64frombits(b<<Shift), math.Float64frombits((b+1)<<Shift)
	v := lo
	if b > 0 && !math.IsInf(hi, 0) {
		v = lo * (2 / (1 + lo/hi)) // as far from lo as from hi, relative to each
	}
	if key < 0 {
		return -v
	}
	return v
}

// Sketch counts values by bucket. The zero value is empty. Only buckets that hold something take memory.
type Sketch struct {
	keys []int32 // ascending
	n    []uint64
	// What a merge is made in; the two pairs change places.
	spareKeys []int32
	spareN    []uint64
}

// Reset empties s and keeps its memory.
func (s *Sketch) Reset() { s.keys, s.n = s.keys[:0], s.n[:0] }

// Len is the number of buckets in use.
func (s *Sketch) Len() int { return len(s.keys) }

// Count is the number of values.
func (s *Sketch) Count() (n uint64) {
	for _, c := range s.n {
		n += c
	}
	return n
}

// Each calls f for each bucket in order.
func (s *Sketch) Each(f func(key int32, n uint64)) {
	for i, k := range s.keys {
		f(k, s.n[i])
	}
}

// Add counts n values of a bucket.
func (s *Sketch) Add(key int32, n uint64) {
	if n == 0 {
		return
	}
	if len(s.keys) == 0 || key > s.keys[len(s.keys)-1] {
		s.keys, s.n = append(s.keys, key), append(s.n, n)
		return
	}
	i, found := slices.BinarySearch(s.keys, key)
	if found {
		s.n[i] += n
		return
	}
	s.keys, s.n = slices.Insert(s.keys, i, key), slices.Insert(s.n, i, n)
}

// AddRun counts values of adjacent buckets, the first of which is key. carries, where there are some, count what each counter
// ran over by.
func (s *Sketch) AddRun(key int32, counts []uint8, carries []uint16) {
	keys, n := s.keys, s.n
	s.keys, s.n = s.spareKeys[:0], s.spareN[:0]
	j := 0
	for i, c := range counts {
		sum := uint64(c)
		if carries != nil {
			sum += uint64(carries[i]) << 8
		}
		if sum == 0 {
			continue
		}
		k := key + int32(i)
		for j < len(keys) && keys[j] < k {
			s.keys, s.n = append(s.keys, keys[j]), append(s.n, n[j])
			j++
		}
		if j < len(keys) && keys[j] == k {
			sum += n[j]
			j++
		}
		s.keys, s.n = append(s.keys, k), append(s.n, sum)
	}
	s.keys, s.n = append(s.keys, keys[j:]...), append(s.n, n[j:]...)
	s.spareKeys, s.spareN = keys, n
}

// Merge adds all of o to s.
func (s *Sketch) Merge(o *Sketch) {
	keys, n := s.keys, s.n
	s.keys, s.n = s.spareKeys[:0], s.spareN[:0]
	i, j := 0, 0
	for i < len(keys) || j < len(o.keys) {
		switch {
		case j == len(o.keys) || i < len(keys) && keys[i] < o.keys[j]:
			s.keys, s.n = append(s.keys, keys[i]), append(s.n, n[i])
			i++
		case i == len(keys) || o.keys[j] < keys[i]:
			s.keys, s.n = append(s.keys, o.keys[j]), append(s.n, o.n[j])
			j++
		default:
			s.keys, s.n = append(s.keys, keys[i]), append(s.n, n[i]+o.n[j])
			i, j = i+1, j+1
		}
	}
	s.spareKeys, s.spareN = keys, n
}

// Quantile is the value of rank ⌊q·(n-1)⌋ of the n values in order, within RelativeError; NaN when there are none.
func (s *Sketch) Quantile(q float64) float64 {
	total := s.Count()
	if total == 0 {
		return math.NaN()
	}
	rank := uint64(min(max(q, 0), 1) * float64(total-1))
	var seen uint64
	for i, n := range s.n {
		if seen += n; seen > rank {
			return Value(s.keys[i])
		}
	}
	return Value(s.keys[len(s.keys)-1])
}

// Append writes s to b.
func (s *Sketch) Append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.keys)))
	var last int32
	for i, k := range s.keys {
		b = binary.AppendVarint(b, int64(k)-int64(last))
		b = binary.AppendUvarint(b, s.n[i])
		last = k
	}
	return b
}

// ErrCorrupt says that bytes are not what Append wrote.
var ErrCorrupt = errors.New("sketch: corrupt")

// Read replaces s by what stands at the beginning of b and returns the rest.
func (s *Sketch) Read(b []byte) ([]byte, error) {
	s.Reset()
	count, k := binary.Uvarint(b)
	if k <= 0 || count > uint64(len(b)) {
		return nil, ErrCorrupt
	}
	b = b[k:]
	var last int64
	for i := range count {
		d, k := binary.Varint(b)
		if k <= 0 {
			return nil, ErrCorrupt
		}
		b = b[k:]
		n, k := binary.Uvarint(b)
		if k <= 0 || n == 0 {
			return nil, ErrCorrupt
		}
		b = b[k:]
		if i > 0 && d <= 0 {
			return nil, ErrCorrupt
		}
		if last += d; last > 1<<17 || last < -1<<17 {
			return nil, ErrCorrupt
		}
		s.keys, s.n = append(s.keys, int32(last)), append(s.n, n)
	}
	return b, nil
}
