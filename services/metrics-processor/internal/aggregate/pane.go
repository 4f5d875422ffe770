package aggregate

import (
	"math"
	"unsafe"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/arena"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/sketch"
)

// cell is what one series did in one pane of one shard: exactly one cache line.
type cell struct {
	count          uint64
	sum, min, max  float64
	last           float64
	lastAt         uint32 // milliseconds into the pane, plus 1
	base           uint32 // bucket of the first counter
	counters       uint32 // place of the counters, uint16 each
	n              uint32 // number of counters
	zeros, strange uint32 // values that are 0; values in extra
}

const (
	cellSize = int(unsafe.Sizeof(cell{}))
	// widest is how many adjacent buckets a cell counts itself: 32 powers of two, a nanosecond to four seconds, in 4 KiB.
	// What lies outside is counted in the pane's map.
	widest = 32 << sketch.SubBits
	// narrowest is one cache line of counters: half a power of two.
	narrowest = arena.Line / 2
	// lowest is the bucket of the smallest normal number. Smaller ones and their like go to the map.
	lowest = 1 << sketch.SubBits
	// mostExtras bounds a pane's map. Beyond it a value is counted in the nearest bucket its cell has, and said so.
	mostExtras = 1 << 16
)

// pane is the part of a shard's state that belongs to one stretch of time. One writer at a time.
type pane struct {
	index    int64
	start    int64 // milliseconds since 1970
	mem      *arena.Arena
	cells    unsafe.Pointer
	capacity int
	extra    map[uint32]*sketch.Sketch // by series: what counters of 16 bits cannot hold, numbers below 0, and outliers
	extras   int                       // buckets in extra
	// collapsed counts values in a bucket that is not theirs: their quantiles may be off by more than the bound.
	collapsed uint64
	top       uint32 // one more than the highest series that was recorded
}

func newPane(capacity int) (*pane, error) {
	// A thousand counters for each series on average; the system gives memory only for what is used.
	mem, err := arena.New(1<<20 + capacity*(cellSize+2048))
	if err != nil {
		return nil, err
	}
	return &pane{mem: mem, cells: mem.At(mem.Alloc(capacity * cellSize)), capacity: capacity, extra: map[uint32]*sketch.Sketch{}}, nil
}

func (p *pane) cell(series uint32) *cell {
	return (*cell)(unsafe.Add(p.cells, uintptr(series)*uintptr(cellSize)))
}

func (p *pane) histogram(c *cell) []uint16 {
	if c.n == 0 {
		return nil
	}
	return unsafe.Slice((*uint16)(p.mem.At(c.counters)), c.n)
}

// touch reads the counter of a value, so that it is in the cache when it is counted.
func (p *pane) touch(c *cell, v float64) uint32 {
	if b := uint32(math.Float64bits(v)>>sketch.Shift) - c.base; b < c.n {
		return uint32(*(*uint16)(unsafe.Add(p.mem.At(c.counters), uintptr(b)*2)))
	}
	return 0
}

// record adds a finite value.
func (p *pane) record(c *cell, series uint32, v float64, at uint32) {
	c.count++
	c.sum += v
	if v < c.min {
		c.min = v
	}
	if v > c.max {
		c.max = v
	}
	if at >= c.lastAt {
		c.last, c.lastAt = v, at
	}
	if b := uint32(math.Float64bits(v)>>sketch.Shift) - c.base; b < c.n {
		q := (*uint16)(unsafe.Add(p.mem.At(c.counters), uintptr(b)*2))
		if *q++; *q == 0 {
			p.outside(c, series, sketch.Key(v), 1<<16)
		}
		return
	}
	p.slow(c, series, v)
}

//go:noinline
func (p *pane) slow(c *cell, series uint32, v float64) {
	p.top = max(p.top, series+1)
	if c.count == 1 { // a cell begins as zeros, and they are not its extremes
		c.min, c.max = v, v
	}
	b := uint32(math.Float64bits(v) >> sketch.Shift)
	if v == 0 {
		c.zeros++
		return
	}
	if v < 0 || b < lowest || !p.grow(c, b) {
		p.outside(c, series, sketch.Key(v), 1)
		return
	}
	p.histogram(c)[b-c.base]++
}

// outside counts what the cell's counters cannot.
func (p *pane) outside(c *cell, series uint32, key int32, n uint64) {
	if n == 1 && p.extras >= mostExtras {
		p.collapsed++
		if h := p.histogram(c); h != nil && key > 0 {
			near := min(max(uint32(key-1), c.base), c.base+c.n-1) - c.base
			if h[near] < math.MaxUint16 {
				h[near]++
				return
			}
		}
		c.zeros++
		return
	}
	x := p.extra[series]
	if x == nil {
		x = new(sketch.Sketch)
		p.extra[series] = x
	}
	c.strange = 1
	was := x.Len()
	x.Add(key, n)
	p.extras += x.Len() - was
}

// grow gives the cell a counter for bucket b, if it may have one.
func (p *pane) grow(c *cell, b uint32) bool {
	lo, hi := b&^(narrowest-1), b&^(narrowest-1)+narrowest
	if c.n > 0 {
		low, high := lo, hi
		lo, hi = min(lo, c.base), max(hi, c.base+c.n)
		if more := ((hi - lo) / 4) &^ (narrowest - 1); hi-lo+more <= widest { // a quarter more, so that growing stays rare
			if low < c.base {
				lo -= min(lo, more)
			} else if high > c.base+c.n {
				hi += more
			}
		}
	}
	if hi-lo > widest {
		return false
	}
	place := p.mem.Alloc(int(hi-lo) * 2)
	if place == 0 {
		return false
	}
	h := unsafe.Slice((*uint16)(p.mem.At(place)), hi-lo)
	if c.n > 0 {
		copy(h[c.base-lo:], p.histogram(c))
		p.mem.Release(c.counters, int(c.n)*2)
	}
	c.counters, c.n, c.base = place, hi-lo, lo
	return true
}

// addTo merges what the pane has of a series into st.
func (p *pane) addTo(st *Stat, series uint32) {
	if series >= uint32(p.capacity) {
		return
	}
	c := p.cell(series)
	if c.count == 0 {
		return
	}
	st.merge(c.count, c.sum, c.min, c.max, c.last, p.start+int64(c.lastAt)-1)
	st.sketch.AddRun(int32(c.base)+1, p.histogram(c))
	st.sketch.Add(0, uint64(c.zeros))
	if c.strange != 0 {
		st.sketch.Merge(p.extra[series])
	}
}

// clear makes the pane new. Cells keep their counters' place and width: next time the series will look the same.
func (p *pane) clear() {
	for i := range p.top {
		c := p.cell(i)
		if c.count == 0 {
			continue
		}
		clear(p.histogram(c))
		*c = cell{base: c.base, counters: c.counters, n: c.n, min: math.Inf(1), max: math.Inf(-1)}
	}
	for _, x := range p.extra {
		x.Reset()
	}
	p.extras, p.collapsed = 0, 0
}
