package simulation

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/scripts/simulation/internal/inbox"
	"github.com/waybill-dev/waybill/scripts/simulation/internal/outbox"
)

// note is what an event says. One form does for all of them.
type note struct {
	amount          int64
	currency        string
	method          string
	items           []line
	state, goods    string
	reason, status  string
	attempt         int
	written, inside bool // written off; inside: there is an order behind it
}

type line struct {
	product  string
	quantity int64
}

// message makes an event. Its source is the node's, set when it is written.
func (w *World) message(t event.Type, subject string, seq int64, x note) event.Event {
	w.notes = append(w.notes, x)
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:], uint64(len(w.notes)))
	return event.Event{ID: id, Type: t, Subject: subject, Seq: seq, Tenant: 1, Data: binary.BigEndian.AppendUint64(nil, uint64(len(w.notes)-1))}
}

func (w *World) read(e event.Event) note { return w.notes[binary.BigEndian.Uint64(e.Data)] }

const partitions = 3

// topic is a log. What is written stays.
type topic struct{ partitions [partitions][]event.Event }

func partitionOf(key string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return int(h.Sum32() % partitions)
}

func (w *World) topic(name string) *topic {
	t := w.topics[name]
	if t == nil {
		t = &topic{}
		w.topics[name] = t
	}
	return t
}

// row is one transaction's events in the table of a node.
type row struct {
	outbox.Row
	published bool
}

// place is a partition that a group reads.
type place struct {
	topic     string
	partition int
}

// node is one service: its database, which survives, and its process, which does not.
type node struct {
	w      *World
	name   string
	source string

	// the database
	table   []*row
	low     int // the first row that is not published
	states  map[inbox.Key]int64
	early   map[inbox.Key]map[int64]event.Event
	applied map[inbox.Key]int64 // effects, for the check

	// the broker's memory of the group
	reads     []place
	committed map[place]int

	// the process
	up       bool
	life     int
	relay    *outbox.Relay
	handed   []outbox.Row
	handOff  bool
	asking   bool
	sending  bool
	valid    int64
	nextRead time.Duration
	position map[place]int
	handle   func(batch []event.Event) []event.Event
	tick     func()
	begin    func() // what the process forgets when it dies
}

func (w *World) node(name string, reads []string, handle func([]event.Event) []event.Event) *node {
	n := &node{w: w, name: name, source: "/waybill/" + name, states: map[inbox.Key]int64{}, early: map[inbox.Key]map[int64]event.Event{},
		applied: map[inbox.Key]int64{}, committed: map[place]int{}, handle: handle}
	for _, t := range reads {
		for p := range partitions {
			n.reads = append(n.reads, place{t, p})
		}
	}
	w.nodes = append(w.nodes, n)
	return n
}

// start begins a process.
func (n *node) start() {
	n.up = true
	n.life++
	n.newRelay()
	n.position = map[place]int{}
	for _, p := range n.reads {
		n.position[p] = n.committed[p]
	}
	if n.begin != nil {
		n.begin()
	}
	n.every(10*time.Millisecond, 50*time.Millisecond, n.relays)
	n.every(10*time.Millisecond, 70*time.Millisecond, n.consume)
	n.every(900*time.Millisecond, 1100*time.Millisecond, n.tick)
}

// crash ends it, wherever it is. It may do so anywhere: what it had asked others for goes on.
func (n *node) crash() {
	if !n.up {
		return
	}
	n.up = false
	n.life++
	n.w.after(n.w.between(100*time.Millisecond, 3*time.Second), func() {
		if !n.up {
			n.start()
		}
	})
}

// step says whether the process goes on: at each of its steps it may die.
func (n *node) step() bool {
	if n.up && n.w.chance(n.w.bad.crash) {
		n.crash()
	}
	return n.up
}

// after is the world's, for as long as the process lives.
func (n *node) after(d time.Duration, do func()) {
	life := n.life
	n.w.after(d, func() {
		if n.life == life {
			do()
		}
	})
}

// idleAfter is when pollers of a world that waits for a deadline begin to look less often: nothing else happens then.
const idleAfter = 25 * time.Second

// every does something again and again, at uneven intervals.
func (n *node) every(least, most time.Duration, do func()) {
	if do == nil {
		return
	}
	var again func()
	again = func() {
		do()
		pause := n.w.between(least, most)
		if n.w.now > idleAfter {
			pause = max(pause, 200*time.Millisecond)
		}
		n.after(pause, again)
	}
	n.after(n.w.between(0, most), again)
}

// tx runs a transaction and says whether the caller hears of its commit. change must not have changed anything where it is
// not run; what it returns goes out with it.
func (n *node) tx(change func() []event.Event) (told bool) {
	if !n.step() || n.w.chance(n.w.bad.txLost) {
		return false
	}
	out := change()
	var added *row
	if len(out) > 0 {
		for i := range out {
			out[i].Source = n.source
		}
		added = &row{Row: outbox.Row{ID: int64(len(n.table) + 1), Events: out}}
		n.table = append(n.table, added)
	}
	if !n.step() || n.w.chance(n.w.bad.txUntold) {
		return false
	}
	if added != nil && n.handOff && !n.w.chance(0.2) { // a fifth is another replica's
		n.handed = append(n.handed, added.Row)
	}
	return true
}

func (n *node) newRelay() {
	n.relay = outbox.New()
	n.handed, n.handOff, n.asking, n.sending, n.valid, n.nextRead = nil, false, false, false, 0, 0
}

const (
	readRows  = 4
	batchSize = 8
)

// relays is one turn of the relay.
func (n *node) relays() {
	for _, r := range n.handed {
		n.relay.Hand(r)
	}
	n.handed = nil
	n.send()
	n.ask()
}

// send puts a batch in flight. What the broker makes of it does not depend on whether its sender lives.
func (n *node) send() {
	if n.sending {
		return
	}
	batch := n.relay.Batch(batchSize)
	all := batch.Events()
	if len(all) == 0 {
		return
	}
	n.sending = true
	w := n.w
	if w.flaws.MarksFirst {
		n.mark(batch)
	}
	failed := w.chance(w.bad.produce)
	for _, e := range all {
		if failed && w.chance(0.5) {
			if !w.chance(0.3) {
				continue // never arrives
			}
			w.after(w.delay()+w.between(0, 2*time.Second), func() { w.write(e) }) // arrives when nobody waits for it
			continue
		}
		w.write(e)
	}
	relay := n.relay
	n.after(w.delay(), func() {
		if n.relay != relay { // which has lost its lock since
			return
		}
		n.sending = false
		if !n.step() {
			return
		}
		if !failed {
			n.relay.Settle(batch)
			return
		}
		n.handed, n.handOff = nil, false
		n.relay.Forget()
		n.valid = n.relay.Reads() + 1
		n.nextRead = n.w.now + w.between(20*time.Millisecond, 200*time.Millisecond)
	})
}

// mark publishes what was never sent: a flaw.
func (n *node) mark(b outbox.Batch) {
	for _, e := range b.Events() {
		for _, r := range n.table {
			if slices.ContainsFunc(r.Events, func(x event.Event) bool { return x.ID == e.ID }) {
				r.published = true
			}
		}
	}
}

func (w *World) write(e event.Event) {
	t := w.topic(e.Type.Topic())
	p := partitionOf(e.Subject)
	t.partitions[p] = append(t.partitions[p], e)
}

// ask is the relay's exchange with the table: marks, and a read.
func (n *node) ask() {
	if n.asking {
		return
	}
	marks := n.relay.Marks()
	var found []outbox.Row
	var read int64
	if n.w.now >= n.nextRead {
		var known map[int64]bool
		read, known = n.relay.Begin()
		for n.low < len(n.table) && n.table[n.low].published {
			n.low++
		}
		for _, r := range n.table[n.low:] {
			if !r.published && !known[r.ID] && !slices.Contains(marks, r.ID) && len(found) < readRows {
				found = append(found, r.Row)
			}
		}
		n.nextRead = n.w.now + n.w.between(20*time.Millisecond, 200*time.Millisecond)
	} else if len(marks) == 0 {
		return
	}
	n.asking = true
	lost := n.w.chance(n.w.bad.txLost / 2)
	if !lost {
		for _, id := range marks {
			n.table[id-1].published = true
		}
	}
	relay := n.relay
	n.after(n.w.delay(), func() {
		if n.relay != relay {
			return
		}
		n.asking = false
		if !n.step() {
			return
		}
		if lost { // the connection, and the lock with it
			n.newRelay()
			return
		}
		n.relay.Marked(marks)
		if read > 0 && read >= n.valid {
			full := len(found) == readRows
			n.relay.Loaded(read, found, full)
			if !full {
				n.handOff = true
			}
		}
	})
}

// consume applies what has come.
func (n *node) consume() {
	w := n.w
	if !slices.ContainsFunc(n.reads, func(p place) bool { return n.position[p] < len(w.topic(p.topic).partitions[p.partition]) }) && !w.chance(w.bad.again) {
		return
	}
	var batch []event.Event
	after := map[place]int{}
	most := 1 + w.rnd.IntN(12)
	for _, i := range w.rnd.Perm(len(n.reads)) {
		p := n.reads[i]
		log := w.topic(p.topic).partitions[p.partition]
		from := n.position[p]
		if w.chance(w.bad.again) {
			from = n.committed[p]
		}
		if w.chance(w.bad.again) { // this one comes later than the others
			continue
		}
		take := min(len(log)-from, most-len(batch))
		if take > 0 {
			batch = append(batch, log[from:from+take]...)
			after[p] = from + take
		}
	}
	if len(batch) == 0 || !n.step() {
		return
	}
	if w.flaws.OffsetsFirst {
		n.moveTo(after, true)
	}
	if !n.tx(func() []event.Event { return n.apply(batch) }) || !n.step() {
		return // it comes again
	}
	n.moveTo(after, w.chance(0.7))
}

func (n *node) moveTo(after map[place]int, commit bool) {
	for _, p := range n.reads {
		if to, ok := after[p]; ok {
			n.position[p] = max(n.position[p], to)
			if commit {
				n.committed[p] = max(n.committed[p], to)
			}
		}
	}
}

// apply is one transaction of the inbox.
func (n *node) apply(batch []event.Event) []event.Event {
	if n.w.flaws.NoDedupe {
		return n.handle(batch)
	}
	states := map[inbox.Key]*inbox.State{}
	var keys []inbox.Key
	for _, e := range batch {
		k := inbox.KeyOf(e)
		if states[k] == nil {
			states[k] = &inbox.State{Last: n.states[k], Waiting: n.early[k]}
			keys = append(keys, k)
		}
	}
	fresh, early, _ := inbox.Sort(batch, states)
	for _, e := range fresh {
		k := inbox.KeyOf(e)
		if e.Seq != n.applied[k]+1 {
			n.w.violate("%s applied %s of %s, sequence %d, after %d", n.name, e.Type, e.Subject, e.Seq, n.applied[k])
		}
		n.applied[k] = e.Seq
	}
	for _, e := range early {
		k := inbox.KeyOf(e)
		if n.early[k] == nil {
			n.early[k] = map[int64]event.Event{}
		}
		n.early[k][e.Seq] = e
	}
	for _, k := range keys {
		n.states[k] = states[k].Last
		for seq := range n.early[k] {
			if seq <= states[k].Last {
				delete(n.early[k], seq)
			}
		}
	}
	return n.handle(fresh)
}

// call is a request to another node and its answer. There is one or there is none.
func (w *World) call(from, to *node, ask func() (answer any, ok bool), heard func(answer any)) {
	life := from.life
	if w.chance(w.bad.callLost) {
		return
	}
	w.after(w.delay(), func() {
		if to != nil && !to.step() {
			return
		}
		answer, ok := ask()
		if !ok || w.chance(w.bad.callDeaf) {
			return
		}
		w.after(w.delay(), func() {
			if from.life == life && from.step() {
				heard(answer)
			}
		})
	})
}
