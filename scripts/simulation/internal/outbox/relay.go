// Package outbox is libs/outbox's memory of the relay, by symbolic link, with a door.
package outbox

import "github.com/waybill-dev/waybill/libs/event"

// Row is one transaction's events, as the table has them.
type Row struct {
	ID     int64
	Events []event.Event
}

// Relay is what a relay knows.
type Relay struct{ m *memory }

// New makes a relay that has just got the lock.
func New() *Relay { return &Relay{newMemory()} }

// Hand takes a row that was handed over after its commit.
func (r *Relay) Hand(x Row) { r.m.hand(copied(x)) }

// Begin numbers a read and says which rows it need not return.
func (r *Relay) Begin() (read int64, known map[int64]bool) {
	read, ids := r.m.begin()
	known = make(map[int64]bool, len(ids))
	for _, id := range ids {
		known[id] = true
	}
	return read, known
}

// Reads is the number of the last read that has begun.
func (r *Relay) Reads() int64 { return r.m.reads }

// Loaded takes what a read found.
func (r *Relay) Loaded(read int64, rows []Row, full bool) {
	found := make([]*row, len(rows))
	for n, x := range rows {
		found[n] = copied(x)
	}
	r.m.loaded(read, found, full)
}

// Batch is what is in flight until it is settled or forgotten.
type Batch struct{ items []item }

// Events of the batch.
func (b Batch) Events() []event.Event {
	out := make([]event.Event, len(b.items))
	for n, x := range b.items {
		out[n] = *x.Event
	}
	return out
}

// Batch takes at most n events.
func (r *Relay) Batch(n int) Batch { return Batch{r.m.batch(n, nil)} }

// Settle says that a batch was acknowledged.
func (r *Relay) Settle(b Batch) { r.m.settle(b.items) }

// Forget is what a relay does after an error.
func (r *Relay) Forget() { r.m = r.m.forget() }

// Marks takes the rows whose events are all acknowledged.
func (r *Relay) Marks() []int64 {
	ids := r.m.marks
	r.m.marks = nil
	return ids
}

// Marked says that the table shows them as published.
func (r *Relay) Marked(ids []int64) { r.m.marked(ids) }

func copied(x Row) *row { return &row{id: x.ID, events: append([]event.Event(nil), x.Events...)} }
