// Package processor works the queue of payments and refunds.
//
// A row of the queue is a payment whose charge is open, or an open refund attempt; due_at is when it is next looked at, and
// taking it means moving due_at a lease into the future. There are two ways in:
//
//	commit that makes the row ──leased at once, handed over in memory──┐
//	table scan: what is due (retries, other replicas, crashes)─lease───┴─▶ bounded parallel calls ─▶ outcomes, gathered
//	                                                                                                 and written in one
//	                                                                                                 transaction
//
// The intent is always committed before the provider is called. When the process dies between call and outcome, the lease
// runs out and whoever takes the row next asks the provider by our key before anything else. So a lease that ends too early
// costs a question, never a second charge.
package processor

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/failpoint"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/payment/internal/batch"
	"github.com/waybill-dev/waybill/services/payment/internal/payment"
	"github.com/waybill-dev/waybill/services/payment/internal/postgres"
	"github.com/waybill-dev/waybill/services/payment/internal/provider"
)

const (
	// Parallel is how many calls to the provider are under way at once. At 20 ms a call that is 12,800 a second; a hundred
	// payments a second whose provider lets us wait for 2 s fit as well.
	Parallel = 256
	// Room is how many jobs the process holds in memory, running or waiting. What does not fit stays in the table. It is
	// small, because what waits here longer than its lease allows has to be dropped.
	Room = 2 * Parallel
	// idle is the longest pause between two scans: how long a row that another replica left behind may wait.
	idle = time.Second
	// emptying is how long a process that ends still begins what it has in memory. With the charge time-out it stays below
	// the 8 s that are left for stopping.
	emptying = 2 * time.Second
	// webhookMemory is how long the ids of webhooks are kept: twice the day within which providers repeat them.
	webhookMemory = 48 * time.Hour
)

// Provider is the payment provider. See package provider for the meaning of its errors.
type Provider interface {
	Charge(ctx context.Context, r provider.ChargeRequest) (provider.Charge, error)
	FindCharge(ctx context.Context, key string) (provider.Charge, error)
	Void(ctx context.Context, key string) (provider.Charge, error)
	Refund(ctx context.Context, r provider.RefundRequest) (provider.Refund, error)
	FindRefund(ctx context.Context, key string) (provider.Refund, error)
}

// Processor works the queue of one process.
type Processor struct {
	store    *postgres.Store
	provider Provider
	log      *zap.Logger
	metrics  *metrics

	queue   chan job
	held    atomic.Int64 // jobs in memory, waiting or running
	wake    chan time.Duration
	results *batch.Gatherer[*Result]
}

// job is a row that is leased to this process.
type job struct {
	payment.Job
	taken time.Time
}

// New makes a processor. It starts with Run.
func New(store *postgres.Store, p Provider, log *zap.Logger, registry prometheus.Registerer) *Processor {
	x := &Processor{
		store: store, provider: p, log: log,
		queue: make(chan job, 4*Room), // room for several units that commit at the same time
		wake:  make(chan time.Duration, 16),
	}
	x.metrics = newMetrics(registry, func() float64 { return float64(x.held.Load()) })
	x.results = batch.New(x.write)
	return x
}

// Room is how many jobs this process can take now. It is asked inside a unit of work, before Save.
func (x *Processor) Room() int { return int(max(Room-x.held.Load(), 0)) }

// Take takes what a committed unit has left for the queue. It does not block: it runs in AfterCommit.
func (x *Processor) Take(w postgres.Work) {
	now := time.Now()
	for _, j := range w.Jobs {
		x.held.Add(1)
		select {
		case x.queue <- job{j, now}:
		default: // the lease brings it back
			x.held.Add(-1)
		}
	}
	if w.Wake >= 0 {
		select {
		case x.wake <- w.Wake:
		default: // the scan comes anyway
		}
	}
}

// Run works until ctx ends. Calls that are under way then are finished, and what came of them is written; jobs that wait in
// memory are still begun for a moment, because their leases would hold them up for everybody.
func (x *Processor) Run(ctx context.Context) error {
	var calls, rest sync.WaitGroup
	writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx))
	rest.Go(func() { _ = x.results.Run(writing) })
	rest.Go(func() { x.forget(ctx) })
	calls.Go(func() { x.scan(ctx) })
	slots := make(chan struct{}, Parallel)
	begin := func(stop <-chan struct{}) bool {
		var j job
		select {
		case j = <-x.queue:
		case <-stop:
			return false
		}
		select {
		case slots <- struct{}{}:
		case <-stop:
			return false
		}
		calls.Go(func() {
			defer func() { <-slots; x.held.Add(-1) }()
			x.work(context.WithoutCancel(ctx), j)
		})
		return true
	}
	for begin(ctx.Done()) {
	}
	patience, cancel := context.WithTimeout(writing, emptying)
	for len(x.queue) > 0 && begin(patience.Done()) {
	}
	cancel()
	calls.Wait()
	stopWriting()
	rest.Wait()
	return nil
}

// scan takes due rows from the table: at once after a scan that found as many as it could take, when the next row is due,
// and at least every second.
func (x *Processor) scan(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	next := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-x.wake:
			if at := time.Now().Add(d); at.Before(next) {
				next = at
				timer.Reset(d)
			}
			continue
		case <-timer.C:
		}
		pause := idle
		if limit := min(x.Room(), batch.Max); limit > 0 {
			jobs, due, err := x.store.Claim(ctx, limit)
			switch {
			case err != nil && ctx.Err() == nil:
				x.log.Warn("claim due payments", zap.Error(err))
			case err == nil:
				x.Take(postgres.Work{Jobs: jobs, Wake: -1})
				if due >= 0 {
					// Rows come due within microseconds of each other: a millisecond makes them one scan.
					pause = min(max(due, time.Millisecond), idle)
				}
			}
		} else {
			pause = 20 * time.Millisecond // full: look again when some calls have ended
		}
		next = time.Now().Add(pause)
		timer.Reset(pause)
	}
}

// work does one job and reports. A job that waited so long that its lease may end under the call is left to its next taker.
func (x *Processor) work(ctx context.Context, j job) {
	// The calls belong to the trace of what asked for the payment.
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": j.Payment.Traceparent})
	r, err := x.ask(ctx, j)
	if r == nil || err != nil {
		return // the lease brings it back
	}
	// What the provider said must not get lost: another try costs nothing, another question would cost a call.
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := x.results.Do(ctx, r)
		if err == nil {
			break
		}
		if errors.Is(err, batch.ErrStopped) || !pg.Retryable(err) || time.Since(j.taken) > postgres.Lease {
			x.log.Error("write outcome; it will be asked for again", zap.String("order_id", r.OrderID), zap.Error(err))
			return
		}
		time.Sleep(pause)
	}
	if r.Err != nil {
		x.log.Error("outcome does not fit", zap.String("order_id", r.OrderID), zap.Error(r.Err))
	}
	if j.Refund == nil {
		_ = failpoint.Hit("pay.after_tx2")
	} else {
		_ = failpoint.Hit("refund.after_tx2")
	}
}

// ask makes the calls of a job, whose intent is committed.
func (x *Processor) ask(ctx context.Context, j job) (r *Result, err error) {
	if j.Refund == nil {
		if err = failpoint.Hit("pay.after_intent"); err == nil {
			r = x.charge(failpoint.During(ctx, "pay.in_psp_call"), j)
			err = failpoint.Hit("pay.after_psp_before_tx2")
		}
		return r, err
	}
	if err = failpoint.Hit("refund.after_intent"); err == nil {
		r = x.refund(failpoint.During(ctx, "refund.in_psp_call"), j)
		err = failpoint.Hit("refund.after_psp_before_tx2")
	}
	return r, err
}

// stale says that the lease may end before a call of this length would have been written.
func (j job) stale(call time.Duration) bool {
	return time.Since(j.taken) > postgres.Lease-call-time.Second
}

// charge does the next step of an open charge.
func (x *Processor) charge(ctx context.Context, j job) *Result {
	p := j.Payment
	key := payment.ChargeKey(p.OrderID)
	step := p.NextStep()
	answer := func(a payment.ChargeAnswer) *Result { return &Result{OrderID: p.OrderID, Charge: &a} }
	unknown := func(asked bool, attempts int) *Result {
		return answer(payment.ChargeAnswer{Fact: payment.ChargeUnknown, Asked: asked, Attempts: attempts})
	}
	if j.stale(provider.QuestionTimeout) {
		return nil
	}
	if step.Ask {
		c, err := observe(x, "find_charge", func() (provider.Charge, error) { return x.provider.FindCharge(ctx, key) })
		switch {
		case err == nil && fits(p, c):
			return answer(chargeAnswer(c, p.Attempts))
		case errors.Is(err, provider.ErrNotFound):
		case !step.Void: // while voiding may still answer, it is tried
			return unknown(true, p.Attempts)
		}
	}
	if step.Void {
		c, err := observe(x, "void", func() (provider.Charge, error) { return x.provider.Void(ctx, key) })
		if err != nil || !fits(p, c) {
			return unknown(true, p.Attempts)
		}
		return answer(chargeAnswer(c, p.Attempts))
	}
	if j.stale(provider.ChargeTimeout) {
		return nil
	}
	c, err := observe(x, "charge", func() (provider.Charge, error) {
		return x.provider.Charge(ctx, provider.ChargeRequest{Key: key, OrderID: p.OrderID, Amount: p.Amount, Currency: p.Currency, Method: p.Method})
	})
	if err != nil {
		return unknown(false, p.Attempts+1)
	}
	return answer(chargeAnswer(c, p.Attempts+1))
}

// fits guards against a provider that mixes up charges: an amount that we did not ask for is no answer.
func fits(p payment.Payment, c provider.Charge) bool {
	return c.Status == provider.Voided || (c.Amount == p.Amount && c.Currency == p.Currency)
}

func chargeAnswer(c provider.Charge, attempts int) payment.ChargeAnswer {
	a := payment.ChargeAnswer{Attempts: attempts, Ref: c.ID, Reason: c.Reason}
	switch c.Status {
	case provider.Captured:
		a.Fact = payment.ChargeCaptured
		a.Reason = ""
	case provider.Declined:
		a.Fact = payment.ChargeDeclined
	default:
		a.Fact = payment.ChargeVoided
	}
	return a
}

// refund does the next step of an open refund attempt: ask about itself where it may have been sent, then about the attempt
// before it, and only when that one has definitely not succeeded send it.
func (x *Processor) refund(ctx context.Context, j job) *Result {
	p, r := j.Payment, j.Refund
	answer := func(attempt int, f provider.Refund) *Result {
		a := payment.RefundAnswer{Attempt: attempt, Status: payment.RefundFailed, Ref: f.ID, Reason: f.Reason}
		if f.Status == provider.Refunded {
			a.Status = payment.RefundedOK
		}
		return &Result{OrderID: p.OrderID, Refund: &a}
	}
	unknown := &Result{OrderID: p.OrderID, Refund: &payment.RefundAnswer{Attempt: r.Attempt, Status: payment.RefundUnknown}}
	find := func(attempt int) (provider.Refund, error) {
		return observe(x, "find_refund", func() (provider.Refund, error) {
			return x.provider.FindRefund(ctx, payment.RefundKey(p.OrderID, attempt))
		})
	}
	if r.Sent {
		f, err := find(r.Attempt)
		if err == nil {
			return answer(r.Attempt, f)
		}
		if !errors.Is(err, provider.ErrNotFound) {
			return unknown
		}
	}
	if r.Attempt > 1 {
		f, err := find(r.Attempt - 1)
		if err == nil && f.Status == provider.Refunded {
			return answer(r.Attempt-1, f)
		}
		if err != nil && !errors.Is(err, provider.ErrNotFound) {
			return unknown
		}
	}
	if j.stale(provider.RefundTimeout) {
		return nil
	}
	f, err := observe(x, "refund", func() (provider.Refund, error) {
		return x.provider.Refund(ctx, provider.RefundRequest{
			Key: payment.RefundKey(p.OrderID, r.Attempt), ChargeKey: payment.ChargeKey(p.OrderID),
			OrderID: p.OrderID, Amount: p.Amount, Currency: p.Currency})
	})
	if err != nil {
		return unknown
	}
	return answer(r.Attempt, f)
}

// forget deletes the ids of old webhooks, once an hour.
func (x *Processor) forget(ctx context.Context) {
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	for {
		if _, err := x.store.Pool().Exec(ctx, `DELETE FROM webhooks WHERE read_at < now() - make_interval(secs => $1)`,
			webhookMemory.Seconds()); err != nil && ctx.Err() == nil {
			x.log.Warn("forget old webhooks", zap.Error(err))
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
