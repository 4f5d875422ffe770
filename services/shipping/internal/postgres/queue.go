package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/services/shipping/internal/shipment"
)

// Lease is how long a claimed shipment belongs to who claimed it: longer than the carrier's time-out and the wait for
// one's turn. A process that dies in between leaves its claims to the others after that time.
const Lease = 30 * time.Second

// Claim takes up to n shipments whose time has come out of the queue, oldest first, for as long as the lease. It passes
// over what another replica is just claiming. The intent, that the carrier is about to be called, is committed when it returns.
func (s *Store) Claim(ctx context.Context, n int) ([]shipment.Shipment, error) {
	rows, err := s.pool.Query(ctx, `WITH due AS (
			SELECT order_id, attempt FROM shipments WHERE due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
		UPDATE shipments s SET due_at = now() + $2::interval, calls = calls + (status = 'requested')::int
		FROM due WHERE s.order_id = due.order_id AND s.attempt = due.attempt
		RETURNING s.order_id, s.attempt, s.status, s.address, s.items, s.traceparent, s.calls`, n, Lease)
	if err != nil {
		return nil, fmt.Errorf("claim due shipments: %w", err)
	}
	claimed, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (x shipment.Shipment, err error) {
		err = row.Scan(&x.OrderID, &x.Attempt, &x.Status, &x.Address, &x.Items, &x.Traceparent, &x.Calls)
		return x, err
	})
	if err != nil {
		return nil, fmt.Errorf("claim due shipments: %w", err)
	}
	return claimed, nil
}

// Backlog counts the shipments that no carrier has accepted yet and says how long the oldest of them has waited.
func (s *Store) Backlog(ctx context.Context) (waiting int, oldest time.Duration, err error) {
	err = s.pool.QueryRow(ctx, `SELECT count(*), coalesce(now() - min(requested_at), '0') FROM shipments
		WHERE due_at IS NOT NULL AND status = 'requested'`).Scan(&waiting, &oldest)
	if err != nil {
		return 0, 0, fmt.Errorf("count waiting shipments: %w", err)
	}
	return waiting, oldest, nil
}
