package aggregate

import (
	"unsafe"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/sketch"
)

// Distribution is many measurements of which a sender only says how many lay where.
type Distribution struct {
	Count         uint64
	Sum, Min, Max float64
	Buckets       sketch.Sketch // Count values in all
}

// AddAll adds a distribution, as if each measurement of it had been added. d is not needed afterwards.
func (b *Batch) AddAll(x, y []byte, d *Distribution, at int64) {
	b.Flush()
	if d.Count == 0 {
		return
	}
	a := b.a
	a.keepUp(at)
	h := hashPair(b.number, x, y)
	s := b.acquire()
	defer s.mu.Unlock()
	book := &s.books[b.source.number]
	s.took[b.source.number] += d.Count
	drop := func(why Reason) {
		book.dropped[why] += d.Count
		b.counts[why] += d.Count
	}
	p, _, _, why := a.place(s, at, b.source.Clamp)
	if p == nil {
		drop(why)
		return
	}
	if d.Sum-d.Sum != 0 || d.Min-d.Min != 0 || d.Max-d.Max != 0 {
		drop(ReasonNotFinite)
		return
	}
	series, _, known := s.find(h, head(len(x)+len(y), b.number, len(x)), unsafe.Pointer(unsafe.SliceData(x)), unsafe.Pointer(unsafe.SliceData(y)), len(x), len(y))
	if !known {
		if series, why, known = b.resolve(s, h, x, y); !known {
			drop(why)
			return
		}
	}
	p.addAll(p.cell(series), d, offset(p, at, a.pane))
	book.aggregated += d.Count
}

// addAll adds a distribution to a cell.
func (p *pane) addAll(c *cell, d *Distribution, at uint32) {
	p.top = max(p.top, p.series(c)+1)
	if c.count == 0 {
		c.min, c.max = d.Min, d.Max
	}
	c.count += d.Count
	c.sum += d.Sum
	c.min, c.max = min(c.min, d.Min), max(c.max, d.Max)
	if at >= c.lastAt {
		c.last, c.lastAt = d.Sum/float64(d.Count), at
	}
	d.Buckets.Each(func(key int32, n uint64) {
		b := uint32(key - 1)
		switch {
		case key == 0 && n <= 1<<31:
			c.zeros += uint32(n)
		case key <= lowest || b-c.base >= c.n && !p.grow(c, b):
			p.outside(c, key, n)
		default:
			q := &p.counters(c)[b-c.base]
			sum := uint64(*q) + n
			*q = uint8(sum)
			for sum /= carried; sum > 0; sum-- {
				if sum > 1<<10 { // a count of some 100,000 in one bucket
					p.outside(c, key, sum*carried)
					break
				}
				p.carry(c, b-c.base)
			}
		}
	})
}
