// Package ingest turns what happens on the platform into events of its tenants.
package ingest

import (
	"context"
	"encoding/json"
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

// Events stores a batch. An event is stored once, by its id, and its processing time is counted from its cause; where
// nothing on the platform caused it there is none.
func (i *Ingest) Events(_ context.Context, u *pg.Unit, batch []event.Event) error {
	from, to := i.store.Window(time.Now())
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
		events = append(events, postgres.Event{Tenant: e.Tenant, At: e.Time, ID: e.ID, Seconds: processing(e), Payload: b})
	}
	postgres.Insert(u, events)
	return nil
}

// processing is the time from an event's cause to itself, in seconds. Clocks of two machines may differ by more than that.
func processing(e event.Event) *float64 {
	if e.Cause.IsZero() {
		return nil
	}
	seconds := max(e.Time.Sub(e.Cause), 0).Seconds()
	return &seconds
}
