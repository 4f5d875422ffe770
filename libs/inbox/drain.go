package inbox

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/failpoint"
	"github.com/waybill-dev/waybill/libs/pg"
)

// act is who does what about an intervention.
type act struct {
	id                    uuid.UUID
	action, actor, reason string
	dry                   bool
	head                  int64 // discard only if the queue begins with this sequence; 0: whatever it begins with
}

// Result is what a redrive or a discard did.
type Result struct {
	ID      uuid.UUID `json:"id"`
	Status  string    `json:"status"`
	DryRun  bool      `json:"dry_run"`
	Applied int       `json:"applied"` // events
	Left    int       `json:"left"`    // events that still wait
	Error   string    `json:"error,omitempty"`
}

// errDry rolls a dry run back.
var errDry = errors.New("dry run")

// errHead says that somebody else has moved the queue on.
var errHead = errors.New("the queue begins with another event")

// step is one transaction over the queue of a key.
type step struct {
	tried   []event.Event // contiguous after the last sequence
	applied int
	left    int
	status  string // of the parked key
}

// drain applies what a key waits with, as far as its sequence is contiguous. An event that fails for good ends it: in
// early_events it parks the key, in parked_events the key stays parked.
func (i *Inbox) drain(ctx context.Context, k key, table string, a act) (r Result, err error) {
	r = Result{ID: a.id, DryRun: a.dry}
	if a.action == "discard" {
		s, err := i.skip(ctx, k, a)
		if err != nil || s.status != "open" {
			r.Status = s.status
			return r, err
		}
	}
	for limit := chunk; ; {
		s, err := i.step(ctx, k, table, limit, a)
		r.Status, r.Left = s.status, s.left
		switch {
		case permanent(err) && len(s.tried) > 1 && !a.dry:
			limit = len(s.tried) / 2
			continue
		case permanent(err) && len(s.tried) > 0:
			r.Error, r.Left = printable(err.Error()), s.left+len(s.tried)
			if table == "early_events" {
				return r, i.park(ctx, poison, s.tried[0], err.Error())
			}
			return r, i.fail(ctx, k, s.tried[0], err, a)
		case err != nil:
			return r, fmt.Errorf("redrive %s of %s: %w", k.subject, k.source, err)
		}
		r.Applied += s.applied
		if s.applied > 0 && !a.dry && table == "parked_events" {
			if err := failpoint.Hit("redrive.after_apply"); err != nil {
				return r, err
			}
		}
		if a.dry {
			return r, pg.Do(ctx, i.o.Pool, func(_ context.Context, u *pg.Unit) error {
				i.audit(u, a, fmt.Sprintf("would apply %d, leave %d", r.Applied, r.Left))
				return nil
			})
		}
		if s.applied == 0 || s.left == 0 {
			return r, nil
		}
	}
}

// step applies up to limit events. Where none is left behind it closes the key.
func (i *Inbox) step(ctx context.Context, k key, table string, limit int, a act) (s step, err error) {
	parked := table == "parked_events"
	err = pg.Do(ctx, i.o.Pool, func(ctx context.Context, u *pg.Unit) error {
		s = step{}
		var waiting []event.Event
		var last int64
		var all int
		i.readParked(u, k, &s.status)
		i.readLast(u, k, &last)
		i.readQueue(u, table, k, limit, &waiting, &all)
		if err := u.Fetch(ctx); err != nil {
			return err
		}
		if parked != (s.status == "open") {
			if !parked { // parked since: the queue is over there
				i.divertEarly(u, k)
			}
			return nil
		}
		was := last
		for len(s.tried) < len(waiting) && waiting[len(s.tried)].Seq == last+1 {
			last++
			s.tried = waiting[:len(s.tried)+1]
		}
		s.left = all - len(s.tried)
		if err := i.run(ctx, u, s.tried); err != nil {
			return err
		}
		if a.dry {
			s.applied = len(s.tried)
			if err := u.Flush(ctx); err != nil {
				return err
			}
			return errDry
		}
		if last > was {
			i.advance(u, []move{{k, was, last}})
		}
		i.unqueue(u, table, k, last)
		if parked {
			i.moveOn(u, k, &s, last > was, a)
			i.audit(u, a, fmt.Sprintf("applied %d, left %d", len(s.tried), s.left))
		}
		u.AfterCommit(func() { i.count(sorting{fresh: s.tried}) })
		s.applied = len(s.tried)
		return nil
	})
	if errors.Is(err, errDry) {
		err = nil
	}
	return s, err
}

// skip gives up what a parked key stands at: its first event, or the sequences before that which never came.
func (i *Inbox) skip(ctx context.Context, k key, a act) (s step, err error) {
	err = pg.Do(ctx, i.o.Pool, func(ctx context.Context, u *pg.Unit) error {
		s = step{}
		var waiting []event.Event
		var last int64
		i.readParked(u, k, &s.status)
		i.readLast(u, k, &last)
		i.readQueue(u, "parked_events", k, 1, &waiting, &s.left)
		if err := u.Fetch(ctx); err != nil || s.status != "open" {
			return err
		}
		if a.head != 0 && (len(waiting) == 0 || waiting[0].Seq != a.head) {
			return errHead
		}
		to, what := last, "nothing waited"
		if len(waiting) > 0 {
			if to = waiting[0].Seq - 1; to > last {
				what = fmt.Sprintf("gave up sequences %d to %d, which never came", last+1, to)
			} else {
				to, what = waiting[0].Seq, fmt.Sprintf("gave up sequence %d, event %s", waiting[0].Seq, waiting[0].ID)
				s.left--
			}
			i.advance(u, []move{{k, last, to}})
		}
		i.unqueue(u, "parked_events", k, to)
		i.moveOn(u, k, &s, true, a)
		i.audit(u, a, what)
		return nil
	})
	return s, err
}

// moveOn closes a parked key whose queue is empty. Otherwise it waits on, as a gap: what follows is either driven next, and
// will say so if it fails, or is not contiguous.
func (i *Inbox) moveOn(u *pg.Unit, k key, s *step, moved bool, a act) {
	if s.left > 0 {
		if moved {
			u.Write(`UPDATE parked_keys SET kind = 'gap', attempts = 0, reason = 'the next sequence has not come'
				WHERE grp = $1 AND source = $2 AND subject = $3 AND closed_at IS NULL`, i.o.Group, k.source, k.subject)
		}
		return
	}
	s.status = "redriven"
	if a.action == "discard" {
		s.status = "discarded"
	}
	i.unqueue(u, "parked_events", k, math.MaxInt64) // what is left was applied by another consumer
	u.Write(`UPDATE parked_keys SET status = $4, note = $5, closed_at = now()
		WHERE grp = $1 AND source = $2 AND subject = $3 AND closed_at IS NULL`, i.o.Group, k.source, k.subject, s.status, a.reason)
}

// readParked locks the parked key against events that are being diverted. Status is empty where there is none.
func (i *Inbox) readParked(u *pg.Unit, k key, status *string) {
	u.Read(`SELECT status FROM parked_keys WHERE grp = $1 AND source = $2 AND subject = $3 AND closed_at IS NULL FOR UPDATE`,
		i.o.Group, k.source, k.subject).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{status}, func() error { return nil })
		return err
	})
}

// fail notes that a parked key still cannot go on, and what with.
func (i *Inbox) fail(ctx context.Context, k key, e event.Event, cause error, a act) error {
	err := pg.Do(ctx, i.o.Pool, func(_ context.Context, u *pg.Unit) error {
		if !a.dry {
			u.Write(`UPDATE parked_keys SET kind = 'poison', attempts = attempts + 1, reason = $4, type = $5, traceparent = $6
				WHERE grp = $1 AND source = $2 AND subject = $3 AND closed_at IS NULL`,
				i.o.Group, k.source, k.subject, printable(cause.Error()), string(e.Type), e.Traceparent)
		}
		i.audit(u, a, printable(fmt.Sprintf("sequence %d, event %s: %v", e.Seq, e.ID, cause)))
		return nil
	})
	if err != nil {
		return fmt.Errorf("note failed redrive: %w", err)
	}
	i.o.Log.Warn("redrive failed", zap.Stringer("intervention", a.id), zap.String("subject", k.subject),
		zap.Stringer("event_id", e.ID), zap.Int64("seq", e.Seq), zap.String("trace_id", traceID(e.Traceparent)), zap.Error(cause))
	return nil
}

// audit writes down what was done about an intervention.
func (i *Inbox) audit(u *pg.Unit, a act, outcome string) {
	u.Write(`INSERT INTO intervention_actions (intervention, action, actor, outcome, reason) VALUES ($1, $2, $3, $4, $5)`,
		a.id, a.action, a.actor, outcome, a.reason)
}
