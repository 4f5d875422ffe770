package aggregate

import (
	"slices"
	"time"
)

// Forgotten is what was given up of series that had been idle for Options.Idle: the ledger's aggregated samples are those of
// the series that there are, and these.
type Forgotten struct {
	Series  uint64 `json:"series"`
	Samples uint64 `json:"samples"`
}

// forgetAtOnce is how many series are forgotten under one lock: some 100 µs, which a writer may have to wait.
const forgetAtOnce = 32

// forgetIdle forgets series without a sample for longer than Options.Idle, so that those who come and go do not spend the
// budget for ever. a.closing is held: no pane is between open and closed.
func (a *Aggregator) forgetIdle(now time.Time) {
	if a.options.Idle < 0 || now.Before(a.forgetNext) {
		return
	}
	a.forgetNext = now.Add(a.options.Idle / 16)
	before := now.Add(-a.options.Idle).UnixMilli()
	var idle []uint32
	a.mu.RLock()
	for n := range a.registry.top.Load() {
		e := a.registry.list[n].Load()
		if e == nil || e.pinned {
			continue
		}
		last := e.made
		if int(n) < len(a.totals) {
			last = max(last, a.totals[n].at)
		}
		if last < before {
			idle = append(idle, n)
		}
	}
	a.mu.RUnlock()
	for some := range slices.Chunk(idle, forgetAtOnce) {
		a.forget(some)
	}
}

// forget forgets series, but for those that have a sample in an open pane after all.
func (a *Aggregator) forget(series []uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.shards {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	a.registry.mu.Lock()
	defer a.registry.mu.Unlock()
	from := a.open.Load()
	for _, n := range series {
		if a.inOpen(n) {
			continue
		}
		for _, s := range a.shards {
			s.drop(n)
		}
		a.registry.remove(n, from)
		a.forgotten.Series++
		if int(n) < len(a.totals) {
			a.forgotten.Samples += a.totals[n].count
			a.totals[n] = total{}
		}
	}
}

// inOpen says whether a series has a sample in an open pane. All locks are held.
func (a *Aggregator) inOpen(n uint32) bool {
	for _, s := range a.shards {
		for _, p := range s.panes {
			if p != nil && p.cell(n).count > 0 {
				return true
			}
		}
	}
	for _, f := range a.held {
		if _, ok := search(f.series, n); ok {
			return true
		}
	}
	return false
}
