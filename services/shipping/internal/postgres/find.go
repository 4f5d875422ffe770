package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/shipping/internal/shipment"
)

// Order is what is known of an order.
type Order struct {
	Tenant    int64
	Customer  string
	Paid      bool
	Shipments []shipment.Shipment // by attempt
}

// Find returns the order and its shipments, nil where no event has told of it.
func (s *Store) Find(ctx context.Context, id string) (*Order, error) {
	var o *Order
	err := pg.Do(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		o = nil
		readOrder(u, id, &o)
		return u.Fetch(ctx)
	})
	if err != nil {
		return nil, fmt.Errorf("find shipments of %s: %w", id, err)
	}
	return o, nil
}

// Answer runs decide on the order, once for each Idempotency-Key: the second caller gets the first one's answer.
func (s *Store) Answer(ctx context.Context, req inbox.Request, id string, decide func(*Order) (inbox.Response, error)) (out inbox.Response, replayed bool, err error) {
	err = pg.Do(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		var o *Order
		found := inbox.FindResponses(u, []inbox.Request{req})
		readOrder(u, id, &o)
		if err := u.Fetch(ctx); err != nil {
			return err
		}
		var err error
		if out, replayed, err = found.Get(req); err != nil || replayed {
			return err
		}
		if out, err = decide(o); err != nil {
			return err
		}
		inbox.StoreResponses(u, []inbox.Request{req}, []inbox.Response{out})
		return nil
	})
	return out, replayed, err
}

func readOrder(u *pg.Unit, id string, o **Order) {
	u.Read(`SELECT tenant, customer, paid_at IS NOT NULL FROM orders WHERE order_id = $1`, id).Query(func(rows pgx.Rows) error {
		var found Order
		_, err := pgx.ForEachRow(rows, []any{&found.Tenant, &found.Customer, &found.Paid}, func() error {
			*o = &found
			return nil
		})
		return err
	})
	u.Read(`SELECT order_id, attempt, status, reason, tracking, address, items, requested_at, updated_at FROM shipments
		WHERE order_id = $1 ORDER BY attempt`, id).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (x shipment.Shipment, err error) {
			err = row.Scan(&x.OrderID, &x.Attempt, &x.Status, &x.Reason, &x.Tracking, &x.Address, &x.Items, &x.RequestedAt, &x.UpdatedAt)
			x.RequestedAt, x.UpdatedAt = x.RequestedAt.UTC(), x.UpdatedAt.UTC()
			return x, err
		})
		if *o != nil {
			(*o).Shipments = found
		}
		return err
	})
}
