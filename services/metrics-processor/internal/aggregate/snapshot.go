package aggregate

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/sketch"
)

// Numbered is a series and its number in panes from Born on.
type Numbered struct {
	Identity
	Number uint32
	Born   int64
}

// Snapshot is what must be written so that another process can go on. Series and frames that were written before are left
// out: they do not change.
type Snapshot struct {
	Series    []Numbered       // those that are new
	Gone      []uint32         // numbers that stand for nothing any more
	Closed    map[int64][]byte // closed panes
	Open      map[int64][]byte // open panes
	Oldest    int64            // the oldest pane there is: what is older may be forgotten
	Totals    []byte           // sums of closed panes
	Books     []byte
	Forgotten Forgotten
}

// Cursor is what a Snapshot has already said.
type Cursor struct {
	series uint64 // the registry's changes
	closed int64  // the newest closed pane that was said
	any    bool
}

// Snapshot reads the state after the cursor and returns the cursor for the next one. Writers go on meanwhile: samples that
// they bring are in it or not, one by one. A caller that needs its own samples to be in it does not write meanwhile.
func (a *Aggregator) Snapshot(c Cursor) (*Snapshot, Cursor) {
	a.closing.Lock() // no pane is between open and closed
	defer a.closing.Unlock()
	books := a.Ledger()
	s := &Snapshot{Forgotten: a.forgotten, Closed: map[int64][]byte{}, Open: map[int64][]byte{}, Oldest: a.open.Load()}
	a.mu.RLock()
	for _, f := range a.frames {
		s.Oldest = min(s.Oldest, f.pane)
		if !c.any || f.pane > c.closed {
			s.Closed[f.pane] = f.marshal()
			c.closed, c.any = f.pane, true
		}
	}
	for _, t := range a.totals {
		s.Totals = binary.AppendUvarint(s.Totals, t.count)
		s.Totals = binary.LittleEndian.AppendUint64(s.Totals, math.Float64bits(t.sum))
		s.Totals = binary.LittleEndian.AppendUint64(s.Totals, math.Float64bits(t.last))
		s.Totals = binary.AppendVarint(s.Totals, t.at)
	}
	a.mu.RUnlock()
	stats := make([]Stat, chunk)
	ids := make([]uint32, 0, chunk)
	var scratch sketch.Sketch
	for i := a.open.Load(); i <= a.ahead.Load(); i++ {
		f := &frame{pane: i}
		all := a.registry.top.Load()
		for low := uint32(0); low < all; low += chunk {
			ids = ids[:0]
			for j := low; j < min(low+chunk, all); j++ {
				ids = append(ids, j)
				stats[j-low].Reset()
			}
			a.mu.RLock()
			a.gatherOpen(ids, i, i, stats, &scratch)
			a.mu.RUnlock()
			for j, series := range ids {
				if stats[j].Count > 0 {
					f.put(series, &stats[j])
				}
			}
		}
		if len(f.series) > 0 {
			s.Open[i] = f.marshal()
		}
	}
	// Last, so that every number in a frame has its series.
	s.Series, s.Gone, c.series = a.registry.since(c.series)
	s.Books, _ = json.Marshal(books) // numbers and names: cannot fail
	return s, c
}

// since lists what has changed after so many changes, and how many there are now.
func (g *registry) since(at uint64) (series []Numbered, gone []uint32, now uint64) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for n := range g.top.Load() {
		if g.changed[n] <= at {
			continue
		}
		if e := g.list[n].Load(); e != nil {
			series = append(series, Numbered{e.Identity, n, e.born})
		} else {
			gone = append(gone, n)
		}
	}
	return series, gone, g.changes
}

// Restore makes an empty aggregator go on where snapshots ended: series are all that there are and closed all closed panes,
// each in the order of their numbers. survived is what the former process left in memory, nil where there is nothing.
func (a *Aggregator) Restore(series []Numbered, closed, open [][]byte, totals, books []byte, forgotten Forgotten, survived *Survivor) (Cursor, error) {
	c, err := a.restore(series, closed, open, totals, books, forgotten, survived)
	if err == nil {
		a.Advance()
	}
	return c, err
}

func (a *Aggregator) restore(series []Numbered, closed, open [][]byte, totals, books []byte, forgotten Forgotten, survived *Survivor) (Cursor, error) {
	var c Cursor
	if err := a.registry.restore(series); err != nil {
		return c, err
	}
	c.series = a.registry.changes
	known := a.registry.capacity() // panes hold series that are forgotten, too
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range closed {
		f, err := unmarshalFrame(b, known)
		if err != nil {
			return c, fmt.Errorf("restore closed pane: %w", err)
		}
		if n := len(a.frames); n > 0 && a.frames[n-1].pane >= f.pane {
			return c, fmt.Errorf("restore closed pane %d: out of order", f.pane)
		}
		a.push(f)
		c.closed, c.any = f.pane, true
	}
	for len(totals) > 0 {
		count, k := binary.Uvarint(totals)
		if k <= 0 || len(totals) < k+16 {
			return c, fmt.Errorf("restore sums: %w", sketch.ErrCorrupt)
		}
		totals = totals[k:]
		t := total{count: count, sum: math.Float64frombits(binary.LittleEndian.Uint64(totals)), last: math.Float64frombits(binary.LittleEndian.Uint64(totals[8:]))}
		at, k := binary.Varint(totals[16:])
		if k <= 0 || len(a.totals) >= known {
			return c, fmt.Errorf("restore sums: %w", sketch.ErrCorrupt)
		}
		t.at = at
		a.totals, totals = append(a.totals, t), totals[16+k:]
	}
	for _, b := range open {
		f, err := unmarshalFrame(b, known)
		if err != nil {
			return c, fmt.Errorf("restore open pane: %w", err)
		}
		a.held[f.pane] = f
		a.open.Store(min(a.open.Load(), f.pane)) // closed by the next Advance, if it is time
	}
	// Whatever a number stood for lies in panes before these.
	a.registry.fresh = a.open.Load()
	for i := range a.registry.free {
		a.registry.free[i].from = a.registry.fresh
	}
	a.forgotten = forgotten
	counted := forgotten.Samples
	for _, t := range a.totals {
		counted += t.count
	}
	for _, f := range a.held {
		for i := range f.series {
			n, _ := binary.Uvarint(f.part(i))
			counted += n
		}
	}
	var saved []Account
	if len(books) > 0 {
		if err := json.Unmarshal(books, &saved); err != nil {
			return c, fmt.Errorf("restore ledger: %w", err)
		}
	}
	a.resume(saved, survived, counted)
	return c, nil
}

// restore gives series their numbers.
func (g *registry) restore(series []Numbered) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now().UnixMilli()
	for _, s := range series {
		if int(s.Number) >= g.capacity() {
			return fmt.Errorf("restore: a series has number %d, the budget is %d", s.Number, g.limit)
		}
		if s.Number == overflowSeries {
			continue // is there
		}
		for n := g.top.Load(); n < s.Number; n++ {
			g.free = append(g.free, vacancy{number: n})
		}
		e := &entry{Identity: s.Identity, born: s.Born, made: now}
		if len(s.Labels) == 1 && s.Labels[0].Name == OverflowLabel {
			e.pinned = true
			g.overflow[s.Name] = s.Number
		}
		g.put(s.Number, e)
	}
	return nil
}
