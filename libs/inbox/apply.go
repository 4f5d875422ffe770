package inbox

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/stream"
)

// incoming is an event as it came from the broker.
type incoming struct {
	event.Event
	based  bool           // its partition had lost records before the group met it
	record stream.Message // that it came in
}

// apply runs one transaction over events. withEarly has it take early events along whose predecessor is among them.
func (i *Inbox) apply(ctx context.Context, events []incoming, withEarly bool) error {
	var keys []key
	seen := map[key]bool{}
	for _, e := range events {
		if k := keyOf(e.Event); !seen[k] {
			seen[k] = true
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, compareKeys)
	err := pg.Do(ctx, i.o.Pool, func(ctx context.Context, u *pg.Unit) error {
		states, err := i.read(ctx, u, keys, withEarly)
		if err != nil {
			return err
		}
		was := make(map[key]int64, len(keys))
		for k, st := range states {
			was[k] = st.last
		}
		s := sortOut(events, states)
		if err := i.run(ctx, u, s.fresh); err != nil {
			return err
		}
		i.queue(u, "early_events", s.early)
		i.queue(u, "parked_events", s.diverted)
		var moves []move
		for _, k := range keys {
			if !s.moved[k] {
				continue
			}
			moves = append(moves, move{k, was[k], states[k].last})
			if len(states[k].waiting) > 0 {
				i.unqueue(u, "early_events", k, states[k].last)
			}
		}
		i.advance(u, moves)
		u.AfterCommit(func() {
			i.count(s)
			if !withEarly || slices.ContainsFunc(s.diverted, func(e event.Event) bool { return states[keyOf(e)].parked == gap }) {
				i.wake()
			}
		})
		return nil
	})
	if err != nil {
		return fmt.Errorf("apply %d events: %w", len(events), err)
	}
	return nil
}

// compareKeys orders rows as they are locked and written.
func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.subject, b.subject), cmp.Compare(a.source, b.source))
}

// read asks what the database knows of keys. Nearly always that is their last sequences; only where a key is parked, or has
// early events, is more read.
func (i *Inbox) read(ctx context.Context, u *pg.Unit, keys []key, withEarly bool) (map[key]*state, error) {
	states := make(map[key]*state, len(keys))
	sources, subjects := make([]string, len(keys)), make([]string, len(keys))
	for n, k := range keys {
		states[k] = &state{}
		sources[n], subjects[n] = k.source, k.subject
	}
	// Scalar subqueries, because a join may be planned as a scan of the whole inbox while that is small, and stay so.
	anyParked, anyEarly := false, false
	u.Read(`SELECT n, (SELECT last_seq FROM inbox i WHERE i.subject = k.subject AND i.source = k.source AND i.grp = $1),
			EXISTS (SELECT FROM parked_keys p WHERE p.subject = k.subject AND p.source = k.source AND p.grp = $1 AND closed_at IS NULL),
			EXISTS (SELECT FROM early_events e WHERE e.subject = k.subject AND e.source = k.source AND e.grp = $1)
		FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS k(source, subject, n)`,
		i.o.Group, sources, subjects).Query(func(rows pgx.Rows) error {
		var n int
		var last *int64
		var parked, early bool
		_, err := pgx.ForEachRow(rows, []any{&n, &last, &parked, &early}, func() error {
			if last != nil {
				states[keys[n-1]].last = *last
			}
			anyParked, anyEarly = anyParked || parked, anyEarly || early
			return nil
		})
		return err
	})
	if err := u.Fetch(ctx); err != nil {
		return nil, err
	}
	if anyParked {
		i.readParkedKeys(u, states, sources, subjects)
	}
	if anyEarly && withEarly {
		i.readEarly(u, states, subjects)
	}
	return states, u.Fetch(ctx)
}

// readParkedKeys holds the parked keys against being closed, and reads the last sequences after that. The order matters:
// whoever waits for a key to be closed must read the sequence that the redrive left.
func (i *Inbox) readParkedKeys(u *pg.Unit, states map[key]*state, sources, subjects []string) {
	u.Read(`SELECT source, subject, kind FROM parked_keys WHERE grp = $1 AND subject = ANY($2) AND closed_at IS NULL FOR SHARE`,
		i.o.Group, subjects).Query(func(rows pgx.Rows) error {
		var k key
		var kind string
		_, err := pgx.ForEachRow(rows, []any{&k.source, &k.subject, &kind}, func() error {
			if st := states[k]; st != nil {
				st.parked = kind
			}
			return nil
		})
		return err
	})
	u.Read(`SELECT source, subject, last_seq FROM inbox WHERE grp = $1 AND (subject, source) IN (SELECT * FROM unnest($2::text[], $3::text[]))`,
		i.o.Group, subjects, sources).Query(func(rows pgx.Rows) error {
		var k key
		var last int64
		_, err := pgx.ForEachRow(rows, []any{&k.source, &k.subject, &last}, func() error {
			states[k].last = last
			return nil
		})
		return err
	})
}

// readEarly reads what waits for its predecessor. What is past the limit is left to Run.
func (i *Inbox) readEarly(u *pg.Unit, states map[key]*state, subjects []string) {
	u.Read(`SELECT `+eventColumns+` FROM early_events WHERE grp = $1 AND subject = ANY($2) ORDER BY seq LIMIT $3`,
		i.o.Group, subjects, chunk).Query(func(rows pgx.Rows) error {
		early, err := pgx.CollectRows(rows, scanEvent)
		for _, e := range early {
			if st := states[keyOf(e)]; st != nil {
				if st.waiting == nil {
					st.waiting = map[int64]event.Event{}
				}
				st.waiting[e.Seq] = e
			}
		}
		return err
	})
}

// applyUnordered runs one transaction over events whose handler knows by itself what it has seen.
func (i *Inbox) applyUnordered(ctx context.Context, events []incoming) error {
	batch := make([]event.Event, len(events))
	for n, e := range events {
		batch[n] = e.Event
	}
	err := pg.Do(ctx, i.o.Pool, func(ctx context.Context, u *pg.Unit) error {
		u.AfterCommit(func() { i.count(sorting{fresh: batch}) })
		return i.run(ctx, u, batch)
	})
	if err != nil {
		return fmt.Errorf("apply %d events: %w", len(events), err)
	}
	return nil
}

// move is how far a key goes.
type move struct {
	key
	from, to int64
}

// advance writes the last sequences, sorted by key, only where they still are what was read.
func (i *Inbox) advance(u *pg.Unit, moves []move) {
	if len(moves) == 0 {
		return
	}
	sources, subjects := make([]string, len(moves)), make([]string, len(moves))
	from, to := make([]int64, len(moves)), make([]int64, len(moves))
	for n, m := range moves {
		sources[n], subjects[n], from[n], to[n] = m.source, m.subject, m.from, m.to
	}
	u.Guard(len(moves), `INSERT INTO inbox (grp, source, subject, was_seq, last_seq)
		SELECT $1, k.* FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[]) AS k
		ON CONFLICT (subject, source, grp) DO UPDATE SET was_seq = excluded.was_seq, last_seq = excluded.last_seq
		WHERE inbox.last_seq = excluded.was_seq`, i.o.Group, sources, subjects, from, to)
}

const eventColumns = `source, subject, seq, event_id, type, tenant, at, traceparent, data`

func scanEvent(row pgx.CollectableRow) (e event.Event, err error) {
	err = row.Scan(&e.Source, &e.Subject, &e.Seq, &e.ID, &e.Type, &e.Tenant, &e.Time, &e.Traceparent, &e.Data)
	e.Time = e.Time.UTC()
	return e, err
}

// queue writes events into early_events or parked_events. What is there already stays.
func (i *Inbox) queue(u *pg.Unit, table string, events []event.Event) {
	if len(events) == 0 {
		return
	}
	n := len(events)
	sources, subjects, kinds, traces := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	seqs, tenants, ids := make([]int64, n), make([]int64, n), make([][16]byte, n)
	times, data := make([]time.Time, n), make([][]byte, n)
	for n, e := range events {
		sources[n], subjects[n], kinds[n], traces[n] = e.Source, e.Subject, string(e.Type), e.Traceparent
		seqs[n], tenants[n], ids[n], times[n], data[n] = e.Seq, e.Tenant, e.ID, e.Time, e.Data
		if data[n] == nil {
			data[n] = []byte{} // a message without fields is empty, not absent
		}
	}
	u.Write(`INSERT INTO `+table+` (grp, `+eventColumns+`) SELECT $1, k.* FROM unnest($2::text[], $3::text[], $4::bigint[],
		$5::uuid[], $6::text[], $7::bigint[], $8::timestamptz[], $9::text[], $10::bytea[]) AS k ON CONFLICT DO NOTHING`,
		i.o.Group, sources, subjects, seqs, ids, kinds, tenants, times, traces, data)
}

// unqueue drops what is applied, or was skipped, from early_events or parked_events.
func (i *Inbox) unqueue(u *pg.Unit, table string, k key, upTo int64) {
	u.Write(`DELETE FROM `+table+` WHERE grp = $1 AND source = $2 AND subject = $3 AND seq <= $4`, i.o.Group, k.source, k.subject, upTo)
}
