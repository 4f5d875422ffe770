package wire

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/sketch"
)

// bucket is a part of a histogram: so many values that one stands for.
type bucket struct {
	place
	value float64
	count uint64
}

// place tells the buckets of a histogram apart.
type place struct {
	sign  int8
	index int64
}

// mostCount bounds what a bucket can say: ten million a second for a day.
const mostCount = 1 << 40

// histogramPoint is a point of a histogram or an exponential histogram.
type histogramPoint struct {
	start, nanos uint64
	count        uint64
	scale        int64
	sum          float64
	low, high    float64 // NaN where they are not said
	buckets      []bucket
	bounds       []float64
	counts       []uint64
	made         aggregate.Distribution
}

// mostBuckets bounds a point; SDKs send up to 160.
const mostBuckets = 1 << 14

func (p *histogramPoint) reset() {
	*p = histogramPoint{low: math.NaN(), high: math.NaN(), buckets: p.buckets[:0], bounds: p.bounds[:0], counts: p.counts[:0], made: p.made}
}

// common reads the fields that both kinds of point number alike.
func (p *histogramPoint) common(num uint64, typ byte, v uint64) {
	switch {
	case typ != wire64:
	case num == 2:
		p.start = v
	case num == 3:
		p.nanos = v
	case num == 4:
		p.count = v
	case num == 5:
		p.sum = math.Float64frombits(v)
	}
}

// readExplicit reads a HistogramDataPoint. The values of a bucket are taken to be in its middle; those of the first and the last
// at the bound, or between it and the extreme where that is said.
func (p *histogramPoint) readExplicit(b []byte) error {
	err := fields(b, func(num uint64, typ byte, v uint64, data []byte) error {
		switch {
		case num == 6: // bucket_counts, packed or not
			p.counts = fixed(p.counts, typ, v, data)
		case num == 7:
			n := len(p.counts)
			p.counts = fixed(p.counts, typ, v, data)
			for _, x := range p.counts[n:] {
				p.bounds = append(p.bounds, math.Float64frombits(x))
			}
			p.counts = p.counts[:n]
		case num == 11 && typ == wire64:
			p.low = math.Float64frombits(v)
		case num == 12 && typ == wire64:
			p.high = math.Float64frombits(v)
		default:
			p.common(num, typ, v)
		}
		return nil
	})
	if err != nil || len(p.counts) > mostBuckets || len(p.counts) > 0 && len(p.counts) != len(p.bounds)+1 {
		return ErrMalformed
	}
	if !slices.IsSorted(p.bounds) {
		return ErrMalformed
	}
	for i, n := range p.counts {
		var v float64
		switch last := len(p.bounds); {
		case last == 0:
			v = p.sum / float64(max(p.count, 1))
		case i == 0:
			v = p.between(p.low, p.bounds[0])
		case i == last:
			v = p.between(p.high, p.bounds[last-1])
		default:
			v = (p.bounds[i-1] + p.bounds[i]) / 2
		}
		p.buckets = append(p.buckets, bucket{place{1, int64(i)}, v, n})
	}
	if len(p.counts) == 0 && p.count > 0 { // a histogram without buckets: count and sum
		p.buckets = append(p.buckets, bucket{place{}, p.sum / float64(p.count), p.count})
	}
	return nil
}

// between is the middle of an extreme and a bound, or the bound where the extreme is not said.
func (p *histogramPoint) between(extreme, bound float64) float64 {
	if math.IsNaN(extreme) {
		return bound
	}
	return (extreme + bound) / 2
}

// fixed appends 64-bit numbers, one or packed.
func fixed(to []uint64, typ byte, v uint64, data []byte) []uint64 {
	if typ == wire64 {
		return append(to, v)
	}
	for ; typ == wireBytes && len(data) >= 8; data = data[8:] {
		to = append(to, binary.LittleEndian.Uint64(data))
	}
	return to
}

// readExponential reads an ExponentialHistogramDataPoint. The values of a bucket are taken to be in its geometric middle.
func (p *histogramPoint) readExponential(b []byte) error {
	var positive, negative []byte
	err := fields(b, func(num uint64, typ byte, v uint64, data []byte) error {
		switch {
		case num == 6 && typ == wireVarint:
			p.scale = zigzag(v)
		case num == 7 && typ == wire64:
			p.buckets = append(p.buckets, bucket{place{}, 0, v})
		case num == 8 && typ == wireBytes:
			positive = data
		case num == 9 && typ == wireBytes:
			negative = data
		case num == 12 && typ == wire64:
			p.low = math.Float64frombits(v)
		case num == 13 && typ == wire64:
			p.high = math.Float64frombits(v)
		default:
			p.common(num, typ, v)
		}
		return nil
	})
	if err != nil || p.scale < -10 || p.scale > 20 {
		return ErrMalformed
	}
	if err := p.side(positive, 1); err != nil {
		return err
	}
	return p.side(negative, -1)
}

// side reads the Buckets of one sign.
func (p *histogramPoint) side(b []byte, sign int8) error {
	offset := int64(0)
	p.counts = p.counts[:0]
	err := fields(b, func(num uint64, typ byte, v uint64, data []byte) error {
		switch {
		case num == 1 && typ == wireVarint:
			offset = zigzag(v)
		case num == 2 && typ == wireVarint:
			p.counts = append(p.counts, v)
		case num == 2 && typ == wireBytes:
			for len(data) > 0 {
				n, k := uvarint(data)
				if k <= 0 {
					return ErrMalformed
				}
				p.counts, data = append(p.counts, n), data[k:]
			}
		}
		return nil
	})
	if err != nil || len(p.counts) > mostBuckets {
		return ErrMalformed
	}
	for i, n := range p.counts {
		// The logarithm of the middle, in powers of two.
		at := (float64(offset+int64(i)) + 0.5) * math.Exp2(-float64(p.scale))
		p.buckets = append(p.buckets, bucket{place{sign, offset + int64(i)}, float64(sign) * math.Exp2(at), n})
	}
	return nil
}

func zigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// distribution is what the point counts. Where buckets and count disagree, buckets are believed: quantiles come from them.
func (p *histogramPoint) distribution() *aggregate.Distribution {
	d := &p.made
	d.Buckets.Reset()
	d.Count, d.Sum, d.Min, d.Max = 0, p.sum, math.Inf(1), math.Inf(-1)
	slices.SortFunc(p.buckets, func(a, b bucket) int { return cmp.Compare(a.value, b.value) })
	for _, b := range p.buckets {
		if b.count == 0 {
			continue
		}
		b.count = min(b.count, mostCount)
		if b.value-b.value != 0 {
			d.Sum = math.NaN() // books the point as not finite
			b.value = 0
		}
		d.Count += b.count
		d.Min, d.Max = min(d.Min, b.value), max(d.Max, b.value)
		d.Buckets.Add(sketch.Key(b.value), b.count)
	}
	if d.Count > 0 && !math.IsNaN(p.low) {
		d.Min = p.low
	}
	if d.Count > 0 && !math.IsNaN(p.high) {
		d.Max = p.high
	}
	return d
}

// Former keeps, of each cumulative histogram, the point that was read last.
type Former struct {
	began  uint64 // nanoseconds
	mu     sync.Mutex
	points map[string]*formerPoint
	swept  time.Time
}

type formerPoint struct {
	start   uint64
	scale   int64
	sum     float64
	buckets []bucket
	at      time.Time
}

const (
	// mostFormer bounds the histograms that are remembered; one that is not begins again with its next point.
	mostFormer = 1 << 16
	// formerIdle is how long one without points is remembered.
	formerIdle = time.Hour
)

// NewFormer makes a memory of points.
func NewFormer() *Former {
	return &Former{began: uint64(time.Now().UnixNano()), points: map[string]*formerPoint{}}
}

// subtract leaves in p what came since the point before. The first point of a histogram counts as a whole, unless it began before
// this process and its series is known: then a process before has read its past, and the point says where to go on.
func (f *Former) subtract(key, attributes []byte, p *histogramPoint, known func() bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	name := string(key) + "\x00" + string(attributes)
	was := f.points[name]
	next := &formerPoint{p.start, p.scale, p.sum, slices.Clone(p.buckets), now}
	p.low, p.high = math.NaN(), math.NaN() // they are those of all time
	if was == nil {
		if len(f.points) >= mostFormer {
			f.sweep(now)
		}
		if p.start < f.began && known() {
			p.buckets = p.buckets[:0]
		}
		if len(f.points) < mostFormer {
			f.points[name] = next
		}
		return
	}
	f.points[name] = next
	if was.start != p.start || was.scale < p.scale { // it began again
		return
	}
	less := make(map[place]uint64, len(was.buckets))
	for _, b := range was.buckets {
		b.index >>= was.scale - p.scale // buckets that are wider now hold several of those before
		less[b.place] += b.count
	}
	for i, b := range p.buckets {
		p.buckets[i].count -= min(less[b.place], b.count)
	}
	p.sum -= was.sum
}

// sweep forgets histograms without points, at most once a minute.
func (f *Former) sweep(now time.Time) {
	if now.Sub(f.swept) < time.Minute {
		return
	}
	f.swept = now
	for name, p := range f.points {
		if now.Sub(p.at) > formerIdle {
			delete(f.points, name)
		}
	}
}
