// Package inbox is libs/inbox's decision by sequence, by symbolic link, with a door.
package inbox

import "github.com/waybill-dev/waybill/libs/event"

// Key is what events are in order by.
type Key struct{ Source, Subject string }

// KeyOf names an event's.
func KeyOf(e event.Event) Key { return Key{e.Source, e.Subject} }

// State is what the database knows of a key.
type State struct {
	Last    int64
	Waiting map[int64]event.Event // came before their predecessor
}

// incoming is what the inbox sorts: an event as it came from the broker.
type incoming struct {
	event.Event
	based bool
}

// Sort decides which events of a batch are applied, and in which order, which wait, and which were applied before. It
// moves the states on.
func Sort(batch []event.Event, states map[Key]*State) (fresh, early, duplicates []event.Event) {
	in := make([]incoming, len(batch))
	known := make(map[key]*state, len(states))
	for n, e := range batch {
		in[n] = incoming{Event: e}
	}
	for k, s := range states {
		known[key{k.Source, k.Subject}] = &state{last: s.Last, waiting: s.Waiting}
	}
	out := sortOut(in, known)
	for k, s := range states {
		s.Last = known[key{k.Source, k.Subject}].last
	}
	return out.fresh, out.early, out.duplicates
}
