// Package limit is a prototype that only counts: the yardstick for what windows, any order of labels, a budget of series, a
// ledger and readers cost. It knows four labels, one order, one stretch of time, keys that fit a cache line, and cannot be read.
package limit

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"unsafe"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/arena"
)

const (
	// Block is the number of samples whose cache misses overlap.
	Block   = 64
	labels  = 4
	subBits = 6 // buckets within 0.78 %, as ours
	shift   = 52 - subBits
	// lowest and highest bound the buckets: 2^-20 to 2^11, a microsecond to half an hour.
	lowest, highest = (1023 - 20) << subBits, (1023 + 11) << subBits
)

var seeds = [3]uint64{rand.Uint64() | 1, rand.Uint64() | 1, rand.Uint64() | 1}

// record is a series: a cache line of sums, then one with the key.
type record struct {
	count             uint64
	sum, min, max     float64
	base, n, counters uint32 // the first bucket, the number of counters, and their place
	_                 [20]byte
	lengths           [labels]uint8
	key               [60]byte
}

type slot struct{ tag, record uint32 }

// Shard is one writer's.
type Shard struct {
	mem     *arena.Arena
	table   []slot
	mask    uint32
	records []record
	used    int
	read    uint32
}

// New makes a shard for so many series.
func New(series int) (*Shard, error) {
	size := 1 << bits.Len(uint(4*series-1))
	mem, err := arena.New(16<<20 + 8*size + series*(128+8192)) // only what is touched takes memory
	if err != nil {
		return nil, err
	}
	return &Shard{mem: mem, table: arena.Slice[slot](mem, size), mask: uint32(size - 1), records: arena.Slice[record](mem, series+1)}, nil
}

// Close gives the memory back.
func (s *Shard) Close() { s.mem.Close() }

func (s *Shard) counters(r *record) []uint32 {
	if r.n == 0 {
		return nil
	}
	return unsafe.Slice((*uint32)(s.mem.At(r.counters)), r.n)
}

func word(p unsafe.Pointer, at int) uint64 { return *(*uint64)(unsafe.Add(p, at)) }

func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// ends packs up to 16 bytes into two words. Short ones are read as one word beyond their end, where that is on their page.
func ends(p unsafe.Pointer, n int) (a, b uint64) {
	if n >= 8 {
		return word(p, 0), word(p, n-8)
	}
	if n > 0 && uintptr(p)%4096 <= 4096-8 {
		return word(p, 0) & (1<<(8*uint(n)) - 1), 0
	}
	for i := n - 1; i >= 0; i-- {
		a = a<<8 | uint64(*(*byte)(unsafe.Add(p, i)))
	}
	return a, 0
}

func hash(h uint64, s string) uint64 {
	p, n := unsafe.Pointer(unsafe.StringData(s)), len(s)
	for ; n > 16; p, n = unsafe.Add(p, 16), n-16 {
		h = fold(word(p, 0)^seeds[0], word(p, 8)^h)
	}
	a, b := ends(p, n)
	return fold(a^seeds[1]^uint64(len(s)), b^h)
}

func (r *record) is(row []string) bool {
	p := unsafe.Pointer(&r.key)
	var d uint64
	for i, s := range row {
		if len(s) != int(r.lengths[i]) {
			return false
		}
		q, n := unsafe.Pointer(unsafe.StringData(s)), len(s)
		if n < 8 {
			a, _ := ends(p, n)
			b, _ := ends(q, n)
			d |= a ^ b
		} else {
			d |= word(p, n-8) ^ word(q, n-8)
			for i := 0; i < n-8; i += 8 {
				d |= word(p, i) ^ word(q, i)
			}
		}
		p = unsafe.Add(p, n)
	}
	return d == 0
}

// Record records a value for each row of labels.
func (s *Shard) Record(rows []string, values []float64) {
	var hs [Block]uint64
	var found [Block]uint32
	for ; len(values) > 0; rows, values = rows[labels*min(len(values), Block):], values[min(len(values), Block):] {
		n := min(len(values), Block)
		for i := range n {
			row := rows[labels*i : labels*i+labels]
			hs[i] = fold(hash(hash(seeds[0], row[0]), row[1])^seeds[1], hash(hash(seeds[2], row[2]), row[3])^seeds[2])
		}
		for i, h := range hs[:n] {
			j := uint32(h) & s.mask
			e := s.table[j]
			for e.tag != uint32(h>>32) && e.record != 0 {
				j = (j + 1) & s.mask
				e = s.table[j]
			}
			found[i] = e.record
		}
		for _, f := range found[:n] {
			r := &s.records[f]
			s.read += r.n + uint32(r.key[0])
		}
		for i, f := range found[:n] {
			if row := rows[labels*i : labels*i+labels]; f == 0 || !s.records[f].is(row) {
				found[i] = s.find(hs[i], row)
			}
		}
		for i, f := range found[:n] {
			r := &s.records[f]
			if b := uint32(math.Float64bits(values[i])>>shift) - r.base; b < r.n {
				s.read += *(*uint32)(unsafe.Add(s.mem.At(r.counters), 4*b))
			}
		}
		for i, f := range found[:n] {
			s.add(&s.records[f], values[i])
		}
	}
}

func (s *Shard) add(r *record, v float64) {
	r.count++
	r.sum += v
	if v < r.min {
		r.min = v
	}
	if v > r.max {
		r.max = v
	}
	if b := uint32(math.Float64bits(v)>>shift) - r.base; b < r.n {
		*(*uint32)(unsafe.Add(s.mem.At(r.counters), 4*b))++
		return
	}
	s.grow(r, v)
}

//go:noinline
func (s *Shard) grow(r *record, v float64) {
	b := min(max(uint32(math.Float64bits(v)>>shift), lowest), highest-1)
	lo, hi := b&^15, b&^15+16
	if r.n > 0 {
		lo, hi = min(lo, r.base), max(hi, r.base+r.n)
		if more := (hi - lo) / 4 &^ 15; lo < r.base { // a quarter more, so that growing stays rare
			lo -= more
		} else {
			hi += more
		}
	}
	wider := record{base: lo, n: hi - lo, counters: s.mem.Alloc(4 * int(hi-lo))}
	if r.n > 0 {
		copy(s.counters(&wider)[r.base-lo:], s.counters(r))
	}
	r.base, r.n, r.counters = wider.base, wider.n, wider.counters
	s.counters(r)[b-lo]++
}

// find finds or makes the record of a row.
func (s *Shard) find(h uint64, row []string) uint32 {
	i := uint32(h) & s.mask
	for ; s.table[i].record != 0; i = (i + 1) & s.mask {
		if e := s.table[i]; e.tag == uint32(h>>32) && s.records[e.record].is(row) {
			return e.record
		}
	}
	s.used++
	r := &s.records[s.used]
	r.min, r.max = math.Inf(1), math.Inf(-1)
	at := 0
	for j, v := range row {
		r.lengths[j] = uint8(len(v))
		at += copy(r.key[at:], v)
	}
	s.table[i] = slot{uint32(h >> 32), uint32(s.used)}
	return uint32(s.used)
}
