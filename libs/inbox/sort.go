package inbox

import "github.com/waybill-dev/waybill/libs/event"

// key is what events are in order by.
type key struct{ source, subject string }

func keyOf(e event.Event) key { return key{e.Source, e.Subject} }

// state is what the database knows of a key.
type state struct {
	last    int64                 // 0: nothing was applied yet
	parked  string                // what it is parked for: poison, a gap, or empty
	waiting map[int64]event.Event // in early_events
}

// sorting is what becomes of a batch.
type sorting struct {
	fresh, early, diverted []event.Event
	duplicates             []event.Event
	moved                  map[key]bool // keys whose sequence advances
}

// sortOut decides by sequence alone what is applied, in which order, and what waits. It changes states to what is true
// after that.
func sortOut(events []incoming, states map[key]*state) sorting {
	s := sorting{moved: map[key]bool{}}
	ahead := map[key]map[int64]event.Event{} // of this batch, before their predecessor
	for _, e := range events {
		k := keyOf(e.Event)
		st := states[k]
		switch {
		case e.Seq <= st.last:
			s.duplicates = append(s.duplicates, e.Event)
			continue
		case st.parked != "":
			s.diverted = append(s.diverted, e.Event)
			continue
		case e.Seq > st.last+1 && !(st.last == 0 && e.based):
			_, known := ahead[k][e.Seq]
			if _, stored := st.waiting[e.Seq]; known || stored {
				s.duplicates = append(s.duplicates, e.Event)
				continue
			}
			if ahead[k] == nil {
				ahead[k] = map[int64]event.Event{}
			}
			ahead[k][e.Seq] = e.Event
			continue
		}
		for next, ok := e.Event, true; ok; {
			s.fresh = append(s.fresh, next)
			st.last = next.Seq
			s.moved[k] = true
			if next, ok = ahead[k][st.last+1]; ok {
				delete(ahead[k], next.Seq)
			} else {
				next, ok = st.waiting[st.last+1]
			}
		}
	}
	for _, e := range events { // not over ahead: rows are written in the order they came in
		if w, ok := ahead[keyOf(e.Event)][e.Seq]; ok && w.ID == e.ID {
			s.early = append(s.early, w)
			delete(ahead[keyOf(e.Event)], e.Seq)
		}
	}
	return s
}
