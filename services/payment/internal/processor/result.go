package processor

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/payment/internal/payment"
)

// Result is what was learnt of one order's charge or refund: from a call, or from a webhook.
type Result struct {
	OrderID   string
	WebhookID string // empty: a call's
	Charge    *payment.ChargeAnswer
	Refund    *payment.RefundAnswer
	// Amount and Currency are what a webhook says about it; a capture of another amount is not taken as ours. Calls compare
	// before they report.
	Amount   int64
	Currency string

	// Err says why it changed nothing, after it was written.
	Err error
}

// Learn takes in what a webhook tells. It returns once that is committed; payment.ErrNoPayment where there is no such
// payment, nil for a webhook that was read before.
func (x *Processor) Learn(ctx context.Context, r *Result) error {
	if err := x.results.Do(ctx, r); err != nil {
		return err
	}
	return r.Err
}

// write applies results in one transaction. What does not fit an account is that result's alone.
func (x *Processor) write(ctx context.Context, results []*Result) error {
	ids := make([]string, len(results))
	var hooks []string
	for i, r := range results {
		ids[i] = r.OrderID
		if r.WebhookID != "" {
			hooks = append(hooks, r.WebhookID)
		}
	}
	run := func(ctx context.Context, u *pg.Unit) error {
		seen := map[string]bool{}
		if len(hooks) > 0 {
			u.Read(`SELECT id FROM webhooks WHERE id = ANY($1)`, hooks).Query(func(rows pgx.Rows) error {
				var id string
				_, err := pgx.ForEachRow(rows, []any{&id}, func() error { seen[id] = true; return nil })
				return err
			})
		}
		all, err := x.store.Load(ctx, u, ids, false)
		if err != nil {
			return err
		}
		var fresh []string
		for _, r := range results {
			r.Err = nil
			if r.WebhookID != "" {
				if seen[r.WebhookID] {
					continue
				}
				seen[r.WebhookID] = true
				fresh = append(fresh, r.WebhookID)
			}
			r.Err = apply(all[r.OrderID], r)
		}
		work := x.store.Save(u, all, x.Room())
		if len(fresh) > 0 {
			// A plain insert: who loses against another replica runs again and finds the id.
			u.Write(`INSERT INTO webhooks (id) SELECT unnest($1::text[])`, fresh)
		}
		u.AfterCommit(func() { x.Take(work); x.metrics.count(all) })
		return nil
	}
	err := pg.Do(ctx, x.store.Pool(), run)
	if _, lost := pg.UniqueViolation(err); lost {
		err = pg.Do(ctx, x.store.Pool(), run)
	}
	return err
}

func apply(a *payment.Account, r *Result) error {
	if p := a.Payment; r.WebhookID != "" && p != nil && (r.Refund != nil || r.Charge.Fact == payment.ChargeCaptured) &&
		(r.Amount != p.Amount || r.Currency != p.Currency) {
		return payment.ErrAmountMismatch
	}
	switch {
	case r.Charge != nil:
		return a.Charged(*r.Charge)
	case r.Refund != nil:
		return a.RefundAnswered(*r.Refund)
	}
	return errors.New("a result without an answer")
}
