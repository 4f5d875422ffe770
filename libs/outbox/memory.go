package outbox

import (
	"math"
	"slices"

	"github.com/waybill-dev/waybill/libs/event"
)

// remembered is how many keys' last acknowledged sequence is kept at least: half a minute of new keys at 1,000 a second. A
// key that was forgotten costs its next event a wait for a read.
const remembered = 1 << 15

// row is one transaction's events.
type row struct {
	id     int64
	events []event.Event
	left   int   // events that are not acknowledged
	read   int64 // of a handed-over row: how many reads had begun before
	doubt  bool  // handed over, and the predecessor of an event is neither acknowledged nor here: waits for a read
	clear  bool  // a read showed it, so whatever comes before it is published or here
}

// memory is what the relay knows. It decides what may go out next (see the package comment) and does no I/O.
type memory struct {
	rows     map[int64]*row // by id: read or handed over, and not marked yet
	doubtful []*row
	lanes    map[string]*lane // keys with events that are not acknowledged
	ready    []*lane          // in the order they became so; each may send its first event
	free     []*lane
	acked    [2]map[string]int64 // last sequence that this relay had acknowledged, young and old
	marks    []int64             // rows whose events are all acknowledged
	events   int                 // not acknowledged
	reads    int64               // begun
}

// lane is a key's events, by sequence.
type lane struct {
	key    string
	acked  int64
	items  []item
	queued bool // in ready, or in flight
}

type item struct {
	*event.Event
	row *row
}

func newMemory() *memory {
	return &memory{rows: map[int64]*row{}, lanes: map[string]*lane{}, acked: [2]map[string]int64{{}, {}}}
}

// hand takes a row that was handed over.
func (m *memory) hand(r *row) {
	if m.rows[r.id] != nil {
		return // a read was faster
	}
	r.read, r.left = m.reads, len(r.events)
	m.rows[r.id] = r
	for i := range r.events {
		e := &r.events[i]
		l := m.lane(e.Subject)
		if e.Seq <= l.acked { // a read was so much faster that it has gone out
			r.left--
			m.retire(l)
			continue
		}
		at := l.insert(item{e, r})
		m.events++
		if before := l.acked; e.Seq > 1 {
			if at > 0 {
				before = l.items[at-1].Seq
			}
			r.doubt = r.doubt || e.Seq > before+1
		}
	}
	if r.left == 0 {
		m.marks = append(m.marks, r.id)
	}
	if r.doubt {
		m.doubtful = append(m.doubtful, r)
	}
	m.awaken(r)
}

// begin numbers a read of at most n rows and lists the rows it need not return.
func (m *memory) begin() (read int64, known []int64) {
	m.reads++
	known = make([]int64, 0, len(m.rows))
	for id, r := range m.rows {
		if !r.doubt {
			known = append(known, id)
		}
	}
	return m.reads, known
}

// loaded takes the rows that a read found, by id. If there may be more behind the last of them, it is full. It returns how
// many it did not know.
func (m *memory) loaded(read int64, found []*row, full bool) (unknown int) {
	reached := int64(math.MaxInt64)
	if full {
		reached = found[len(found)-1].id
	}
	shown := make(map[int64]bool, len(found))
	for _, r := range found {
		shown[r.id] = true
		if m.rows[r.id] != nil {
			continue
		}
		unknown++
		m.rows[r.id] = r
		r.left, r.clear = len(r.events), true
		m.events += r.left
		for i := range r.events {
			e := &r.events[i]
			m.lane(e.Subject).insert(item{e, r})
		}
	}
	doubtful := m.doubtful
	m.doubtful = nil
	for _, r := range doubtful {
		switch {
		case r.read >= read || r.id > reached: // this read says nothing about it
			m.doubtful = append(m.doubtful, r)
		case shown[r.id]:
			r.doubt, r.clear = false, true
			m.awaken(r)
		default:
			m.drop(r)
		}
	}
	for _, r := range found {
		m.awaken(m.rows[r.id])
	}
	return unknown
}

// drop forgets a row that another relay has published.
func (m *memory) drop(r *row) {
	delete(m.rows, r.id)
	for i := range r.events {
		e := &r.events[i]
		l := m.lane(e.Subject)
		m.remove(l, e)
		m.wake(l)
		m.retire(l)
	}
}

// batch takes at most n events, no two of a key, and no second time before settle.
func (m *memory) batch(n int, into []item) []item {
	taken := 0
	for _, l := range m.ready {
		if len(into) == n {
			break
		}
		taken++
		if l.sendable() {
			into = append(into, l.items[0])
			continue
		}
		l.queued = false // something came before its first event in the meantime
		m.retire(l)
	}
	m.ready = slices.Delete(m.ready, 0, taken)
	return into
}

// settle says that a batch was acknowledged.
func (m *memory) settle(batch []item) {
	for _, x := range batch {
		l := m.lanes[x.Subject]
		l.queued = false
		m.remove(l, x.Event)
		if x.row.left--; x.row.left == 0 {
			m.marks = append(m.marks, x.row.id)
		}
		m.wake(l)
		m.retire(l)
	}
}

// remove takes an event that is published out of its lane, where it may have been removed from before.
func (m *memory) remove(l *lane, e *event.Event) {
	if at := slices.IndexFunc(l.items, func(x item) bool { return x.Event == e }); at >= 0 {
		l.items = slices.Delete(l.items, at, at+1)
		m.events--
	}
	l.acked = max(l.acked, e.Seq)
}

// forget makes a memory that knows no more than what has yet to be marked.
func (m *memory) forget() *memory {
	next := newMemory()
	next.reads, next.marks = m.reads, m.marks
	for _, id := range m.marks {
		if r := m.rows[id]; r != nil {
			next.rows[id] = r
		}
	}
	return next
}

// marked forgets rows that the table shows as published.
func (m *memory) marked(ids []int64) {
	for _, id := range ids {
		delete(m.rows, id)
	}
}

// lane finds or opens a key's lane.
func (m *memory) lane(key string) *lane {
	l := m.lanes[key]
	if l != nil {
		return l
	}
	if n := len(m.free); n > 0 {
		l, m.free = m.free[n-1], m.free[:n-1]
	} else {
		l = &lane{}
	}
	acked, ok := m.acked[0][key]
	if !ok {
		acked = m.acked[1][key]
	}
	l.key, l.acked = key, acked
	m.lanes[key] = l
	return l
}

// retire closes a lane that has nothing left and remembers how far it came.
func (m *memory) retire(l *lane) {
	if len(l.items) > 0 || l.queued || m.lanes[l.key] != l {
		return
	}
	delete(m.lanes, l.key)
	if l.acked > 0 {
		if len(m.acked[0]) >= remembered {
			m.acked = [2]map[string]int64{{}, m.acked[0]}
		}
		m.acked[0][l.key] = l.acked
	}
	m.free = append(m.free, l)
}

// awaken wakes the lanes of a row.
func (m *memory) awaken(r *row) {
	for i := range r.events {
		if l := m.lanes[r.events[i].Subject]; l != nil {
			m.wake(l)
		}
	}
}

// wake puts a lane into ready when its first event may go.
func (m *memory) wake(l *lane) {
	if !l.queued && l.sendable() {
		l.queued = true
		m.ready = append(m.ready, l)
	}
}

// sendable says that the first event may go out: nothing before it is unpublished.
func (l *lane) sendable() bool {
	if len(l.items) == 0 {
		return false
	}
	x := l.items[0]
	return x.row.clear || x.Seq <= l.acked+1
}

// insert keeps items sorted and returns the place.
func (l *lane) insert(x item) int {
	at := len(l.items)
	for at > 0 && l.items[at-1].Seq > x.Seq {
		at--
	}
	l.items = slices.Insert(l.items, at, x)
	return at
}
