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
	"github.com/waybill-dev/waybill/libs/failpoint"
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

// park puts the key of e aside, which begins with e. Another consumer may have got it through, or what was missing may have
// come: then nothing happens.
func (i *Inbox) park(ctx context.Context, kind string, e event.Event, reason string) error {
	parked := false
	err := pg.Do(ctx, i.o.Pool, func(ctx context.Context, u *pg.Unit) error {
		parked = false
		var last int64
		var recent int
		i.readLast(u, keyOf(e), &last)
		u.Read(`SELECT count(*) FROM parked_keys WHERE grp = $1 AND type = $2 AND opened_at > now() - interval '1 minute'`,
			i.o.Group, string(e.Type)).QueryRow(func(row pgx.Row) error { return row.Scan(&recent) })
		if err := u.Fetch(ctx); err != nil {
			return err
		}
		switch {
		case last >= e.Seq || (kind == gap && last+1 == e.Seq):
			return nil
		case recent >= parkLimit: // counted over all replicas
			return errFlood
		}
		parked = true
		i.setAside(u, kind, e, reason)
		i.queue(u, "parked_events", []event.Event{e})
		return nil
	})
	if errors.Is(err, errFlood) {
		err = i.stop(e.Type)
	}
	if err != nil {
		return fmt.Errorf("park %s: %w", e.ID, err)
	}
	if parked {
		if err := failpoint.Hit("dlq.after_park"); err != nil {
			return err
		}
		i.metrics.events.WithLabelValues("parked", label(e.Type)).Inc()
		i.o.Log.Error("key parked", zap.String("kind", kind), zap.String("type", string(e.Type)), zap.String("subject", e.Subject),
			zap.Stringer("event_id", e.ID), zap.Int64("seq", e.Seq), zap.String("trace_id", traceID(e.Traceparent)), zap.String("reason", reason))
	}
	return nil
}

// parkGap puts a key aside whose next sequence did not come in time.
func (i *Inbox) parkGap(ctx context.Context, k key) error {
	rows, _ := i.o.Pool.Query(ctx, `SELECT `+eventColumns+` FROM early_events WHERE grp = $1 AND source = $2 AND subject = $3
		ORDER BY seq LIMIT 1`, i.o.Group, k.source, k.subject)
	e, err := pgx.CollectExactlyOneRow(rows, scanEvent)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // healed in the meantime
	}
	if err != nil {
		return fmt.Errorf("read early event: %w", err)
	}
	return i.park(ctx, gap, e, fmt.Sprintf("sequence %d waits for one before it, which did not come", e.Seq))
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
		events = append(events, incoming{e, based, m})
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

// buryPoison keeps an event that fails for good where keys are not parked.
func (i *Inbox) buryPoison(ctx context.Context, e incoming, cause error) error {
	var recent int
	err := i.o.Pool.QueryRow(ctx, `SELECT count(*) FROM dead_letters WHERE grp = $1 AND closed_at IS NULL
		AND opened_at > now() - interval '1 minute'`, i.o.Group).Scan(&recent) // counted over all replicas
	switch {
	case err != nil:
		return fmt.Errorf("count dead letters: %w", err)
	case recent >= parkLimit:
		return i.stop(e.Type)
	}
	return i.bury(ctx, []letter{{e.record, cause.Error()}})
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
		i.o.Log.Error("record cannot be applied", zap.String("topic", l.Topic), zap.Int32("partition", l.Partition), zap.Int64("offset", l.Offset),
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
