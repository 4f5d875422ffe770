package aggregate

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/sketch"
)

// Snapshot is what must be written so that another process can go on. Series and frames that were written before are left
// out: they do not change.
type Snapshot struct {
	Series []Identity       // numbered from FirstSeries
	First  int              // number of the first of Series
	Closed map[int64][]byte // closed panes
	Open   map[int64][]byte // open panes
	Oldest int64            // the oldest pane there is: what is older may be forgotten
	Totals []byte           // sums of closed panes
	Books  []byte
}

// Cursor is what a Snapshot has already said.
type Cursor struct {
	series int
	closed int64 // the newest closed pane that was said
	any    bool
}

// Snapshot reads the state after the cursor and returns the cursor for the next one. Writers go on meanwhile: samples that
// they bring are in it or not, one by one. A caller that needs its own samples to be in it does not write meanwhile.
func (a *Aggregator) Snapshot(c Cursor) (*Snapshot, Cursor) {
	a.closing.Lock() // no pane is between open and closed
	defer a.closing.Unlock()
	books := a.Ledger()
	s := &Snapshot{First: c.series, Closed: map[int64][]byte{}, Open: map[int64][]byte{}, Oldest: a.open.Load()}
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
		all := uint32(a.Series())
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
	s.Series = a.registry.all()[c.series:]
	c.series += len(s.Series)
	s.Books, _ = json.Marshal(books) // numbers and names: cannot fail
	return s, c
}

// Restore makes an empty aggregator go on where snapshots ended. series are all series in the order of their numbers, closed
// all panes in theirs. survived is what the former process left in memory, nil where there is nothing.
func (a *Aggregator) Restore(series []Identity, closed, open [][]byte, totals, books []byte, survived *Survivor) (Cursor, error) {
	c, err := a.restore(series, closed, open, totals, books, survived)
	if err == nil {
		a.Advance()
	}
	return c, err
}

func (a *Aggregator) restore(series []Identity, closed, open [][]byte, totals, books []byte, survived *Survivor) (Cursor, error) {
	var c Cursor
	a.registry.mu.Lock()
	for _, id := range series[min(1, len(series)):] { // the first one is there: the overflow series
		if len(a.registry.list) >= a.registry.capacity() {
			break // the budget was lowered
		}
		n := a.registry.add(id)
		if len(id.Labels) == 1 && id.Labels[0].Name == OverflowLabel {
			a.registry.overflow[id.Name] = n
		}
	}
	known := len(a.registry.list)
	a.registry.mu.Unlock()
	if known < len(series) {
		return c, fmt.Errorf("restore: %d series, the budget is %d", len(series), a.options.Series)
	}
	c.series = len(series)
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
	counted := uint64(0)
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
