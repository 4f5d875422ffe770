package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/stream"
)

// What parked_keys.kind says.
const (
	poison = "poison"
	gap    = "gap"
)

// errFlood says that parkLimit would be passed.
var errFlood = errors.New("too many keys parked at one event type")

// park puts the key of e aside, beginning with e.
func (i *Inbox) park(ctx context.Context, e event.Event, cause error) error {
	parked := false
	err := pg.Do(ctx, i.o.Pool, func(ctx context.Context, u *pg.Unit) error {
		parked = false
		var last int64
		var recent int
		i.readLast(u, keyOf(e), &last)
		i.readRecent(u, e.Type, &recent)
		if err := u.Fetch(ctx); err != nil {
			return err
		}
		switch {
		case last >= e.Seq: // another consumer got it through
			return nil
		case recent >= parkLimit:
			return errFlood
		}
		parked = true
		i.setAside(u, poison, e, cause.Error())
		i.queue(u, "parked_events", []event.Event{e})
		return nil
	})
	if err := i.parkedOrStopped(err, e.Type); err != nil {
		return fmt.Errorf("park %s: %w", e.ID, err)
	}
	if parked {
		i.metrics.events.WithLabelValues("parked", label(e.Type)).Inc()
		i.o.Log.Error("key parked", zap.String("kind", poison), zap.String("type", string(e.Type)), zap.String("subject", e.Subject),
			zap.Stringer("event_id", e.ID), zap.Int64("seq", e.Seq), zap.String("trace_id", traceID(e.Traceparent)), zap.Error(cause))
	}
	return nil
}

// parkGap puts a key aside whose next sequence did not come in time.
func (i *Inbox) parkGap(ctx context.Context, k key) error {
	var first []event.Event
	var last int64
	err := pg.Do(ctx, i.o.Pool, func(ctx context.Context, u *pg.Unit) error {
		i.readLast(u, k, &last)
		i.readQueue(u, "early_events", k, 1, &first, nil)
		if err := u.Fetch(ctx); err != nil {
			return err
		}
		if len(first) == 0 || first[0].Seq == last+1 {
			first = nil // healed in the meantime
			return nil
		}
		var recent int
		i.readRecent(u, first[0].Type, &recent)
		if err := u.Fetch(ctx); err != nil {
			return err
		}
		if recent >= parkLimit {
			return errFlood
		}
		i.setAside(u, gap, first[0], fmt.Sprintf("sequence %d did not come, %d waits for it", last+1, first[0].Seq))
		return nil
	})
	if len(first) == 0 {
		return err
	}
	if err := i.parkedOrStopped(err, first[0].Type); err != nil {
		return fmt.Errorf("park key after gap: %w", err)
	}
	i.o.Log.Error("key parked", zap.String("kind", gap), zap.String("type", string(first[0].Type)), zap.String("subject", k.subject),
		zap.Int64("missing", last+1), zap.Int64("seq", first[0].Seq), zap.String("trace_id", traceID(first[0].Traceparent)))
	return nil
}

func (i *Inbox) parkedOrStopped(err error, t event.Type) error {
	if errors.Is(err, errFlood) {
		return i.stop(t)
	}
	return err
}

// setAside opens an intervention for the key of e, and has what waits for it early wait there. A key that is parked already is
// locked, so that nobody closes its intervention before this unit's event is in its queue.
func (i *Inbox) setAside(u *pg.Unit, kind string, e event.Event, reason string) {
	u.Write(`INSERT INTO parked_keys (id, grp, source, subject, kind, type, tenant, reason, traceparent)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (subject, source, grp) WHERE closed_at IS NULL DO UPDATE SET reason = parked_keys.reason`,
		newID(), i.o.Group, e.Source, e.Subject, kind, string(e.Type), e.Tenant, printable(reason), e.Traceparent)
	i.divertEarly(u, keyOf(e))
}

// divertEarly moves the early events of a parked key to its queue, but for those that were applied in the meantime.
func (i *Inbox) divertEarly(u *pg.Unit, k key) {
	u.Write(`WITH moved AS (DELETE FROM early_events WHERE grp = $1 AND source = $2 AND subject = $3 RETURNING *)
		INSERT INTO parked_events (grp, `+eventColumns+`) SELECT grp, `+eventColumns+` FROM moved WHERE seq > coalesce(
			(SELECT last_seq FROM inbox i WHERE i.grp = $1 AND i.source = $2 AND i.subject = $3), 0) ON CONFLICT DO NOTHING`,
		i.o.Group, k.source, k.subject)
}

// readLast reads the last sequence of a key and holds its row.
func (i *Inbox) readLast(u *pg.Unit, k key, last *int64) {
	u.Read(`SELECT last_seq FROM inbox WHERE grp = $1 AND source = $2 AND subject = $3 FOR UPDATE`,
		i.o.Group, k.source, k.subject).Query(func(rows pgx.Rows) error {
		*last = 0
		_, err := pgx.ForEachRow(rows, []any{last}, func() error { return nil })
		return err
	})
}

// readRecent counts the keys parked within the last minute at a type, by any replica.
func (i *Inbox) readRecent(u *pg.Unit, t event.Type, n *int) {
	u.Read(`SELECT count(*) FROM parked_keys WHERE grp = $1 AND type = $2 AND opened_at > now() - interval '1 minute'`,
		i.o.Group, string(t)).QueryRow(func(row pgx.Row) error { return row.Scan(n) })
}

// readQueue reads up to limit events that a key still waits with, by sequence, and how many there are in all.
func (i *Inbox) readQueue(u *pg.Unit, table string, k key, limit int, events *[]event.Event, all *int) {
	u.Read(`SELECT `+eventColumns+`, count(*) OVER () FROM `+table+` q WHERE grp = $1 AND source = $2 AND subject = $3
		AND seq > coalesce((SELECT last_seq FROM inbox i WHERE i.grp = q.grp AND i.source = q.source AND i.subject = q.subject), 0)
		ORDER BY seq LIMIT $4`, i.o.Group, k.source, k.subject, limit).Query(func(rows pgx.Rows) (err error) {
		var n int
		*events, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (e event.Event, err error) {
			err = row.Scan(&e.Source, &e.Subject, &e.Seq, &e.ID, &e.Type, &e.Tenant, &e.Time, &e.Traceparent, &e.Data, &n)
			e.Time = e.Time.UTC()
			return e, err
		})
		if all != nil {
			*all = n
		}
		return err
	})
}

// letter is a record that is no event.
type letter struct {
	stream.Message
	reason string
}

// nameLimit bounds source, subject and type: they are keys of indexes, whose rows are at most 2,704 bytes.
const nameLimit = 255

// open decodes records. What has no key that could be parked becomes a dead letter.
func (i *Inbox) open(records []stream.Message) (events []incoming, letters []letter) {
	for _, m := range records {
		e, err := decode(m)
		if err != nil {
			letters = append(letters, letter{m, err.Error()})
			continue
		}
		i.mu.Lock()
		based := i.based[partition{m.Topic, m.Partition}]
		i.mu.Unlock()
		events = append(events, incoming{e, based})
	}
	return events, letters
}

func decode(m stream.Message) (event.Event, error) {
	e, err := stream.DecodeMessage(m)
	if err != nil {
		return e, err
	}
	for name, s := range map[string]string{"source": e.Source, "subject": e.Subject, "type": string(e.Type)} {
		if s == "" || len(s) > nameLimit || s != printable(s) {
			return e, fmt.Errorf("%s %q is not 1-%d bytes of text", name, s, nameLimit)
		}
	}
	if e.Seq < 1 {
		return e, fmt.Errorf("sequence %d of %s is not above 0", e.Seq, e.ID)
	}
	e.Traceparent = printable(e.Traceparent)
	return e, nil
}

// bury keeps records that cannot be applied.
func (i *Inbox) bury(ctx context.Context, letters []letter) error {
	err := pg.Do(ctx, i.o.Pool, func(ctx context.Context, u *pg.Unit) error {
		for _, l := range letters {
			headers, err := json.Marshal(append([]stream.Header{}, l.Headers...))
			if err != nil {
				return err
			}
			u.Write(`INSERT INTO dead_letters (id, grp, topic, part, "offset", at, key, value, headers, reason)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING`,
				newID(), i.o.Group, l.Topic, l.Partition, l.Offset, l.Time, l.Key, l.Value, headers, printable(l.reason))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keep %d dead letters: %w", len(letters), err)
	}
	for _, l := range letters {
		i.metrics.events.WithLabelValues("dead", "").Inc()
		i.o.Log.Error("record is no event", zap.String("topic", l.Topic), zap.Int32("partition", l.Partition), zap.Int64("offset", l.Offset),
			zap.String("reason", l.reason))
	}
	return nil
}

// printable makes s something that a text column takes, at most 2,000 bytes of it.
func printable(s string) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) > 2000 {
		for s = s[:2000]; !utf8.ValidString(s); {
			s = s[:len(s)-1]
		}
	}
	return s
}

// newID makes a UUIDv7: interventions are listed by it, newest first.
func newID() uuid.UUID {
	id, err := uuid.NewV7()
	if err != nil {
		panic(err) // the system has no randomness left
	}
	return id
}
