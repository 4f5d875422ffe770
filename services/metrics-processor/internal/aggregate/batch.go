package aggregate

import (
	"math"
	"time"
	"unsafe"
)

// hold is how many samples a writer brings into a shard before it lets another have it.
const hold = 4 * block

// Format is how messages of one kind name a series: by one or two pieces of their bytes.
type Format interface {
	// Identity decodes the pieces. It is asked once for each spelling. What it returns may point into them.
	Identity(x, y []byte) (Identity, error)
}

// Formats tell keys of different formats apart; 0 is a Vec's.
type formatNumber = uint8

// Batch brings samples of one source and format into the aggregator. It is one goroutine's; the bytes that were added must
// stay as they are until Flush.
type Batch struct {
	a      *Aggregator
	source *Source
	format Format
	number formatNumber
	prefer uint32
	// first has it take the first shard and no other: within a shard, of two samples of one millisecond the later is the last.
	first  bool
	n      int
	x, y   [hold][]byte
	value  [hold]float64
	at     [hold]int64
	hash   [hold]uint64
	clock  int64
	counts [reasons]uint64
}

// NewBatch makes a batch. The number must be the format's own, from 1.
func (a *Aggregator) NewBatch(source *Source, format Format, number uint8) *Batch {
	return &Batch{a: a, source: source, format: format, number: number, prefer: a.next.Add(1)}
}

// NewOrderedBatch makes a batch whose samples, and those of all its like, are in the order in which they come.
func (a *Aggregator) NewOrderedBatch(source *Source, format Format, number uint8) *Batch {
	b := a.NewBatch(source, format, number)
	b.first = true
	return b
}

func (b *Batch) acquire() *shard {
	if b.first {
		b.a.shards[0].mu.Lock()
		return b.a.shards[0]
	}
	return b.a.acquire(b.prefer)
}

// Now is the time for samples that have none, in milliseconds. It stands still until Tick.
func (b *Batch) Now() int64 { return b.clock }

// Tick reads the clock.
func (b *Batch) Tick() { b.clock = time.Now().UnixMilli() }

// Add adds a sample at a time in milliseconds since 1970.
func (b *Batch) Add(x, y []byte, v float64, at int64) {
	i := b.n
	b.x[i], b.y[i], b.value[i], b.at[i] = x, y, v, at
	if b.n++; b.n == hold {
		b.Flush()
	}
}

// Dropped is how many samples of this batch were dropped since it was last asked.
func (b *Batch) Dropped() (byReason [len(Reasons)]uint64) {
	byReason, b.counts = b.counts, [reasons]uint64{}
	return byReason
}

func hashPair(number uint8, x, y []byte) uint64 {
	h := hashBytes(seeds[0]^uint64(number), unsafe.Pointer(unsafe.SliceData(x)), len(x))
	return fold(hashBytes(h, unsafe.Pointer(unsafe.SliceData(y)), len(y)), seeds[1])
}

// Flush brings in what was added.
func (b *Batch) Flush() {
	n := b.n
	if n == 0 {
		return
	}
	b.n = 0
	for i := range n { // needs no shard
		b.hash[i] = hashPair(b.number, b.x[i], b.y[i])
	}
	a := b.a
	a.keepUp(b.at[n-1])
	s := b.acquire()
	book := &s.books[b.source.number]
	s.took[b.source.number] += uint64(n)
	var p *pane
	var why Reason
	lo, hi := int64(1), int64(0)
	for from := 0; from < n; {
		if at := b.at[from]; at < lo || at >= hi {
			p, lo, hi, why = a.place(s, at, b.source.Clamp)
		}
		to := from + 1
		for to < n && to-from < block && b.at[to] >= lo && b.at[to] < hi {
			to++
		}
		if p == nil {
			book.dropped[why] += uint64(to - from)
			b.counts[why] += uint64(to - from)
		} else {
			book.aggregated += uint64(b.into(s, book, p, from, to))
		}
		from = to
	}
	s.mu.Unlock()
}

// into records up to a block of samples of one pane.
func (b *Batch) into(s *shard, book *account, p *pane, from, to int) int {
	var w walk
	xs, ys, hs, vs, at := b.x[from:to], b.y[from:to], b.hash[from:to], b.value[from:to], b.at[from:to]
	w.find(s, hs)
	w.reach(s, p, len(hs))
	w.reachLong(s, len(hs))
	for i := range hs {
		x, y := xs[i], ys[i]
		k := &s.keys[w.slots[i].key()]
		if k.head == head(len(x)+len(y), b.number, len(x)) {
			q := k.at(s.mem)
			if different(q, unsafe.Pointer(unsafe.SliceData(x)), len(x))|
				different(unsafe.Add(q, len(x)), unsafe.Pointer(unsafe.SliceData(y)), len(y)) == 0 {
				continue
			}
		}
		series, why, ok := b.resolve(s, hs[i], x, y)
		if !ok {
			book.dropped[why]++
			b.counts[why]++
			w.cells[i] = nil
			continue
		}
		w.cells[i] = p.cell(series)
	}
	w.count(p, vs)
	done := 0
	for i, v := range vs {
		c := w.cells[i]
		if c == nil {
			continue
		}
		if v-v != 0 { // NaN or infinite
			book.dropped[ReasonNotFinite]++
			b.counts[ReasonNotFinite]++
			continue
		}
		p.record(c, v, offset(p, at[i], b.a.pane))
		done++
	}
	s.read = w.read
	return done
}

// resolve finds a series the long way: perhaps another key has the same tag, perhaps it was never seen.
func (b *Batch) resolve(s *shard, h uint64, x, y []byte) (series uint32, why Reason, ok bool) {
	n := len(x) + len(y)
	if n > longest {
		return 0, ReasonTooLong, false
	}
	hd := head(n, b.number, len(x))
	series, at, known := s.find(h, hd, unsafe.Pointer(unsafe.SliceData(x)), unsafe.Pointer(unsafe.SliceData(y)), len(x), len(y))
	if known {
		return series, 0, true
	}
	id, err := b.format.Identity(x, y)
	if err != nil || id.Name == "" {
		return 0, ReasonMalformed, false
	}
	id.Sort()
	series, overflow := b.a.registry.resolve(id)
	if !overflow { // a flood of new names must not push out the keys of known ones
		s.keep(at, h, hd, series, x, y)
	}
	return series, 0, true
}

// Vec is a family of series in this process: one name, a value for each of its labels.
type Vec struct {
	a      *Aggregator
	source *Source
	name   string
	labels []string
	kind   Kind
	number uint32
	seed   uint64
}

// mostLabels bounds the labels of a Vec: the lengths of their values stand in a key's 56 bytes.
const mostLabels = 32

// NewVec makes a family. It panics when there are more than 32 labels.
func (a *Aggregator) NewVec(source *Source, kind Kind, name string, labels ...string) *Vec {
	if len(labels) > mostLabels {
		panic("aggregate: too many labels")
	}
	n := a.vecs.Add(1)
	return &Vec{a: a, source: source, name: name, labels: labels, kind: kind, number: n, seed: seeds[0] ^ uint64(n)<<8}
}

// Writer records into a family. It is one goroutine's.
type Writer struct {
	v      *Vec
	prefer uint32
	long   []byte
}

// Writer makes a writer.
func (v *Vec) Writer() *Writer { return &Writer{v: v, prefer: v.a.next.Add(1)} }

// Record adds a sample for each value. rows holds the label values of all samples, one after another. All samples have one
// time, in milliseconds since 1970.
func (w *Writer) Record(at int64, rows []string, values []float64) {
	k := len(w.v.labels)
	for len(values) > 0 {
		n := min(len(values), hold)
		w.record(at, rows[:n*k], values[:n])
		rows, values = rows[n*k:], values[n:]
	}
}

func (w *Writer) record(at int64, rows []string, values []float64) {
	a, v := w.v.a, w.v
	a.keepUp(at)
	s := a.acquire(w.prefer)
	book := &s.books[v.source.number]
	s.took[v.source.number] += uint64(len(values))
	p, _, _, why := a.place(s, at, v.source.Clamp)
	if p == nil {
		book.dropped[why] += uint64(len(values))
	} else {
		k := len(v.labels)
		off := offset(p, at, a.pane)
		for len(values) > 0 {
			n := min(len(values), block)
			book.aggregated += uint64(w.into(s, book, p, off, rows[:n*k], values[:n]))
			rows, values = rows[n*k:], values[n:]
		}
	}
	s.mu.Unlock()
}

func (v *Vec) hash(row []string) uint64 {
	h, g := v.seed, seeds[2]
	for i := 0; i < len(row); i += 2 {
		h = hashBytes(h, unsafe.Pointer(unsafe.StringData(row[i])), len(row[i]))
		if i+1 < len(row) {
			g = hashBytes(g, unsafe.Pointer(unsafe.StringData(row[i+1])), len(row[i+1]))
		}
	}
	return fold(h^seeds[0], g^seeds[1])
}

// is says whether the key is the row: a byte for the length of each value, then the values.
func (k *key) is(row []string, number uint32) bool {
	n, p := len(row), unsafe.Pointer(&k.bytes)
	for i, v := range row {
		if len(v) != int(*(*byte)(unsafe.Add(p, i))) {
			return false
		}
		n += len(v)
	}
	if k.head != head(n, 0, int(number)) || n > len(k.bytes) {
		return false
	}
	p = unsafe.Add(p, len(row))
	var d uint64
	for _, v := range row {
		d |= different(p, unsafe.Pointer(unsafe.StringData(v)), len(v))
		p = unsafe.Add(p, len(v))
	}
	return d == 0
}

func (w *Writer) into(s *shard, book *account, p *pane, off uint32, rows []string, values []float64) int {
	var hs [block]uint64
	var walk walk
	v, k, n := w.v, len(w.v.labels), len(values)
	for i := range hs[:n] {
		hs[i] = v.hash(rows[i*k : i*k+k])
	}
	walk.find(s, hs[:n])
	walk.reach(s, p, n)
	for i, e := range walk.slots[:n] {
		row := rows[i*k : i*k+k]
		if !s.keys[e.key()].is(row, v.number) {
			walk.cells[i] = p.cell(w.resolve(s, hs[i], row))
		}
	}
	walk.count(p, values)
	done := n
	for i, x := range values {
		if x-x != 0 { // NaN or infinite
			book.dropped[ReasonNotFinite]++
			done--
			continue
		}
		p.record(walk.cells[i], x, off)
	}
	s.read = walk.read
	return done
}

// resolve finds a row the long way.
func (w *Writer) resolve(s *shard, h uint64, row []string) uint32 {
	v := w.v
	w.long = w.long[:0]
	short := true
	for _, x := range row {
		short = short && len(x) <= math.MaxUint8
		w.long = append(w.long, byte(len(x)))
	}
	for _, x := range row {
		w.long = append(w.long, x...)
	}
	short = short && len(w.long) <= len(key{}.bytes)
	hd := head(min(len(w.long), math.MaxUint16), 0, int(v.number))
	var at uint32
	if short {
		series, free, known := s.find(h, hd, unsafe.Pointer(unsafe.SliceData(w.long)), nil, len(w.long), 0)
		if known {
			return series
		}
		at = free
	}
	id := Identity{Name: v.name, Kind: v.kind, Labels: make([]Label, len(row))}
	for i, x := range row {
		id.Labels[i] = Label{v.labels[i], x}
	}
	id.Sort()
	series, overflow := v.a.registry.resolve(id)
	if short && !overflow {
		s.keep(at, h, hd, series, w.long)
	}
	return series
}
