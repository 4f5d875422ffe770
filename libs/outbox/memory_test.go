package outbox

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/libs/event"
)

// world is a table, a topic and the relays of a service, as far as order is concerned.
type world struct {
	t       *rapid.T
	nextID  int64
	next    map[string]int64 // sequence by key
	locked  map[string]bool
	open    []*stored // transactions that have their id and did not commit
	table   []*stored
	handed  []*stored // committed by the relay's process, not handed over yet
	topic   map[string]int64
	records int

	relay   *model
	zombies []*model // lost the lock, and do not know it yet
}

// stored is a row of the table.
type stored struct {
	id        int64
	events    []event.Event
	published bool
}

// model is a relay: its memory, and what is on its way.
type model struct {
	*memory
	flying  []item
	valid   int64
	reading int64 // 0: no read is on its way
	known   []int64
	result  []*row
	looked  bool
}

const limit = 3

func newModel() *model { return &model{memory: newMemory()} }

// row is a copy: a hand-off and a read of the same row give the relay different events in memory.
func (s *stored) row() *row { return &row{id: s.id, events: slices.Clone(s.events)} }

// begin opens a transaction over some keys that nobody has locked, and takes an id.
func (w *world) begin(t *rapid.T) {
	tx := &stored{id: w.nextID}
	for _, k := range rapid.SliceOfNDistinct(rapid.IntRange(0, 3), 1, 3, rapid.ID).Draw(t, "keys") {
		key := fmt.Sprint("k", k)
		if w.locked[key] {
			continue
		}
		w.locked[key] = true
		for range rapid.IntRange(1, 2).Draw(t, "events") {
			w.next[key]++
			tx.events = append(tx.events, event.Event{Subject: key, Seq: w.next[key]})
		}
	}
	if len(tx.events) > 0 {
		w.nextID++
		w.open = append(w.open, tx)
	}
}

// commit ends one of the open transactions, in no particular sequence.
func (w *world) commit(t *rapid.T) {
	if len(w.open) == 0 {
		return
	}
	i := rapid.IntRange(0, len(w.open)-1).Draw(t, "which")
	tx := w.open[i]
	w.open = slices.Delete(w.open, i, i+1)
	for _, e := range tx.events {
		delete(w.locked, e.Subject)
	}
	w.table = append(w.table, tx)
	if rapid.IntRange(0, 3).Draw(t, "by") > 0 { // else: by another replica, or the hand-off was off
		w.handed = append(w.handed, tx)
	}
}

// hand delivers a hand-off, in no particular sequence: commits return on many goroutines. A zombie takes it as well as the
// relay, for it does not know what it is.
func (w *world) hand(t *rapid.T) {
	if len(w.handed) == 0 {
		return
	}
	i := rapid.IntRange(0, len(w.handed)-1).Draw(t, "which")
	r := w.handed[i]
	w.handed = slices.Delete(w.handed, i, i+1)
	w.pick(t).hand(r.row())
}

func (w *world) pick(t *rapid.T) *model {
	all := append([]*model{w.relay}, w.zombies...)
	return all[rapid.IntRange(0, len(all)-1).Draw(t, "relay")]
}

// read goes one step on with the relay's read: marks and begin, look, answer.
func (w *world) read(*rapid.T) {
	m := w.relay
	switch {
	case m.reading == 0:
		w.mark()
		m.reading, m.known = m.memory.begin()
		m.looked = false
	case !m.looked:
		m.looked, m.result = true, nil
		rows := slices.Clone(w.table)
		slices.SortFunc(rows, func(a, b *stored) int { return int(a.id - b.id) })
		for _, s := range rows {
			if !s.published && !slices.Contains(m.known, s.id) && len(m.result) < limit {
				m.result = append(m.result, s.row())
			}
		}
	default:
		if m.reading >= m.valid {
			m.loaded(m.reading, m.result, len(m.result) == limit)
		}
		m.reading = 0
	}
}

func (w *world) mark() {
	ids := w.relay.marks
	w.relay.marks = nil
	for _, s := range w.table {
		s.published = s.published || slices.Contains(ids, s.id)
	}
	w.relay.marked(ids)
}

// send puts a batch in flight, acknowledges the one that is, or fails it with some of its records written.
func (w *world) send(t *rapid.T) {
	m := w.pick(t)
	if len(m.flying) == 0 {
		m.flying = m.batch(rapid.IntRange(1, 4).Draw(t, "most"), nil)
		return
	}
	failed := rapid.IntRange(0, 9).Draw(t, "fails") == 0
	seen := map[string]bool{}
	for _, x := range m.flying {
		if seen[x.Subject] {
			t.Fatalf("two records of %s in a batch", x.Subject)
		}
		seen[x.Subject] = true
		if !failed || rapid.Bool().Draw(t, "written") {
			w.write(x)
		}
	}
	if failed {
		m.memory = m.forget()
		m.valid = m.reads + 1
	} else {
		m.settle(m.flying)
	}
	m.flying = nil
}

func (w *world) write(x item) {
	w.records++
	switch last := w.topic[x.Subject]; {
	case x.Seq == last+1:
		w.topic[x.Subject]++
	case x.Seq > last:
		w.t.Fatalf("%s: %d is written before %d", x.Subject, x.Seq, last+1)
	}
}

// replace takes the lock from the relay, which goes on with what it knows until it notices.
func (w *world) replace(t *rapid.T) {
	if len(w.zombies) < 2 && rapid.IntRange(0, 4).Draw(t, "really") == 0 {
		w.relay.reading = 0
		w.zombies = append(w.zombies, w.relay)
		w.relay = newModel()
	}
}

// notice is the end of a zombie. What it had in flight is written or not.
func (w *world) notice(t *rapid.T) {
	if len(w.zombies) == 0 {
		return
	}
	for _, x := range w.zombies[0].flying {
		if rapid.Bool().Draw(t, "written") {
			w.write(x)
		}
	}
	w.zombies = w.zombies[1:]
}

// finish lets everything that was begun come to its end.
func (w *world) finish() {
	w.zombies, w.handed = nil, nil
	w.table = append(w.table, w.open...)
	for range 20 * (len(w.table) + 1) {
		w.read(nil)
		if m := w.relay; len(m.flying) == 0 {
			m.flying = m.batch(100, nil)
		} else {
			for _, x := range m.flying {
				w.write(x)
			}
			m.settle(m.flying)
			m.flying = nil
		}
	}
}

// Whatever the interleaving of transactions, hand-offs, reads, failures and take-overs: the first occurrences of a key are in
// sequence, everything is published in the end, and nothing is remembered of it.
func TestRelayKeepsTheSequenceOfEachKey(t *testing.T) {
	records, distinct := 0, int64(0)
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, nextID: 1, next: map[string]int64{}, locked: map[string]bool{}, topic: map[string]int64{}, relay: newModel()}
		t.Repeat(map[string]func(*rapid.T){
			"begin": w.begin, "commit": w.commit, "hand": w.hand, "read": w.read, "send": w.send,
			"replace": w.replace, "notice": w.notice,
		})
		w.finish()
		for key, want := range w.next {
			if w.topic[key] != want {
				t.Errorf("%s: %d of %d events are in the topic", key, w.topic[key], want)
			}
			distinct += want
		}
		for _, s := range w.table {
			if !s.published {
				t.Errorf("row %d is not marked", s.id)
			}
		}
		if m := w.relay; len(m.rows)+len(m.lanes)+len(m.doubtful)+len(m.ready)+len(m.marks)+m.events != 0 {
			t.Errorf("the relay still knows %d rows, %d lanes, %d doubtful, %d ready, %d marks, %d events",
				len(m.rows), len(m.lanes), len(m.doubtful), len(m.ready), len(m.marks), m.events)
		}
		records += w.records
	})
	if int64(records) <= distinct {
		t.Errorf("%d records of %d events: no relay ever repeated anything, which proves little", records, distinct)
	}
}

// What was forgotten costs a read, not the sequence.
func TestOldKeysAreForgotten(t *testing.T) {
	m := newMemory()
	for i := range 3 * remembered {
		m.hand(&row{id: int64(i), events: []event.Event{{Subject: fmt.Sprint(i), Seq: 1}}})
		batch := m.batch(1, nil)
		if len(batch) != 1 {
			t.Fatalf("key %d does not go out", i)
		}
		m.settle(batch)
	}
	m.marked(m.marks)
	if n := len(m.acked[0]) + len(m.acked[1]); n > 2*remembered || n < remembered {
		t.Errorf("remembers %d keys", n)
	}
	if len(m.rows) != 0 || len(m.lanes) != 0 {
		t.Errorf("remembers %d rows and %d lanes", len(m.rows), len(m.lanes))
	}
	m.hand(&row{id: -2, events: []event.Event{{Subject: "0", Seq: 2}}})
	m.hand(&row{id: -1, events: []event.Event{{Subject: fmt.Sprint(3*remembered - 1), Seq: 2}}})
	batch := m.batch(9, nil)
	if len(batch) != 1 || batch[0].Subject != fmt.Sprint(3*remembered-1) {
		t.Errorf("out went %v; only the key that is remembered may go", batch)
	}
}

// BenchmarkMemory is a row of ten events of ten keys, handed over, sent and marked.
func BenchmarkMemory(b *testing.B) {
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprint("0192f0c1-2b3c-7d4e-8f50-", 100000000000+i)
	}
	m := newMemory()
	var batch []item
	seq := make([]int64, len(keys))
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		r := &row{id: int64(n), events: make([]event.Event, 10)}
		for j := range r.events {
			k := (10*n + j) % len(keys)
			seq[k]++
			r.events[j] = event.Event{Subject: keys[k], Seq: seq[k]}
		}
		m.hand(r)
		if n%10 == 9 {
			batch = m.batch(batchEvents, batch[:0])
			m.settle(batch)
			m.marked(m.marks)
			m.marks = m.marks[:0]
		}
	}
}
