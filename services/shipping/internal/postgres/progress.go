package postgres

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/pg"
	shippingv1 "github.com/waybill-dev/waybill/proto/gen/waybill/shipping/v1"
	"github.com/waybill-dev/waybill/services/shipping/internal/shipment"
)

const (
	// pollEvery is how soon the carrier is asked where a parcel is that it has not spoken of: the floor under its webhooks.
	pollEvery = 5 * time.Second
	// pollMost is how far the pause grows, by a tenth of the time since the last news: a parcel that is a week on its way
	// is asked for once a minute.
	pollMost = time.Minute
)

// pollAt is the time of the next poll for a shipment whose last news came at updated_at. The SQL knows pollEvery and
// pollMost as parameters $1 and $2.
const pollAt = `now() + greatest($1::interval, least($2::interval, (now() - updated_at) / 10))`

// row is a locked shipment.
type row struct {
	shipment.Shipment
	was      shipment.Status
	since    time.Time // when it came to be so
	again    time.Duration
	postpone bool
}

// Apply takes in what the carrier has said and says which of the shipments there are. Reports that bring nothing new
// change nothing; the others move their shipment and are published, one event for each shipment and call.
func (s *Store) Apply(ctx context.Context, changes []shipment.Change) (known []bool, err error) {
	subjects := map[string]bool{}
	for _, c := range changes {
		subjects[c.OrderID] = true
	}
	ids := slices.Sorted(maps.Keys(subjects))
	err = pg.Do(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		known = make([]bool, len(changes))
		orders := lockOrders(u, ids)
		shipments := readShipments(u, ids)
		if err := u.Fetch(ctx); err != nil {
			return err
		}
		for i, c := range changes {
			r := shipments[c.Key]
			if known[i] = r != nil; r == nil || r.Status.Final() {
				continue
			}
			switch {
			case c.Status.After(r.Status):
				r.Status, r.Reason = c.Status, c.Reason
				if c.Tracking != "" {
					r.Tracking = c.Tracking
				}
			case c.Again > 0:
				r.again, r.postpone = c.Again, true
			}
		}
		s.move(u, ids, orders, shipments)
		return nil
	})
	return known, err
}

func readShipments(u *pg.Unit, ids []string) map[shipment.Key]*row {
	shipments := map[shipment.Key]*row{}
	u.Read(`SELECT order_id, attempt, status, reason, tracking, traceparent, updated_at FROM shipments WHERE order_id = ANY($1)`, ids).
		Query(func(rows pgx.Rows) error {
			var r row
			_, err := pgx.ForEachRow(rows, []any{&r.OrderID, &r.Attempt, &r.Status, &r.Reason, &r.Tracking, &r.Traceparent, &r.since}, func() error {
				found := r
				found.was = r.Status
				shipments[r.Key] = &found
				return nil
			})
			return err
		})
	return shipments
}

// move queues the changed shipments, their orders and events.
func (s *Store) move(u *pg.Unit, ids []string, orders map[string]*order, shipments map[shipment.Key]*row) {
	var moved, later moves
	var events []event.Event
	for _, k := range slices.SortedFunc(maps.Keys(shipments), shipment.Compare) {
		r := shipments[k]
		switch {
		case r.Status != r.was:
			moved.add(r)
			o := orders[k.OrderID]
			o.seq++
			o.changed = true
			events = append(events, r.event(o))
		case r.postpone:
			later.add(r)
		}
	}
	writeOrders(u, ids, orders)
	if n := len(moved.ids); n > 0 {
		u.Guard(n, `UPDATE shipments SET status = s.status, reason = s.reason, tracking = s.tracking, updated_at = now(),
				finished_at = CASE WHEN s.status IN ('delivered', 'failed') THEN now() END,
				due_at = CASE WHEN s.status NOT IN ('delivered', 'failed') THEN now() + $1::interval END
			FROM unnest($2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[]) AS s(id, attempt, was, status, reason, tracking)
			WHERE shipments.order_id = s.id AND shipments.attempt = s.attempt AND shipments.status = s.was`,
			pollEvery, moved.ids, moved.attempts, moved.was, moved.status, moved.reasons, moved.tracking)
		s.outbox.Add(u, events...)
	}
	if len(later.ids) > 0 {
		u.Write(`UPDATE shipments SET due_at = CASE WHEN shipments.status = 'requested' THEN now() + s.again ELSE `+pollAt+` END
			FROM unnest($3::text[], $4::int[], $5::text[], $6::interval[]) AS s(id, attempt, was, again)
			WHERE shipments.order_id = s.id AND shipments.attempt = s.attempt AND shipments.status = s.was`,
			pollEvery, pollMost, later.ids, later.attempts, later.was, later.again)
	}
}

type moves struct {
	ids, was, status, reasons, tracking []string
	attempts                            []int32
	again                               []time.Duration
}

func (m *moves) add(r *row) {
	m.ids, m.attempts, m.again = append(m.ids, r.OrderID), append(m.attempts, r.Attempt), append(m.again, r.again)
	m.was, m.status = append(m.was, string(r.was)), append(m.status, string(r.Status))
	m.reasons, m.tracking = append(m.reasons, r.Reason), append(m.tracking, r.Tracking)
}

// event tells the platform of the shipment's new state. It continues the trace of the event that asked for the shipment.
func (r *row) event(o *order) event.Event {
	cause := event.Event{Tenant: o.tenant, Traceparent: r.Traceparent, Time: r.since}
	switch r.Status {
	case shipment.Delivered:
		return cause.Next(event.ShippingCompleted, r.OrderID, o.seq,
			&shippingv1.ShippingCompleted{OrderId: r.OrderID, Attempt: r.Attempt, Tracking: r.Tracking})
	case shipment.Failed:
		return cause.Next(event.ShippingFailed, r.OrderID, o.seq,
			&shippingv1.ShippingFailed{OrderId: r.OrderID, Attempt: r.Attempt, Reason: r.Reason, Tracking: r.Tracking})
	}
	return cause.Next(event.ShippingProgress, r.OrderID, o.seq,
		&shippingv1.ShippingProgress{OrderId: r.OrderID, Attempt: r.Attempt, Status: string(r.Status), Tracking: r.Tracking})
}
