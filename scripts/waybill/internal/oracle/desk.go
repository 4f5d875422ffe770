package oracle

import (
	"context"

	"github.com/google/uuid"
)

// key is what a consumer keeps in order.
type key struct{ database, group, source, subject string }

// waiting is a key that stands still.
type waiting struct {
	gap   bool
	first int64 // the first sequence that waits
	seqs  map[int64]bool
}

// letter is a record that a group could not read.
type letter struct {
	group, topic string
	partition    int32
	offset       int64
}

// ticket names a raised intervention: of a service, of a kind, about an order.
type ticket struct{ database, kind, subject string }

type parkedKey struct {
	Group, Source, Subject, Kind, Status string
	ID                                   uuid.UUID
}

type parkedEvent struct {
	Group, Source, Subject string
	Seq                    int64
	Early                  bool
	Last                   int64
}

type deadRow struct {
	Group, Topic string
	Partition    int32
	Offset       int64
	Status       string
	ID           uuid.UUID
	Emptied      bool
}

type raised struct {
	Kind, Subject, Status string
	ID                    uuid.UUID
}

// readDesks takes in what waits for a person, and checks that it waits in order and that each decision is on record. All of
// it is small: whoever has thousands of interventions has other worries.
func (c *check) readDesks(ctx context.Context) error {
	c.parked, c.dead, c.tickets, c.unapplied = map[key]*waiting{}, map[letter]bool{}, map[ticket]string{}, map[letter]bool{}
	for _, name := range databaseNames {
		if err := c.readDesk(ctx, c.db[name]); err != nil {
			return err
		}
	}
	return nil
}

func (c *check) readDesk(ctx context.Context, d *database) error {
	keys, err := all[parkedKey](ctx, d, `SELECT grp, source, subject, kind, status, id FROM parked_keys ORDER BY opened_at`)
	if err != nil {
		return err
	}
	closed := map[uuid.UUID]string{} // what was closed, and about what
	for _, k := range keys {
		at := key{d.name, k.Group, k.Source, k.Subject}
		c.counts["parked."+k.Kind]++
		switch k.Status {
		case "open":
			c.parked[at] = &waiting{gap: k.Kind == "gap", seqs: map[int64]bool{}}
			c.counts["parked.open"]++
		case "discarded":
			closed[k.ID] = k.Subject
			c.counts["parked.discarded"]++
		default:
			closed[k.ID] = k.Subject
			c.counts["parked.redriven"]++
		}
	}
	events, err := all[parkedEvent](ctx, d, `SELECT q.grp, q.source, q.subject, q.seq, q.early, coalesce(i.last_seq, 0) FROM (
			SELECT grp, source, subject, seq, false AS early FROM parked_events UNION ALL
			SELECT grp, source, subject, seq, true FROM early_events) q
		LEFT JOIN inbox i USING (grp, source, subject) ORDER BY q.grp, q.source, q.subject, q.seq`)
	if err != nil {
		return err
	}
	for _, e := range events {
		c.found.looked("I-DLQ-1", 1)
		if e.Early {
			c.found.broken("I-DLQ-1", e.Subject, "sequence %d of %s still waits in %s for one before it", e.Seq, e.Source, e.Group)
			continue
		}
		w := c.parked[key{d.name, e.Group, e.Source, e.Subject}]
		switch {
		case w == nil:
			c.found.broken("I-DLQ-1", e.Subject, "sequence %d of %s is parked in %s, and its key is not", e.Seq, e.Source, e.Group)
			continue
		case e.Seq <= e.Last:
			c.found.broken("I-DLQ-1", e.Subject, "sequence %d of %s is parked in %s, and sequence %d is applied: out of order", e.Seq, e.Source, e.Group, e.Last)
		}
		if len(w.seqs) == 0 {
			w.first = e.Seq
			c.found.expect(w.gap || e.Seq == e.Last+1, "I-DLQ-1", e.Subject, "%s is parked at sequence %d of %s, and what waits begins at %d", e.Group, e.Last, e.Source, e.Seq)
		}
		w.seqs[e.Seq] = true
	}
	for k, w := range c.parked {
		if k.database == d.name {
			c.found.expect(len(w.seqs) > 0, "I-DLQ-1", k.subject, "%s is parked in %s and nothing waits", k.source, k.group)
		}
	}
	letters, err := all[deadRow](ctx, d, `SELECT grp, topic, part, "offset", status, id, value IS NULL FROM dead_letters`)
	if err != nil {
		return err
	}
	for _, l := range letters {
		c.dead[letter{l.Group, l.Topic, l.Partition, l.Offset}] = true
		c.counts["dead_letters."+l.Status]++
		if l.Status != "redriven" {
			c.unapplied[letter{l.Group, l.Topic, l.Partition, l.Offset}] = true
		}
		if l.Status != "open" {
			closed[l.ID] = ""
			c.found.expect(l.Emptied, "I-DLQ-1", "", "dead letter %s of %s is closed and still holds its record", l.ID, l.Group)
		}
	}
	tickets, err := all[raised](ctx, d, `SELECT kind, subject, status, id FROM raised_interventions ORDER BY opened_at`)
	if err != nil {
		return err
	}
	for _, x := range tickets {
		c.counts["tickets."+x.Kind+"."+x.Status]++
		at := ticket{d.name, x.Kind, x.Subject}
		if c.tickets[at] == "open" {
			continue // an open one counts
		}
		c.tickets[at] = x.Status
		if x.Status != "open" {
			closed[x.ID] = x.Subject
		}
	}
	type decided struct {
		ID      uuid.UUID
		Actions int
	}
	decisions, err := all[decided](ctx, d, `SELECT intervention, count(*) FROM intervention_actions WHERE action <> 'dry_run' GROUP BY intervention`)
	if err != nil {
		return err
	}
	on := map[uuid.UUID]bool{}
	for _, x := range decisions {
		on[x.ID] = true
	}
	for id, subject := range closed {
		c.found.expect(on[id], "I-DLQ-1", subject, "intervention %s of %s was closed, and nobody is on record for it", id, d.name)
	}
	return c.appendOnly(ctx, d, "I-DLQ-1", "intervention_actions")
}

// appendOnly says that a table still has the trigger that keeps it from being changed.
func (c *check) appendOnly(ctx context.Context, d *database, name, table string) error {
	var guarded bool
	// 16: UPDATE, 8: DELETE, 32: TRUNCATE, as pg_trigger.tgtype has them; 2: BEFORE.
	err := d.tx.QueryRow(ctx, `SELECT coalesce(bit_or(tgtype::int) & 56 = 56, false) FROM pg_trigger
		WHERE tgrelid = $1::regclass AND NOT tgisinternal AND tgenabled IN ('O', 'A')`, table).Scan(&guarded)
	if err != nil {
		return err
	}
	c.found.expect(guarded, name, "", "nothing keeps %s of %s from being changed: its trigger is gone", table, d.name)
	return nil
}

// readAnalytics compares what analytics has counted with what the topics hold.
func (c *check) readAnalytics(ctx context.Context) error {
	type counted struct {
		Tenant int64
		Date   string
		N, Sum int64
	}
	seen := map[day]bool{}
	err := each(ctx, c.db[analyticsDB], func(r *counted) error {
		k := day{r.Tenant, r.Date}
		seen[k] = true
		var want tally
		if t := c.days[k]; t != nil {
			want = *t
		}
		if r.Date < c.countFrom {
			return nil // the topics have lost events of that day
		}
		c.found.looked("I-AN-1", r.N)
		switch {
		case r.N != want.n:
			c.found.broken("I-AN-1", "", "tenant %d on %s: analytics has %d events of the platform, the topics have %d", r.Tenant, r.Date, r.N, want.n)
		case r.Sum != want.sum:
			c.found.broken("I-AN-1", "", "tenant %d on %s: analytics has as many events as the topics, but others", r.Tenant, r.Date)
		}
		return nil
	}, `SELECT tenant_id, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), count(*),
		mod(sum(('x' || right(replace(event_id::text, '-', ''), 12))::bit(48)::bigint), 1::bigint << 48)::bigint
		FROM events WHERE payload->>'source' LIKE '/waybill/%' AND payload ? 'seq' GROUP BY 1, 2`)
	if err != nil {
		return err
	}
	for k, want := range c.days {
		if !seen[k] && k.date >= c.countFrom {
			c.found.broken("I-AN-1", "", "tenant %d on %s: analytics has no event, the topics have %d", k.tenant, k.date, want.n)
		}
	}
	return nil
}
