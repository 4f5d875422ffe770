package aggregate

import (
	"math"
	"unsafe"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/arena"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/sketch"
)

// cell is what one series did in one pane of one shard: exactly one cache line.
type cell struct {
	count         uint64
	sum, min, max float64
	last          float64
	lastAt        uint32 // milliseconds into the pane, plus 1
	base          uint32 // bucket of the first counter
	n             uint32 // number of counters
	counters      uint32 // place of the counters, a byte each
	carries       uint32 // place of what they ran over by, uint16 each; 0 while none did
	zeros         uint32 // values that are 0
}

// shape is a range of counters.
type shape struct{ base, n uint32 }

const (
	cellSize = int(unsafe.Sizeof(cell{}))
	// widest is how many adjacent buckets a cell counts itself: 32 powers of two, a nanosecond to four seconds, in 2 KiB.
	// What lies outside is counted in the pane's map.
	widest = 32 << sketch.SubBits
	// narrowest is one cache line of counters: a power of two.
	narrowest = arena.Line
	// lowest is the bucket of the smallest normal number. Smaller ones and their like go to the map.
	lowest = 1 << sketch.SubBits
	// mostExtras bounds a pane's map. Beyond it a value is counted in the nearest bucket its cell has, and said so.
	mostExtras = 1 << 16
	// carried is what a counter stands for each time it runs over, and carriedMost when its carry does.
	carried     = 1 << 8
	carriedMost = carried << 16
)

// pane is the part of a shard's state that belongs to one stretch of time. One writer at a time.
type pane struct {
	index    int64
	start    int64 // milliseconds since 1970
	mem      *arena.Arena
	cells    unsafe.Pointer
	capacity int
	shapes   []shape                   // the shard's
	extra    map[uint32]*sketch.Sketch // by series: what counters cannot hold, numbers below 0, and outliers
	extras   int                       // buckets in extra
	// collapsed counts values in a bucket that is not theirs: their quantiles may be off by more than the bound.
	collapsed uint64
	top       uint32 // one more than the highest series that was recorded
}

func newPane(shapes []shape) (*pane, error) {
	// Two thousand counters for each series on average; the system gives memory only for what is used.
	capacity := len(shapes)
	mem, err := arena.New(1<<20 + capacity*(cellSize+2048))
	if err != nil {
		return nil, err
	}
	return &pane{mem: mem, cells: mem.At(mem.Alloc(capacity * cellSize)), capacity: capacity, shapes: shapes, extra: map[uint32]*sketch.Sketch{}}, nil
}

func (p *pane) cell(series uint32) *cell {
	return (*cell)(unsafe.Add(p.cells, uintptr(series)*uintptr(cellSize)))
}

// series is the number of a cell's series.
func (p *pane) series(c *cell) uint32 {
	return uint32((uintptr(unsafe.Pointer(c)) - uintptr(p.cells)) / uintptr(cellSize))
}

func (p *pane) counters(c *cell) []uint8 {
	if c.n == 0 {
		return nil
	}
	return unsafe.Slice((*uint8)(p.mem.At(c.counters)), c.n)
}

func (p *pane) carries(c *cell) []uint16 {
	if c.carries == 0 {
		return nil
	}
	return unsafe.Slice((*uint16)(p.mem.At(c.carries)), c.n)
}

// record adds a finite value.
func (p *pane) record(c *cell, v float64, at uint32) {
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
		q := (*uint8)(unsafe.Add(p.mem.At(c.counters), b))
		if *q++; *q == 0 {
			p.carry(c, b)
		}
		return
	}
	p.slow(c, v)
}

// carry counts that a counter ran over. Few do: a byte for a bucket is a quarter of the memory, and of the cache, that the
// widest count would take.
//
//go:noinline
func (p *pane) carry(c *cell, b uint32) {
	key := int32(c.base+b) + 1
	if c.carries == 0 {
		if c.carries = p.mem.Alloc(int(c.n) * 2); c.carries == 0 {
			p.outside(c, key, carried)
			return
		}
	}
	q := &p.carries(c)[b]
	if *q++; *q == 0 {
		p.outside(c, key, carriedMost)
	}
}

//go:noinline
func (p *pane) slow(c *cell, v float64) {
	p.top = max(p.top, p.series(c)+1)
	if c.count == 1 { // a cell begins as zeros, and they are not its extremes
		c.min, c.max = v, v
	}
	b := uint32(math.Float64bits(v) >> sketch.Shift)
	if v == 0 {
		c.zeros++
		return
	}
	if v < 0 || b < lowest || !p.grow(c, b) {
		p.outside(c, sketch.Key(v), 1)
		return
	}
	p.counters(c)[b-c.base]++
}

// outside counts what the cell's counters cannot.
func (p *pane) outside(c *cell, key int32, n uint64) {
	if n == 1 && p.extras >= mostExtras {
		p.collapsed++
		if h := p.counters(c); h != nil && key > 0 {
			near := min(max(uint32(key-1), c.base), c.base+c.n-1) - c.base
			if h[near] < math.MaxUint8 {
				h[near]++
				return
			}
		}
		c.zeros++
		return
	}
	series := p.series(c)
	x := p.extra[series]
	if x == nil {
		x = new(sketch.Sketch)
		p.extra[series] = x
	}
	was := x.Len()
	x.Add(key, n)
	p.extras += x.Len() - was
}

// grow gives the cell a counter for bucket b, if it may have one.
func (p *pane) grow(c *cell, b uint32) bool {
	lo, hi := b&^(narrowest-1), b&^(narrowest-1)+narrowest
	shape := &p.shapes[p.series(c)]
	switch low, high := lo, hi; {
	case c.n > 0:
		lo, hi = min(lo, c.base), max(hi, c.base+c.n)
		if more := ((hi - lo) / 4) &^ (narrowest - 1); hi-lo+more <= widest { // a quarter more, so that growing stays rare
			if low < c.base {
				lo -= min(lo, more)
			} else if high > c.base+c.n {
				hi += more
			}
		}
	case shape.n > 0 && max(hi, shape.base+shape.n)-min(lo, shape.base) <= widest:
		lo, hi = min(lo, shape.base), max(hi, shape.base+shape.n)
	}
	if hi-lo > widest {
		return false
	}
	wider := *c
	wider.base, wider.n = lo, hi-lo
	if wider.counters = p.mem.Alloc(int(wider.n)); wider.counters == 0 {
		return false
	}
	if c.carries != 0 {
		if wider.carries = p.mem.Alloc(int(wider.n) * 2); wider.carries == 0 {
			p.mem.Release(wider.counters, int(wider.n))
			return false
		}
		copy(p.carries(&wider)[c.base-lo:], p.carries(c))
		p.mem.Release(c.carries, int(c.n)*2)
	}
	if c.n > 0 {
		copy(p.counters(&wider)[c.base-lo:], p.counters(c))
		p.mem.Release(c.counters, int(c.n))
	}
	*c = wider
	shape.base, shape.n = c.base, c.n
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
	st.sketch.AddRun(int32(c.base)+1, p.counters(c), p.carries(c))
	st.sketch.Add(0, uint64(c.zeros))
	if x := p.extra[series]; x != nil {
		st.sketch.Merge(x)
	}
}

// clear makes the pane new. Cells keep their counters' place and width: next time the series will look the same.
func (p *pane) clear() {
	for i := range p.top {
		c := p.cell(i)
		if c.count == 0 {
			continue
		}
		clear(p.counters(c))
		if c.carries != 0 {
			p.mem.Release(c.carries, int(c.n)*2)
		}
		*c = cell{base: c.base, counters: c.counters, n: c.n, min: math.Inf(1), max: math.Inf(-1)}
	}
	for _, x := range p.extra {
		x.Reset()
	}
	p.extras, p.collapsed = 0, 0
}
