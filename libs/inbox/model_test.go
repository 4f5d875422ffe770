package inbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/libs/event"
)

// TestAnyHistoryAppliesEachEventOnceInOrder delivers slices of the log in any order and number, poisons and heals events,
// parks, redrives, discards and settles in between. At the end everything is healed and delivered once more.
func TestAnyHistoryAppliesEachEventOnceInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		prefix := fmt.Sprintf("r%d-", round) // keys of its own: one database serves all rounds
		b.in = b.another(nil)
		b.exec(`UPDATE parked_keys SET opened_at = opened_at - interval '61 s'`) // no flood is meant
		const keys, length = 3, 6
		var log []event.Event
		for seq := range int64(length) {
			for n := range keys {
				log = append(log, ev(fmt.Sprintf("%s%d", prefix, n), seq+1))
			}
		}
		given := map[string]bool{}
		subject := func() string { return fmt.Sprintf("%s%d", prefix, rapid.IntRange(0, keys-1).Draw(rt, "key")) }
		open := func(s string) bool {
			return query[int](b, `SELECT count(*) FROM parked_keys WHERE subject = $1 AND closed_at IS NULL`, s)[0] > 0
		}
		bad := Permanent(errors.New("bad"))
		rt.Repeat(map[string]func(*rapid.T){
			"deliver": func(rt *rapid.T) {
				from := rapid.IntRange(0, len(log)-1).Draw(rt, "from")
				to := rapid.IntRange(from+1, len(log)).Draw(rt, "to")
				var places []int
				for n := from; n < to; n++ {
					places = append(places, n)
				}
				if rapid.Bool().Draw(rt, "shuffled") {
					places = rapid.Permutation(places).Draw(rt, "batch")
				}
				var batch []event.Event
				for _, n := range places {
					batch = append(batch, log[n])
				}
				b.consume(batch...)
			},
			"poison": func(rt *rapid.T) {
				b.poisons(subject(), rapid.Int64Range(1, length).Draw(rt, "seq"), bad)
			},
			"heal": func(rt *rapid.T) {
				b.poisons(subject(), rapid.Int64Range(1, length).Draw(rt, "seq"), nil)
			},
			"redrive": func(rt *rapid.T) {
				if s := subject(); open(s) {
					b.redrive(s)
				}
			},
			"discard": func(rt *rapid.T) {
				s := subject()
				if !open(s) {
					return
				}
				// What it gives up: the first event that waits, or what is missing before it.
				last := b.last(s)
				next := query[int64](b, `SELECT min(seq) FROM parked_events WHERE subject = $1`, s)[0]
				if next == last+1 {
					given[fmt.Sprintf("%s/%d", s, next)] = true
				}
				for seq := last + 1; seq < next; seq++ {
					given[fmt.Sprintf("%s/%d", s, seq)] = true
				}
				b.discard(s)
			},
			"a minute passes": func(rt *rapid.T) {
				b.minuteLater()
				b.settle()
			},
			"": func(rt *rapid.T) {
				var last string
				var at int64
				for _, row := range query[string](b, `SELECT subject || ' ' || seq FROM effects WHERE subject LIKE $1 ORDER BY subject, n`, prefix+"%") {
					var s string
					var seq int64
					fmt.Sscan(row, &s, &seq)
					if s == last && seq <= at {
						rt.Fatalf("%s applied %d after %d", s, seq, at)
					}
					last, at = s, seq
				}
			},
		})
		for n := range keys {
			for seq := range int64(length) {
				b.poisons(fmt.Sprintf("%s%d", prefix, n), seq+1, nil)
			}
		}
		b.consume(log...)
		b.settle()
		for n := range keys {
			s := fmt.Sprintf("%s%d", prefix, n)
			if open(s) {
				b.redrive(s)
			}
			var want []int64
			for seq := range int64(length) {
				if !given[fmt.Sprintf("%s/%d", s, seq+1)] {
					want = append(want, seq+1)
				}
			}
			if got := query[int64](b, `SELECT seq FROM effects WHERE subject = $1 ORDER BY n`, s); !slices.Equal(got, want) {
				rt.Fatalf("%s applied %v, want %v", s, got, want)
			}
			if open(s) || b.last(s) != length {
				rt.Fatalf("%s: parked %v, last sequence %d", s, open(s), b.last(s))
			}
		}
		if n := query[int](b, `SELECT (SELECT count(*) FROM early_events) + (SELECT count(*) FROM parked_events)`)[0]; n != 0 {
			rt.Fatalf("%d events still wait", n)
		}
	})
}

// TestSortOut decides by sequence alone.
func TestSortOut(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		last := rapid.Int64Range(0, 3).Draw(t, "last")
		st := &state{last: last, parked: rapid.SampledFrom([]string{"", poison, gap}).Draw(t, "parked"), waiting: map[int64]event.Event{}}
		for _, seq := range rapid.SliceOfN(rapid.Int64Range(1, 9), 0, 3).Draw(t, "waiting") {
			st.waiting[seq] = ev("k", seq)
		}
		var events []incoming
		have := map[int64]bool{}
		for seq := range st.waiting {
			have[seq] = true
		}
		for _, seq := range rapid.SliceOf(rapid.Int64Range(1, 9)).Draw(t, "batch") {
			events = append(events, incoming{Event: ev("k", seq)})
			have[seq] = true
		}
		parked := st.parked
		s := sortOut(events, map[key]*state{keyOf(ev("k", 1)): st})
		next := last
		for _, e := range s.fresh {
			if next++; e.Seq != next {
				t.Fatalf("applied %d where %d was next", e.Seq, next)
			}
		}
		if parked != "" && len(s.fresh)+len(s.early) > 0 {
			t.Fatalf("a parked key applied %d, kept %d", len(s.fresh), len(s.early))
		}
		moved := s.moved[keyOf(ev("k", 1))]
		if parked == "" && moved && have[next+1] {
			t.Fatalf("stopped at %d although %d was there", next, next+1)
		}
		fromStore := 0
		for _, e := range s.fresh {
			if _, ok := st.waiting[e.Seq]; ok {
				fromStore++
			}
		}
		if got := len(s.fresh) - fromStore + len(s.early) + len(s.diverted) + len(s.duplicates); got > len(events) || got < len(events)-fromStore {
			t.Fatalf("%d events became %d", len(events), got)
		}
	})
}

func BenchmarkBatch(b *testing.B) {
	bench := setup(b)
	ctx := context.Background()
	n := 0
	for b.Loop() {
		batch := make([]event.Event, 256)
		for i := range batch {
			n++
			batch[i] = from(sourceOrder, event.OrderAttention, fmt.Sprintf("o-%d", n), 1)
		}
		if err := bench.in.Consume(ctx, records(batch...)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}
