package aggregate

// Reason is why an accepted sample is not in a window.
type Reason uint8

// The reasons.
const (
	ReasonLate        Reason = iota // its pane was closed
	ReasonFuture                    // its time is further ahead than a clock may be wrong
	ReasonNotFinite                 // NaN, which also marks a series as stale, or infinite
	ReasonMalformed                 // no sample could be read
	ReasonUnsupported               // a type that is not aggregated
	ReasonTooLong                   // more than 16 KiB name its series
	ReasonCrash                     // pushed after the last snapshot of a process that was killed
	reasons
)

// Reasons are the names of the reasons.
var Reasons = [reasons]string{"late", "future", "not_finite", "malformed", "unsupported", "too_long", "crash"}

// maxSources bounds the number of sources.
const maxSources = 16

// Source is where samples come from, and has its own account.
type Source struct {
	Name string
	// Clamp has late samples counted in the oldest open pane instead of dropped.
	Clamp bool
	// Replayed says that its samples come again after a crash, so none are lost.
	Replayed bool
	// Unseen, where it is set, says how many messages were lost before anybody could accept them.
	Unseen func() uint64
	number int
}

// Account is what became of the samples of a source: Accepted is Aggregated and all of Dropped.
type Account struct {
	Source     string            `json:"source"`
	Accepted   uint64            `json:"accepted"`
	Aggregated uint64            `json:"aggregated"`
	Dropped    map[string]uint64 `json:"dropped"`
	// Unseen messages were lost before anybody could accept them, and are in none of the others.
	Unseen uint64 `json:"unseen"`
}

// Ledger is the account of each source since the first start, exact at the moment of the call.
func (a *Aggregator) Ledger() []Account {
	for _, s := range a.shards {
		s.mu.Lock()
	}
	out := make([]Account, len(a.sources))
	for i, source := range a.sources {
		sum, accepted := a.brought[i], a.survivor.rows[0][i]
		for _, s := range a.shards {
			accepted += s.took[i]
			sum.aggregated += s.books[i].aggregated
			for r, n := range s.books[i].dropped {
				sum.dropped[r] += n
			}
		}
		out[i] = Account{Source: source.Name, Accepted: accepted, Aggregated: sum.aggregated, Dropped: map[string]uint64{}}
		for r, n := range sum.dropped {
			if n > 0 {
				out[i].Dropped[Reasons[r]] = n
			}
		}
	}
	for _, s := range a.shards {
		s.mu.Unlock()
	}
	for i, source := range a.sources {
		if source.Unseen != nil {
			out[i].Unseen = source.Unseen()
		}
	}
	return out
}

// Refuse books samples that were accepted and cannot be aggregated.
func (a *Aggregator) Refuse(source *Source, why Reason, n int) {
	s := a.shards[0]
	s.mu.Lock()
	s.took[source.number] += uint64(n)
	s.books[source.number].dropped[why] += uint64(n)
	s.mu.Unlock()
}

// Survivor is memory that outlives the process: what it had accepted when it was killed. It is a mapped file, which the
// kernel keeps.
type Survivor struct {
	Valid    uint64
	Instance [16]byte
	rows     [1 + maxShards][maxSources]uint64 // what former processes accepted, then one row for each shard
}

// maxShards bounds the number of shards.
const maxShards = 32

// accepted is the sum of a source.
func (s *Survivor) accepted(source int) (n uint64) {
	for _, row := range s.rows {
		n += row[source]
	}
	return n
}

// resume makes the books of a new process from those of a snapshot and from what survived, if it did. Samples that were
// accepted after the snapshot's books were read are in its panes or lost: what the panes have more than the books is
// aggregated, the rest is dropped. Which source the former came from is not known where several were busy; their sum is exact.
func (a *Aggregator) resume(saved []Account, survived *Survivor, counted uint64) {
	for _, b := range saved {
		counted -= b.Aggregated
	}
	accepted := [maxSources]uint64{}
	for _, b := range saved {
		for i, s := range a.sources {
			if s.Name != b.Source {
				continue
			}
			accepted[i], a.brought[i].aggregated = b.Accepted, b.Aggregated
			for r, name := range Reasons {
				a.brought[i].dropped[r] = b.Dropped[name]
			}
			if survived == nil || s.Replayed {
				continue
			}
			late := survived.accepted(i) - min(accepted[i], survived.accepted(i))
			in := min(late, counted)
			counted -= in
			accepted[i] += late
			a.brought[i].aggregated += in
			a.brought[i].dropped[ReasonCrash] += late - in
		}
	}
	for i, s := range a.sources { // nothing survived: what the panes have is all there was
		if !s.Replayed && counted > 0 {
			accepted[i] += counted
			a.brought[i].aggregated += counted
			counted = 0
		}
	}
	a.survivor.Valid = 0
	a.survivor.rows = [1 + maxShards][maxSources]uint64{accepted}
	a.survivor.Valid = 1
}
