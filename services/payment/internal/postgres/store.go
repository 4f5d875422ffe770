// Package postgres keeps the payment service's state. Everything is read and written for many orders at once: a
// transaction costs round trips and plan starts, not rows.
//
// Lock order: known_orders by id, then payments by id. Refunds and ledger entries are only touched under the lock of their
// payment. What decides about a payment is in its own row (closed and written_off are copies of the order's), because a
// row that had to be waited for is read again after the wait, and a joined one is not.
package postgres

import (
	"cmp"
	"context"
	"embed"
	"io/fs"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/payment/internal/payment"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations is the schema of the payment service.
var Migrations = func() pg.Migrations {
	root, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err)
	}
	return pg.Migrations{Name: "payment", FS: root}
}()

// Lease is how long a row of the queue belongs to who took it: asking (3 s), then charging (5 s) or voiding (3 s), and 4 s
// to write what came of it. After a crash the row is taken over when this has passed.
const Lease = 12 * time.Second

// Publisher takes the events of a unit of work.
type Publisher interface {
	Add(u *pg.Unit, events ...event.Event)
}

// Raiser takes what a person has to look at.
type Raiser interface {
	Raise(u *pg.Unit, x inbox.Intervention)
	Resolve(u *pg.Unit, kind, subject, note string)
}

// Store reads and writes accounts.
type Store struct {
	pool   *pgxpool.Pool
	outbox Publisher
	people Raiser
}

// New makes a store. The raiser comes by Attach: the inbox that is one needs handlers that need the store.
func New(pool *pgxpool.Pool, outbox Publisher) *Store { return &Store{pool: pool, outbox: outbox} }

// Attach sets where interventions go.
func (s *Store) Attach(people Raiser) { s.people = people }

// Pool is the database of the store.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// Accounts are loaded accounts by order id.
type Accounts map[string]*payment.Account

// Load locks and reads what is known of the orders. Who may open a payment or close an order locks the orders too;
// outcomes need the payments only.
func (s *Store) Load(ctx context.Context, u *pg.Unit, ids []string, lockOrders bool) (Accounts, error) {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	all := make(Accounts, len(ids))
	for _, id := range ids {
		all[id] = &payment.Account{}
	}
	orders := `SELECT order_id, tenant_id, customer, amount, currency, closed_at IS NOT NULL, written_off
		FROM known_orders WHERE order_id = ANY($1)`
	if lockOrders {
		orders += ` ORDER BY order_id FOR UPDATE`
	}
	u.Read(orders, ids).Query(func(rows pgx.Rows) error {
		var o payment.Order
		_, err := pgx.ForEachRow(rows, []any{&o.ID, &o.Tenant, &o.Customer, &o.Amount, &o.Currency, &o.Closed, &o.WrittenOff}, func() error {
			order := o
			all[o.ID].Order = &order
			return nil
		})
		return err
	})
	u.Read(`SELECT `+paymentColumns+` FROM payments p WHERE p.order_id = ANY($1) ORDER BY p.order_id FOR UPDATE`, ids).
		Query(func(rows pgx.Rows) error {
			var p payment.Payment
			_, err := pgx.ForEachRow(rows, paymentFields(&p), func() error {
				one := p
				all[p.OrderID].Payment = &one
				return nil
			})
			return err
		})
	u.Read(`SELECT `+refundColumns+` FROM refunds r WHERE r.order_id = ANY($1) ORDER BY r.order_id, r.attempt`, ids).
		Query(func(rows pgx.Rows) error {
			var r payment.Refund
			_, err := pgx.ForEachRow(rows, refundFields(&r), func() error {
				one := r
				all[r.OrderID].Refunds = append(all[r.OrderID].Refunds, &one)
				return nil
			})
			return err
		})
	return all, u.Fetch(ctx)
}

const paymentColumns = `p.order_id, p.tenant_id, p.customer, p.amount, p.currency, p.method, p.status, p.event_seq, p.attempts,
	p.asks, p.sent, p.provider_ref, p.reason, p.closed, p.written_off, p.refunded, p.traceparent, p.created_at`

func paymentFields(p *payment.Payment) []any {
	return []any{&p.OrderID, &p.Tenant, &p.Customer, &p.Amount, &p.Currency, &p.Method, &p.Status, &p.Seq, &p.Attempts,
		&p.Asks, &p.Sent, &p.ProviderRef, &p.Reason, &p.Closed, &p.WrittenOff, &p.Refunded, &p.Traceparent, &p.CreatedAt}
}

const refundColumns = `r.order_id, r.attempt, r.status, r.tries, r.sent, r.provider_ref, r.reason, r.created_at`

func refundFields(r *payment.Refund) []any {
	return []any{&r.OrderID, &r.Attempt, &r.Status, &r.Tries, &r.Sent, &r.ProviderRef, &r.Reason, &r.CreatedAt}
}

// Find reads one payment without a lock.
func (s *Store) Find(ctx context.Context, orderID string) (payment.Payment, error) {
	var p payment.Payment
	err := s.pool.QueryRow(ctx, `SELECT `+paymentColumns+` FROM payments p WHERE p.order_id = $1`, orderID).Scan(paymentFields(&p)...)
	if err == pgx.ErrNoRows {
		err = payment.ErrNoPayment
	}
	return p, err
}

// Work is what a saved unit leaves for the queue.
type Work struct {
	// Jobs are leased to this process already: it hands them to itself once the commit has happened.
	Jobs []payment.Job
	// Wake is when the queue has something to do next because of this unit; negative: nothing.
	Wake time.Duration
}

// Save queues every change of the accounts. At most room jobs are leased to this process; the others are left in the
// table, due at once, for whoever looks first.
func (s *Store) Save(u *pg.Unit, all Accounts, room int) Work {
	work := Work{Wake: -1}
	ids := make([]string, 0, len(all))
	for id := range all {
		ids = append(ids, id)
	}
	slices.Sort(ids) // upserts go by sorted key
	var (
		orders, closed     orderRows
		inserts, updates   paymentRows
		newRefunds, refund refundRows
		ledger             ledgerRows
		events             []event.Event
	)
	for _, id := range ids {
		a := all[id]
		switch {
		case a.OrderNew:
			orders.add(a.Order)
		case a.OrderChanged:
			closed.add(a.Order)
		}
		if p := a.Payment; p != nil && (a.PaymentNew || a.PaymentChanged || a.ChargeTask.Changed) {
			due := work.due(a.ChargeTask, room)
			if due.leased {
				p.Sent = true
				before := *p
				before.Sent = !a.PaymentNew // nothing was sent for a payment that is being opened
				work.Jobs = append(work.Jobs, payment.Job{Payment: before})
			}
			if a.PaymentNew {
				inserts.add(p, due)
			} else {
				updates.add(p, due)
			}
		}
		slices.SortFunc(a.Refunds, func(x, y *payment.Refund) int { return cmp.Compare(x.Attempt, y.Attempt) })
		for _, r := range a.Refunds {
			task, changed := a.RefundTasks[r.Attempt]
			if !changed && !a.RefundChanged[r.Attempt] && !a.RefundNew[r.Attempt] {
				continue
			}
			due := work.due(task, room)
			if due.leased {
				before := *r
				r.Sent = true
				work.Jobs = append(work.Jobs, payment.Job{Payment: *a.Payment, Refund: &before})
			}
			if a.RefundNew[r.Attempt] {
				newRefunds.add(r, due)
			} else {
				refund.add(r, due)
			}
		}
		for _, b := range a.Bookings {
			ledger.add(a.Payment, b)
		}
		for _, n := range a.Notices {
			events = append(events, announce(n))
			if n.Effect == payment.TellRefunded && n.Attempt != 1 { // an attempt before it has failed: somebody may be waiting
				s.people.Resolve(u, RefundIntervention, id, "the money was returned")
			}
		}
		for _, reason := range a.Interventions {
			s.people.Raise(u, inbox.Intervention{
				Kind: RefundIntervention, Subject: id, Tenant: a.Payment.Tenant, Reason: reason, Trace: a.Payment.Traceparent,
				Detail: map[string]any{"amount": payment.FormatAmount(a.Payment.Amount, a.Payment.Currency), "currency": a.Payment.Currency,
					"charge_key": payment.ChargeKey(id), "attempts": len(a.Refunds)},
			})
		}
	}
	orders.insert(u)
	closed.close(u)
	inserts.insert(u)
	updates.update(u)
	newRefunds.insert(u)
	refund.update(u)
	ledger.insert(u)
	s.outbox.Add(u, events...)
	return work
}

// RefundIntervention is the kind of an intervention: the refund of a closed order failed for good.
const RefundIntervention = "refund_failed"

// due is what a row's due_at becomes: unchanged, never, or seconds from now on.
type due struct {
	keep    bool
	seconds *float64
	leased  bool
}

func (w *Work) due(t payment.Task, room int) due {
	wait := t.Wait
	switch {
	case !t.Changed:
		return due{keep: true}
	case t.Now && len(w.Jobs) < room:
		sec := Lease.Seconds()
		return due{seconds: &sec, leased: true}
	case t.Now:
		wait = 0
	case wait < 0:
		return due{}
	}
	// A fifth of jitter on both sides: what failed together does not come back together.
	wait = time.Duration(float64(wait) * (0.8 + 0.4*rand.Float64()))
	if w.Wake < 0 || wait < w.Wake {
		w.Wake = wait
	}
	sec := wait.Seconds()
	return due{seconds: &sec}
}
