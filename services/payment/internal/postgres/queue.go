package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/services/payment/internal/payment"
)

// Claim leases at most limit due rows of the queue to this process and says when the next one is due (negative: none is).
// SKIP LOCKED lets replicas work side by side; the rows are locked for this one statement only, the lease is due_at.
// Committing it is the intent: a row that was claimed once is asked about before it is charged.
func (s *Store) Claim(ctx context.Context, limit int) (jobs []payment.Job, next time.Duration, err error) {
	var b pgx.Batch
	var p payment.Payment
	var sent bool
	b.Queue(`WITH due AS (
			SELECT order_id, sent FROM payments WHERE due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
		UPDATE payments p SET due_at = clock_timestamp() + make_interval(secs => $2), sent = true
		FROM due WHERE p.order_id = due.order_id RETURNING due.sent, `+paymentColumns, limit, Lease.Seconds()).
		Query(func(rows pgx.Rows) error {
			_, err := pgx.ForEachRow(rows, append([]any{&sent}, paymentFields(&p)...), func() error {
				job := payment.Job{Payment: p}
				job.Payment.Sent = sent
				jobs = append(jobs, job)
				return nil
			})
			return err
		})
	var r payment.Refund
	b.Queue(`WITH due AS (
			SELECT order_id, attempt, sent FROM refunds WHERE due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED),
		leased AS (
			UPDATE refunds r SET due_at = clock_timestamp() + make_interval(secs => $2), sent = true
			FROM due WHERE (r.order_id, r.attempt) = (due.order_id, due.attempt)
			RETURNING due.sent AS was_sent, r.*)
		SELECT r.was_sent, `+paymentColumns+`, `+refundColumns+` FROM leased r JOIN payments p USING (order_id)`, limit, Lease.Seconds()).
		Query(func(rows pgx.Rows) error {
			_, err := pgx.ForEachRow(rows, append(append([]any{&sent}, paymentFields(&p)...), refundFields(&r)...), func() error {
				refund := r
				refund.Sent = sent
				jobs = append(jobs, payment.Job{Payment: p, Refund: &refund})
				return nil
			})
			return err
		})
	var seconds *float64
	b.Queue(`SELECT extract(epoch FROM least((SELECT min(due_at) FROM payments WHERE due_at IS NOT NULL),
			(SELECT min(due_at) FROM refunds WHERE due_at IS NOT NULL)) - clock_timestamp())::float8`).
		QueryRow(func(row pgx.Row) error { return row.Scan(&seconds) })
	if err := s.pool.SendBatch(ctx, &b).Close(); err != nil {
		return nil, 0, err
	}
	if seconds == nil {
		return jobs, -1, nil
	}
	return jobs, max(time.Duration(*seconds*float64(time.Second)), 0), nil
}
