// Package ingest turns what happens on the platform into events of its tenants.
package ingest

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/analytics/internal/postgres"
)

// Ingest is the handler of the inbox.
type Ingest struct {
	store *postgres.Store
	log   *zap.Logger
}

// New makes an ingest.
func New(store *postgres.Store, log *zap.Logger) *Ingest { return &Ingest{store, log} }

// payload is what is kept of a platform event. Its data is left out: it holds addresses and e-mails.
type payload struct {
	Type    event.Type `json:"type"`
	Source  string     `json:"source"`
	Subject string     `json:"subject"`
	Seq     int64      `json:"seq"`
	TraceID string     `json:"trace_id,omitempty"`
}

// Events stores a batch. The processing time of an event is counted from its cause, and its cause is taken to be what
// happened last to the same subject before it, on whichever topic; the first event of a subject has none.
func (i *Ingest) Events(ctx context.Context, u *pg.Unit, batch []event.Event) error {
	from, to := i.store.Window(time.Now())
	var subjects []postgres.Subject
	for _, e := range batch {
		subjects = append(subjects, subject(e))
	}
	times, err := postgres.LoadTimes(ctx, u, subjects)
	if err != nil {
		return err
	}
	// Topics are read side by side: in the order of time a cause comes before its effect.
	batch = slices.SortedStableFunc(slices.Values(batch), func(a, b event.Event) int { return a.Time.Compare(b.Time) })
	events := make([]postgres.Event, 0, len(batch))
	for _, e := range batch {
		if e.Time.Before(from) || e.Time.After(to) { // there is no partition, and no clock of ours is that wrong
			i.log.Warn("event outside of what is kept", zap.String("type", string(e.Type)), zap.Stringer("event_id", e.ID), zap.Time("at", e.Time))
			continue
		}
		p := payload{Type: e.Type, Source: e.Source, Subject: e.Subject, Seq: e.Seq}
		if len(e.Traceparent) == 55 {
			p.TraceID = e.Traceparent[3:35]
		}
		b, err := json.Marshal(p)
		if err != nil {
			return err
		}
		events = append(events, postgres.Event{Tenant: e.Tenant, At: e.Time, ID: e.ID, Seconds: times.Since(subject(e), e.Time), Payload: b})
	}
	postgres.Insert(u, events)
	times.Save(u)
	return nil
}

func subject(e event.Event) postgres.Subject {
	return postgres.Subject{Tenant: e.Tenant, ID: e.Subject}
}
