package aggregate

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/sketch"
)

// Options bound an aggregator. Zero values mean the defaults.
type Options struct {
	Series       int           // budget of series; 100,000
	Idle         time.Duration // after which a series is forgotten; an hour, below 0 never
	Pane         time.Duration // the shortest window; 10 s
	Lateness     time.Duration // how late a sample may come, less than Pane; 8 s: agents send every 5 s
	HistoryBytes int           // memory of closed panes; 64 MiB
	Shards       int           // as many as processors, at most 32
	Survivor     *Survivor     // where the count of accepted samples is kept; on the heap
}

func (o Options) withDefaults() Options {
	if o.Series == 0 {
		o.Series = 100_000
	}
	if o.Pane == 0 {
		o.Pane = 10 * time.Second
	}
	if o.Lateness == 0 {
		o.Lateness = 8 * time.Second
	}
	o.Lateness = min(o.Lateness, o.Pane)
	if o.Idle == 0 {
		o.Idle = time.Hour
	}
	if o.Idle > 0 {
		o.Idle = max(o.Idle, 2*openPanes*o.Pane) // a series with samples in open panes is not idle
	}
	if o.HistoryBytes == 0 {
		o.HistoryBytes = 64 << 20
	}
	if o.Shards == 0 {
		o.Shards = runtime.GOMAXPROCS(0)
	}
	o.Shards = min(o.Shards, maxShards)
	if o.Survivor == nil {
		o.Survivor = new(Survivor)
	}
	return o
}

// total is what a series has counted in all closed panes since the first start.
type total struct {
	count uint64
	sum   float64
	last  float64
	at    int64
}

// Aggregator aggregates. Its methods may be called from any goroutine.
type Aggregator struct {
	options  Options
	pane     int64 // milliseconds
	registry *registry
	shards   []*shard
	next     atomic.Uint32 // which shard the next writer prefers
	open     atomic.Int64  // the oldest open pane
	ahead    atomic.Int64  // the newest pane that takes samples

	sources  []*Source
	vecs     atomic.Uint32
	brought  [maxSources]account // of processes before this one
	survivor *Survivor

	closing     sync.Mutex // one closes panes at a time
	closingPane atomic.Pointer[closingPane]
	mu          sync.RWMutex
	frames      []*frame         // closed panes, oldest first
	held        map[int64]*frame // what a former process had in panes that are still open
	memory      int              // bytes of frames
	totals      []total          // by series
	forgotten   Forgotten
	forgetNext  time.Time     // closing's
	given       atomic.Uint64 // closed panes given up for memory
	folded      atomic.Uint64 // values counted in a bucket that is not theirs
}

// New makes an aggregator for the given sources.
func New(o Options, sources ...*Source) (*Aggregator, error) {
	o = o.withDefaults()
	if 2*o.Series+overflowNames >= mostSlots {
		return nil, fmt.Errorf("a budget of %d series, at most %d", o.Series, (mostSlots-overflowNames)/2-1)
	}
	if len(sources) > maxSources {
		return nil, fmt.Errorf("%d sources, at most %d", len(sources), maxSources)
	}
	a := &Aggregator{options: o, pane: o.Pane.Milliseconds(), registry: newRegistry(o.Series), sources: sources, survivor: o.Survivor, held: map[int64]*frame{}}
	for i, s := range sources {
		s.number = i
	}
	a.survivor.rows, a.survivor.Valid = [1 + maxShards][maxSources]uint64{}, 1
	for i := range o.Shards {
		// Twice as many spellings as series: the same labels in another order, or from another format.
		s, err := newShard(a.registry.capacity(), 2*o.Series, &a.survivor.rows[1+i])
		if err != nil {
			a.Close()
			return nil, err
		}
		a.shards = append(a.shards, s)
	}
	now := time.Now().UnixMilli()
	a.open.Store(floor(now-o.Lateness.Milliseconds(), a.pane))
	a.ahead.Store(floor(now, a.pane) + 1)
	return a, nil
}

func floor(x, y int64) int64 {
	if x < 0 {
		return -((-x + y - 1) / y)
	}
	return x / y
}

// Close gives the memory back. Nothing may be called afterwards.
func (a *Aggregator) Close() {
	for _, s := range a.shards {
		for _, p := range append(s.spare, s.panes[:]...) {
			if p != nil {
				p.mem.Close()
			}
		}
		s.mem.Close()
	}
	a.shards = nil
}

// Series is the number of series, those that hold what the budget does not included.
func (a *Aggregator) Series() int {
	a.registry.mu.RLock()
	defer a.registry.mu.RUnlock()
	return int(a.registry.top.Load()) - len(a.registry.free)
}

// Know makes a series exist before it has a sample, so that it is answered as 0 and not missing; it is never forgotten.
func (a *Aggregator) Know(id Identity) {
	id.Sort()
	n, _ := a.registry.resolve(id)
	a.registry.pin(n)
}

// acquire takes the writer's shard, or any that is free. Who has to wait waits for the preferred one.
func (a *Aggregator) acquire(prefer uint32) *shard {
	n := uint32(len(a.shards))
	for i := range n {
		if s := a.shards[(prefer+i)%n]; s.mu.TryLock() {
			return s
		}
	}
	s := a.shards[prefer%n]
	s.mu.Lock()
	return s
}

// place finds the pane for a time in milliseconds. The shard is locked. A nil pane comes with the reason.
func (a *Aggregator) place(s *shard, at int64, clamp bool) (p *pane, lo, hi int64, why Reason) {
	i := floor(at, a.pane)
	open, ahead := a.open.Load(), a.ahead.Load()
	if i < open {
		if !clamp {
			return nil, math.MinInt64, open * a.pane, ReasonLate
		}
		i = open
	}
	if i > ahead {
		return nil, (ahead + 1) * a.pane, math.MaxInt64, ReasonFuture
	}
	slot := &s.panes[uint64(i)%openPanes]
	if *slot == nil || (*slot).index != i {
		*slot = a.fresh(s, i)
	}
	lo, hi = i*a.pane, (i+1)*a.pane
	if i == open && clamp {
		lo = math.MinInt64
	}
	return *slot, lo, hi, 0
}

// fresh makes a pane, or takes a used one that has been cleared.
func (a *Aggregator) fresh(s *shard, index int64) *pane {
	var p *pane
	if n := len(s.spare); n > 0 {
		p, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		var err error
		if p, err = newPane(s.shapes); err != nil {
			panic(err) // addresses ran out: nothing can go on
		}
	}
	p.index, p.start = index, index*a.pane
	return p
}

// offset is a time within a pane, for cells: a millisecond is 1.
func offset(p *pane, at, length int64) uint32 {
	return uint32(min(max(at-p.start, 0), length-1)) + 1
}

// Advance moves the watermark to the clock and closes the panes that it has passed. It is called every second or so; what
// it does not find done it does, so more callers do no harm.
func (a *Aggregator) Advance() {
	a.closing.Lock()
	defer a.closing.Unlock()
	now := time.Now().UnixMilli()
	until := floor(now-a.options.Lateness.Milliseconds(), a.pane)
	for i := a.open.Load(); i < until; i++ {
		if i+openPanes < until && !a.any(i) {
			// After a long sleep most panes are empty; frames that say nothing are not kept anyhow.
			a.open.Store(i + 1)
			continue
		}
		a.closePane(i)
	}
	if ahead := floor(now, a.pane) + 1; ahead > a.ahead.Load() {
		a.ahead.Store(min(ahead, a.open.Load()+openPanes-2))
	}
	a.forgetIdle(time.UnixMilli(now))
}

// keepUp advances when a time is ahead of all panes: after the process was stopped for a while, the clock has moved on and
// nothing else has.
func (a *Aggregator) keepUp(at int64) {
	if at >= (a.ahead.Load()+1)*a.pane {
		a.Advance()
	}
}

// any says whether a pane has something.
func (a *Aggregator) any(i int64) bool {
	for _, s := range a.shards {
		s.mu.Lock()
		p := s.panes[uint64(i)%openPanes]
		s.mu.Unlock()
		if p != nil && p.index == i {
			return true
		}
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.held[i] != nil
}

// closePane packs a pane. Writers are disturbed only for the moment in which it is taken out of their shard: from then on no
// one else knows it, and it is read and cleared without a lock.
func (a *Aggregator) closePane(i int64) {
	// Between the two, a pane is in nobody's hands; readers wait.
	a.mu.Lock()
	a.open.Store(i + 1)
	var parts []*pane
	var owners []*shard
	for _, s := range a.shards {
		s.mu.Lock()
		if p := s.panes[uint64(i)%openPanes]; p != nil && p.index == i {
			s.panes[uint64(i)%openPanes] = nil
			parts, owners = append(parts, p), append(owners, s)
		}
		s.mu.Unlock()
	}
	held := a.held[i]
	delete(a.held, i)
	if len(parts) == 0 && held == nil {
		a.mu.Unlock()
		return
	}
	// A place is kept, so that who reads meanwhile finds the panes themselves.
	closing := &closingPane{index: i, parts: parts, held: held}
	a.closingPane.Store(closing)
	a.mu.Unlock()

	f := &frame{pane: i}
	var st Stat
	var scratch sketch.Sketch
	top := uint32(0)
	for _, p := range parts {
		top = max(top, p.top)
	}
	if held != nil && len(held.series) > 0 {
		top = max(top, held.series[len(held.series)-1]+1)
	}
	adds := make([]total, top)
	for series := range top {
		st.Reset()
		closing.addTo(&st, series, &scratch)
		if st.Count > 0 {
			f.put(series, &st)
			adds[series] = total{st.Count, st.Sum, st.Last, st.at}
		}
	}
	// Grown by doubling, they would keep twice what they need for as long as they live.
	*f = frame{f.pane, append([]uint32(nil), f.series...), append([]uint32(nil), f.ends...), append([]byte(nil), f.data...)}

	a.mu.Lock()
	a.push(f)
	for len(a.totals) < len(adds) {
		a.totals = append(a.totals, total{})
	}
	for series, t := range adds {
		a.totals[series].add(t)
	}
	a.closingPane.Store(nil)
	a.mu.Unlock()
	for j, p := range parts {
		a.folded.Add(p.collapsed)
		p.clear()
		s := owners[j]
		s.mu.Lock()
		s.spare = append(s.spare, p)
		s.mu.Unlock()
	}
}

func (t *total) add(o total) {
	if o.count == 0 {
		return
	}
	t.count += o.count
	t.sum += o.sum
	if o.at >= t.at {
		t.last, t.at = o.last, o.at
	}
}

// push adds a frame, and gives up the oldest while there are too many bytes.
func (a *Aggregator) push(f *frame) {
	a.frames = append(a.frames, f)
	a.memory += f.bytes()
	for a.memory > a.options.HistoryBytes && len(a.frames) > 1 {
		a.memory -= a.frames[0].bytes()
		a.frames[0] = nil
		a.frames = a.frames[1:]
		a.given.Add(1)
	}
}

// closingPane is a pane that is no longer open and not yet a frame.
type closingPane struct {
	index int64
	parts []*pane
	held  *frame
}

func (c *closingPane) addTo(st *Stat, series uint32, scratch *sketch.Sketch) {
	for _, p := range c.parts {
		p.addTo(st, series)
	}
	if c.held != nil {
		c.held.addTo(st, series, scratch)
	}
}
