package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/failpoint"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/stream"
)

// Intervention is something that a service itself cannot decide, such as a compensation that failed.
type Intervention struct {
	Kind    string // the service's own; poison, gap and dead_letter are taken
	Subject string
	Tenant  int64
	Reason  string
	Detail  any    // marshalled as JSON; no personal data
	Trace   string // traceparent
}

// Raise opens an intervention with the unit's effect. One that is open for its kind and subject stays as it is.
func (i *Inbox) Raise(u *pg.Unit, x Intervention) {
	detail, err := json.Marshal(x.Detail)
	if err != nil {
		panic(fmt.Sprintf("inbox: detail of intervention %s: %v", x.Kind, err))
	}
	u.Write(`INSERT INTO raised_interventions (id, grp, kind, subject, tenant, reason, detail, traceparent)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (subject, kind, grp) WHERE closed_at IS NULL DO NOTHING`,
		newID(), i.o.Group, x.Kind, x.Subject, x.Tenant, printable(x.Reason), detail, x.Trace)
}

// Resolve closes a raised intervention, if one is open, because the service came over it.
func (i *Inbox) Resolve(u *pg.Unit, kind, subject, note string) {
	u.Write(`WITH done AS (
			UPDATE raised_interventions SET status = 'resolved', note = $4, closed_at = now()
			WHERE grp = $1 AND kind = $2 AND subject = $3 AND closed_at IS NULL RETURNING id)
		INSERT INTO intervention_actions (intervention, action, actor, outcome, reason) SELECT id, 'resolve', $1, 'resolved', $4 FROM done`,
		i.o.Group, kind, subject, note)
}

// item is an intervention as it is listed.
type item struct {
	ID       uuid.UUID  `json:"id"`
	Kind     string     `json:"kind"`
	Status   string     `json:"status"`
	Source   string     `json:"source,omitempty"`
	Subject  string     `json:"subject"`
	Type     string     `json:"type,omitempty"`
	Tenant   int64      `json:"tenant"`
	Error    string     `json:"error"`
	Attempts int        `json:"attempts"`
	TraceID  string     `json:"trace_id,omitempty"`
	Note     string     `json:"note,omitempty"`
	OpenedAt time.Time  `json:"opened_at"`
	ClosedAt *time.Time `json:"closed_at,omitempty"`
}

const itemColumns = `id, kind, status, source, subject, type, tenant, reason, attempts, traceparent, note, opened_at, closed_at`

func scanItem(row pgx.CollectableRow) (x item, err error) {
	var trace string
	err = row.Scan(&x.ID, &x.Kind, &x.Status, &x.Source, &x.Subject, &x.Type, &x.Tenant, &x.Error, &x.Attempts, &trace, &x.Note,
		&x.OpenedAt, &x.ClosedAt)
	x.TraceID = traceID(trace)
	return x, err
}

// traceID is the part of a traceparent that logs and answers name.
func traceID(traceparent string) string {
	if parts := strings.Split(traceparent, "-"); len(parts) == 4 {
		return parts[1]
	}
	return ""
}

// details is all that is known about one intervention.
type details struct {
	item
	Events  []waiting       `json:"events,omitempty"` // of a parked key, the first ones
	Record  *record         `json:"record,omitempty"` // of a dead letter
	Detail  json.RawMessage `json:"detail,omitempty"` // of a raised one
	Actions []action        `json:"actions"`
}

type waiting struct {
	ID      uuid.UUID       `json:"id"`
	Seq     int64           `json:"seq"`
	Type    string          `json:"type"`
	Time    time.Time       `json:"time"`
	Payload json.RawMessage `json:"payload"` // base64 where the type is not linked into this program
}

type record struct {
	Topic     string          `json:"topic"`
	Partition int32           `json:"partition"`
	Offset    int64           `json:"offset"`
	Time      time.Time       `json:"time"`
	Key       []byte          `json:"key"`
	Value     []byte          `json:"value"`
	Headers   []stream.Header `json:"headers"`
}

type action struct {
	At      time.Time `json:"at"`
	Action  string    `json:"action"`
	Actor   string    `json:"actor"`
	Outcome string    `json:"outcome"`
	Reason  string    `json:"reason,omitempty"`
}

// find returns the intervention with this id, or pgx.ErrNoRows.
func (i *Inbox) find(ctx context.Context, id uuid.UUID) (item, error) {
	rows, _ := i.o.Pool.Query(ctx, `SELECT `+itemColumns+` FROM interventions WHERE grp = $1 AND id = $2`, i.o.Group, id)
	return pgx.CollectExactlyOneRow(rows, scanItem)
}

// inspect adds to an intervention whatever it is about.
func (i *Inbox) inspect(ctx context.Context, x item) (d details, err error) {
	d.item = x
	rows, _ := i.o.Pool.Query(ctx, `SELECT at, action, actor, outcome, reason FROM intervention_actions a WHERE intervention = $1
		ORDER BY a.id LIMIT 1000`, x.ID)
	if d.Actions, err = pgx.CollectRows(rows, pgx.RowToStructByPos[action]); err != nil || d.ClosedAt != nil {
		return d, err
	}
	switch d.Kind {
	case poison, gap:
		rows, _ := i.o.Pool.Query(ctx, `SELECT `+eventColumns+` FROM parked_events WHERE grp = $1 AND source = $2 AND subject = $3
			ORDER BY seq LIMIT 100`, i.o.Group, d.Source, d.Subject)
		events, err := pgx.CollectRows(rows, scanEvent)
		for _, e := range events {
			d.Events = append(d.Events, waiting{e.ID, e.Seq, string(e.Type), e.Time, payload(e)})
		}
		return d, err
	case deadLetter:
		d.Record, err = i.record(ctx, x.ID)
		return d, err
	}
	return d, i.o.Pool.QueryRow(ctx, `SELECT detail FROM raised_interventions WHERE id = $1`, x.ID).Scan(&d.Detail)
}

func (i *Inbox) record(ctx context.Context, id uuid.UUID) (*record, error) {
	var r record
	err := i.o.Pool.QueryRow(ctx, `SELECT topic, part, "offset", at, key, value, headers FROM dead_letters WHERE id = $1`, id).
		Scan(&r.Topic, &r.Partition, &r.Offset, &r.Time, &r.Key, &r.Value, &r.Headers)
	return &r, err
}

// payload shows the message of an event. Messages are named after types: order.created is OrderCreated in some package.
func payload(e event.Event) json.RawMessage {
	var name strings.Builder
	for _, word := range strings.FieldsFunc(string(e.Type), func(r rune) bool { return r == '.' || r == '_' }) {
		name.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	var found protoreflect.MessageType
	protoregistry.GlobalTypes.RangeMessages(func(t protoreflect.MessageType) bool {
		if string(t.Descriptor().Name()) == name.String() {
			found = t
		}
		return found == nil
	})
	if found != nil {
		m := found.New().Interface()
		if e.Decode(m) == nil {
			if out, err := (protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}).Marshal(m); err == nil {
				return out
			}
		}
	}
	out, _ := json.Marshal(e.Data) // bytes always marshal
	return out
}

// act redrives or discards an open intervention.
func (i *Inbox) act(ctx context.Context, x item, a act) (Result, error) {
	switch {
	case x.Kind == poison || x.Kind == gap:
		return i.drain(ctx, key{x.Source, x.Subject}, "parked_events", a)
	case x.Kind == deadLetter && a.action == "discard":
		return i.finish(ctx, "dead_letters", x, a, "discarded", nil)
	case x.Kind == deadLetter:
		return i.redriveLetter(ctx, x, a)
	case a.action == "discard":
		return i.finish(ctx, "raised_interventions", x, a, "discarded", nil)
	}
	return i.redriveRaised(ctx, x, a)
}

// redriveLetter brings a record again that was no event; a later version may understand it.
func (i *Inbox) redriveLetter(ctx context.Context, x item, a act) (Result, error) {
	r, err := i.record(ctx, x.ID)
	if err != nil {
		return Result{}, fmt.Errorf("read dead letter %s: %w", x.ID, err)
	}
	m := stream.Message{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value, Headers: r.Headers, Time: r.Time}
	e, cause := decode(m)
	if cause == nil && !a.dry {
		again := []incoming{{Event: e, record: m}}
		if i.o.Unordered { // what is poison still stays the letter that it is
			err = i.applyUnordered(ctx, again)
		} else {
			err = i.bisect(ctx, again)
		}
		if !permanent(err) && err != nil {
			return Result{}, err
		}
		cause = err
	}
	return i.finish(ctx, "dead_letters", x, a, "redriven", cause)
}

// redriveRaised hands a raised intervention back to its service.
func (i *Inbox) redriveRaised(ctx context.Context, x item, a act) (Result, error) {
	var r Result
	again := i.o.Redrive[x.Kind]
	if again == nil {
		return r, errNotRedrivable
	}
	err := pg.Do(ctx, i.o.Pool, func(ctx context.Context, u *pg.Unit) error {
		r = Result{ID: x.ID, Status: x.Status, DryRun: a.dry}
		open := false
		u.Read(`SELECT FROM raised_interventions WHERE id = $1 AND closed_at IS NULL FOR UPDATE`, x.ID).Query(func(rows pgx.Rows) error {
			open = rows.Next()
			rows.Close()
			return rows.Err()
		})
		if err := u.Fetch(ctx); err != nil || !open {
			return err
		}
		if err := again(ctx, u, x.ID, x.Subject); err != nil {
			return err
		}
		if a.dry {
			if err := u.Flush(ctx); err != nil {
				return err
			}
			return errDry
		}
		i.queueClose(u, "raised_interventions", x.ID, "redriven", a)
		r.Status, r.Applied = "redriven", 1
		return nil
	})
	switch {
	case permanent(err):
		return i.finish(ctx, "raised_interventions", x, a, "", err)
	case errors.Is(err, errDry):
		return i.finish(ctx, "raised_interventions", x, a, "", nil)
	}
	return r, failpoint.After(err, "redrive.after_apply")
}

// finish closes a dead letter or raised intervention with status, or notes what it failed with. A dry run only writes down
// that it was made.
func (i *Inbox) finish(ctx context.Context, table string, x item, a act, status string, cause error) (Result, error) {
	r := Result{ID: x.ID, Status: "open", DryRun: a.dry}
	err := pg.Do(ctx, i.o.Pool, func(_ context.Context, u *pg.Unit) error {
		switch {
		case cause != nil:
			r.Error = printable(cause.Error())
			if !a.dry {
				u.Write(`UPDATE `+table+` SET attempts = attempts + 1, reason = $2 WHERE id = $1 AND closed_at IS NULL`, x.ID, r.Error)
			}
			i.audit(u, a, r.Error)
		case a.dry:
			r.Applied = 1
			i.audit(u, a, "would succeed")
		default:
			r.Status = status
			i.queueClose(u, table, x.ID, status, a)
		}
		return nil
	})
	if err != nil {
		return r, fmt.Errorf("close intervention %s: %w", x.ID, err)
	}
	return r, nil
}

// queueClose closes a dead letter or raised intervention, once.
func (i *Inbox) queueClose(u *pg.Unit, table string, id uuid.UUID, status string, a act) {
	empty := ""
	if table == "dead_letters" {
		empty = ", value = NULL"
	}
	u.Write(`WITH done AS (UPDATE `+table+` SET status = $2, note = $3, closed_at = now()`+empty+` WHERE id = $1 AND closed_at IS NULL RETURNING id)
		INSERT INTO intervention_actions (intervention, action, actor, outcome, reason) SELECT id, $4, $5, $2, $3 FROM done`,
		id, status, a.reason, a.action, a.actor)
}
