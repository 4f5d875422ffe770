// Package dispatch works the queue of shipments: it has the carrier accept what was requested, and asks after what the
// carrier has accepted and not spoken of for a while.
//
//	claim (committed: the call is intended) --> call --> outcome (progress.Intake)
//
// A process that dies after the claim leaves the shipment to the lease; whoever claims it next makes the same call under
// the same key. So a call that did happen and whose answer was lost happens once.
package dispatch

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/propagation"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/failpoint"
	"github.com/waybill-dev/waybill/services/shipping/internal/carrier"
	"github.com/waybill-dev/waybill/services/shipping/internal/shipment"
)

const (
	// Parallel bounds the calls at a time, each with the commit of its answer, which it shares with others: at 50 ms for
	// both under load that is 2,560/s; at the carrier's time-out of 5 s it is 26/s, as much as a carrier in that state
	// should get.
	Parallel = 128
	// claimSize is what is claimed at a time: two rounds of calls, so that the last of them begins long before its lease ends.
	claimSize = 2 * Parallel
	// idle is how often the queue is looked at where nothing wakes: retries and polls need no better than that.
	idle = 250 * time.Millisecond
	// firstPause and maxPause are the back-off of a carrier that fails.
	firstPause = 200 * time.Millisecond
	maxPause   = 30 * time.Second
	// pollPause is the pause after a poll that brought nothing. The store lengthens it with the age of the last news.
	pollPause = 5 * time.Second
	// claimTimeout bounds the queue's statements: a service has 8 s to stop its processes.
	claimTimeout = 3 * time.Second
	// countEvery is how often the backlog is counted.
	countEvery = 10 * time.Second
)

// Queue is where the work comes from.
type Queue interface {
	Claim(ctx context.Context, n int) ([]shipment.Shipment, error)
	Backlog(ctx context.Context) (waiting int, oldest time.Duration, err error)
}

// Carrier is who is called.
type Carrier interface {
	Create(ctx context.Context, s shipment.Shipment) (shipment.Report, error)
	Find(ctx context.Context, k shipment.Key) (shipment.Report, error)
}

// Intake is where outcomes go.
type Intake interface {
	Apply(ctx context.Context, c shipment.Change) (known bool, err error)
}

// Dispatcher is the worker.
type Dispatcher struct {
	queue   Queue
	carrier Carrier
	intake  Intake
	log     *zap.Logger
	wake    chan struct{}
	calls   *prometheus.CounterVec
	waiting prometheus.Gauge
	oldest  prometheus.Gauge
}

// New makes a dispatcher. wake makes it look at once.
func New(q Queue, c Carrier, i Intake, wake chan struct{}, log *zap.Logger, reg prometheus.Registerer) *Dispatcher {
	f := promauto.With(reg)
	return &Dispatcher{
		queue: q, carrier: c, intake: i, log: log, wake: wake,
		calls: f.NewCounterVec(prometheus.CounterOpts{
			Name: "waybill_shipping_carrier_calls_total",
			Help: "Calls to the carrier by call (create, find) and result (answered, refused, unknown, error).",
		}, []string{"call", "result"}),
		waiting: f.NewGauge(prometheus.GaugeOpts{
			Name: "waybill_shipping_waiting_shipments", Help: "Shipments that no carrier has accepted yet.",
		}),
		oldest: f.NewGauge(prometheus.GaugeOpts{
			Name: "waybill_shipping_oldest_waiting_seconds", Help: "How long the oldest of them has waited.",
		}),
	}
}

// Run works until ctx ends, and then waits for the calls that it has begun: at most the carrier's time-out.
func (d *Dispatcher) Run(ctx context.Context) error {
	slots := make(chan struct{}, Parallel)
	var calls sync.WaitGroup
	defer calls.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var counted time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-d.wake:
		}
		if time.Since(counted) > countEvery {
			d.count(ctx)
			counted = time.Now()
		}
		claimed, err := d.claim(ctx)
		if err != nil {
			d.log.Warn("queue not readable", zap.Error(err))
		}
		for i, s := range claimed {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				d.giveBack(ctx, claimed[i:])
				return nil
			}
			calls.Go(func() {
				defer func() { <-slots }()
				// Begun is begun: the answer is worth more than a second's earlier exit.
				d.call(context.WithoutCancel(ctx), s)
			})
		}
		pause := idle
		if len(claimed) == claimSize {
			pause = 0
		}
		timer.Reset(pause)
	}
}

// claim is not cut short by the way down: what was claimed without our knowing would wait for the end of its lease.
func (d *Dispatcher) claim(ctx context.Context) ([]shipment.Shipment, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimTimeout)
	defer cancel()
	return d.queue.Claim(ctx, claimSize)
}

// giveBack lets another process have at once what this one has claimed and will not call.
func (d *Dispatcher) giveBack(ctx context.Context, claimed []shipment.Shipment) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, s := range claimed {
		all.Go(func() {
			if _, err := d.intake.Apply(ctx, shipment.Change{Report: shipment.Report{Key: s.Key}, Again: time.Millisecond}); err != nil {
				d.log.Warn("claim not given back", zap.String("order_id", s.OrderID), zap.Int32("attempt", s.Attempt), zap.Error(err))
			}
		})
	}
	all.Wait()
}

func (d *Dispatcher) call(ctx context.Context, s shipment.Shipment) {
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": s.Traceparent})
	c, err := d.ask(ctx, s)
	if err == nil {
		c.Key = s.Key
		_, err = d.intake.Apply(ctx, c)
	}
	if err = failpoint.After(err, "ship.after_tx2"); err != nil {
		// The lease runs out, and the same call brings the same answer.
		d.log.Warn("outcome not kept", zap.String("order_id", s.OrderID), zap.Int32("attempt", s.Attempt), zap.Error(err))
	}
}

// ask makes the call for a shipment that is claimed.
func (d *Dispatcher) ask(ctx context.Context, s shipment.Shipment) (c shipment.Change, err error) {
	if err := failpoint.Hit("ship.after_intent"); err != nil {
		return c, err
	}
	ctx = failpoint.During(ctx, "ship.in_carrier_call")
	if s.Status == shipment.Requested {
		c = d.create(ctx, s)
	} else {
		c = d.find(ctx, s)
	}
	return c, failpoint.Hit("ship.after_carrier_before_tx2")
}

func (d *Dispatcher) create(ctx context.Context, s shipment.Shipment) shipment.Change {
	r, err := d.carrier.Create(ctx, s)
	if err != nil {
		d.calls.WithLabelValues("create", "error").Inc()
		pause := Pause(s.Calls)
		if s.Calls&(s.Calls-1) == 0 && s.Calls > 3 { // the 4th, 8th, 16th … time: an outage must not fill the log
			d.log.Warn("carrier does not accept", zap.String("order_id", s.OrderID), zap.Int32("attempt", s.Attempt),
				zap.Int("calls", s.Calls), zap.Duration("next_try", pause), zap.Error(err))
		}
		return shipment.Change{Again: pause}
	}
	result := "answered"
	if r.Status == shipment.Failed {
		result = "refused"
	}
	d.calls.WithLabelValues("create", result).Inc()
	return shipment.Change{Report: r}
}

func (d *Dispatcher) find(ctx context.Context, s shipment.Shipment) shipment.Change {
	r, err := d.carrier.Find(ctx, s.Key)
	switch {
	case errors.Is(err, carrier.ErrUnknown):
		d.calls.WithLabelValues("find", "unknown").Inc()
		d.log.Error("carrier does not know a shipment it had accepted", zap.String("order_id", s.OrderID), zap.Int32("attempt", s.Attempt))
	case err != nil:
		d.calls.WithLabelValues("find", "error").Inc()
	default:
		d.calls.WithLabelValues("find", "answered").Inc()
	}
	return shipment.Change{Report: r, Again: pollPause}
}

// Pause is the back-off before call number calls+1: 0.2 s, 0.4 s, 0.8 s … 30 s, of which the upper half is left to chance
// so that what failed together does not come back together.
func Pause(calls int) time.Duration {
	d := maxPause
	if calls < 9 { // 0.2 s · 2⁸ is above maxPause
		d = min(d, firstPause<<max(calls-1, 0))
	}
	return d/2 + rand.N(d/2)
}

func (d *Dispatcher) count(ctx context.Context) {
	waiting, oldest, err := d.queue.Backlog(ctx)
	if err != nil {
		return // Claim fails as well, and says so
	}
	d.waiting.Set(float64(waiting))
	d.oldest.Set(oldest.Seconds())
}
