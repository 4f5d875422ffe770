// Package delivery sends what is to be told: it takes notices out of the queue, hands them to the mail server and keeps
// what came of it.
//
//	claim (committed, with a lease) --> send --> settle
//
// SMTP cannot promise exactly once: a process that dies between the server's "250" and settle leaves the notice to its
// lease, and it is sent again, under the same Message-ID. An order's notices are told one after the other.
package delivery

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/waybill-dev/waybill/libs/failpoint"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/notification/internal/notice"
	"github.com/waybill-dev/waybill/services/notification/internal/postgres"
	"github.com/waybill-dev/waybill/services/notification/internal/smtp"
)

const (
	// workers is how many connections to the mail server there are at a time; most servers allow ten of one client.
	workers = 4
	// batch is what one connection carries before it is closed.
	batch = 25
	// batchTimeout ends a batch that a slow server stretches, well within the lease.
	batchTimeout = time.Minute
	// settleTimeout is for keeping the outcome, also on the way down: an outcome that is lost is a message sent twice.
	settleTimeout = 5 * time.Second
	// idle is how often the queue is looked at where nothing wakes: retries need no better than that.
	idle = time.Second
	// firstPause, doubled with each try, and maxPause are the back-off of a message that is not taken.
	firstPause = 2 * time.Second
	maxPause   = time.Hour
	// firstOutage, doubled with each batch, and maxOutage are how long a worker leaves a server alone that is away. Without
	// that an outage would put every message off, one after the other, for up to an hour.
	firstOutage = time.Second
	maxOutage   = 30 * time.Second
	// countEvery is how often the backlog is counted.
	countEvery = 10 * time.Second
)

// Queue is where the messages come from.
type Queue interface {
	Claim(ctx context.Context, limit int) ([]notice.Notice, error)
	Settle(ctx context.Context, outcomes []postgres.Outcome, raise func(u *pg.Unit, x inbox.Intervention)) error
	Backlog(ctx context.Context) (waiting int, oldest time.Duration, err error)
}

// Mailer is who sends them.
type Mailer interface {
	Send(ctx context.Context, ns []notice.Notice) []error
}

// Options are the parts of a delivery.
type Options struct {
	Queue  Queue
	Mailer Mailer
	// Raise opens interventions.
	Raise func(u *pg.Unit, x inbox.Intervention)
	Wake  chan struct{}
	// PerSecond bounds the messages: providers do, and answer too many with refusals.
	PerSecond int
	Log       *zap.Logger
	Registry  prometheus.Registerer
}

// Delivery is the workers.
type Delivery struct {
	Options
	results *prometheus.CounterVec
	waiting prometheus.Gauge
	oldest  prometheus.Gauge
}

// New makes a delivery.
func New(o Options) *Delivery {
	f := promauto.With(o.Registry)
	return &Delivery{
		Options: o,
		results: f.NewCounterVec(prometheus.CounterOpts{
			Name: "waybill_notification_deliveries_total", Help: "Tries to deliver a message by result: sent, later, refused.",
		}, []string{"result"}),
		waiting: f.NewGauge(prometheus.GaugeOpts{Name: "waybill_notification_waiting_notices", Help: "Messages that are not told yet."}),
		oldest: f.NewGauge(prometheus.GaugeOpts{
			Name: "waybill_notification_oldest_waiting_seconds", Help: "How long the oldest of them has waited.",
		}),
	}
}

// Run delivers until ctx ends.
func (d *Delivery) Run(ctx context.Context) error {
	var g errgroup.Group
	for range workers {
		g.Go(func() error {
			d.work(ctx)
			return nil
		})
	}
	g.Go(func() error {
		d.count(ctx)
		return nil
	})
	return g.Wait()
}

func (d *Delivery) work(ctx context.Context) {
	timer := time.NewTimer(rand.N(idle)) // the workers look in turn
	defer timer.Stop()
	outage := 0 // batches in a row that found no mail server
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-d.Wake:
		}
		begun := time.Now()
		n, broken := d.turn(ctx)
		if n == 0 {
			timer.Reset(idle)
			continue
		}
		if n == batch && !broken {
			d.another()
		}
		// Each worker has its share of the rate, and leaves a server that is away alone for a while. No wake cuts that short.
		pause := time.Duration(n*workers)*time.Second/time.Duration(d.PerSecond) - time.Since(begun)
		if outage++; !broken {
			outage = 0
		}
		if outage > 0 {
			pause = max(pause, min(firstOutage<<min(outage-1, 8), maxOutage))
		}
		timer.Reset(pause)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			timer.Reset(0)
		}
	}
}

// another wakes the next worker: there is more than one batch.
func (d *Delivery) another() {
	select {
	case d.Wake <- struct{}{}:
	default:
	}
}

// claim is not cut short by the way down: what was claimed without our knowing would wait for the end of its lease. What
// is claimed and cannot be sent any more is settled as not tried, and free at once.
func (d *Delivery) claim(ctx context.Context) ([]notice.Notice, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	return d.Queue.Claim(ctx, batch)
}

// turn sends one batch and says how many messages it had, and whether the mail server went away over it.
func (d *Delivery) turn(ctx context.Context) (n int, broken bool) {
	claimed, err := d.claim(ctx)
	if err != nil {
		d.Log.Warn("queue not readable", zap.Error(err))
		return 0, false
	}
	if len(claimed) == 0 {
		return 0, false
	}
	if err := failpoint.Hit("mail.after_claim"); err != nil {
		return 0, false
	}
	bounded, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	errs := d.Mailer.Send(bounded, claimed)
	if err := failpoint.Hit("mail.after_smtp_before_settle"); err != nil { // told, and we hear that it was not
		for i := range errs {
			errs[i] = err
		}
	}
	outcomes := make([]postgres.Outcome, len(claimed))
	for i, n := range claimed {
		outcomes[i] = d.outcome(ctx, n, errs[i])
		var f *smtp.Failure
		broken = broken || errors.As(errs[i], &f) && f.Broken
	}
	// The messages are out: that is kept even if the process is on its way down.
	kept, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if err := d.Queue.Settle(kept, outcomes, d.Raise); err != nil {
		d.Log.Error("outcome not kept, messages will be sent again", zap.Int("messages", len(outcomes)), zap.Error(err))
	}
	return len(claimed), broken
}

func (d *Delivery) outcome(ctx context.Context, n notice.Notice, err error) postgres.Outcome {
	o := postgres.Outcome{Notice: n}
	if err == nil {
		d.results.WithLabelValues("sent").Inc()
		return o
	}
	var f *smtp.Failure
	o.Error, o.Again = err.Error(), Pause(n.Tries)
	o.Permanent = errors.As(err, &f) && f.Permanent
	switch {
	case o.Permanent:
		d.results.WithLabelValues("refused").Inc()
		d.Log.Warn("message refused", zap.String("order_id", n.OrderID), zap.String("event_id", n.EventID.String()), zap.String("reason", o.Error))
	case ctx.Err() != nil:
		o.Again = 0 // we left, not the server: the next process need not wait
	default:
		d.results.WithLabelValues("later").Inc()
		if n.Tries == 4 { // half a minute of failures; an outage must not fill the log
			d.Log.Warn("message not taken", zap.String("order_id", n.OrderID), zap.String("event_id", n.EventID.String()),
				zap.Int("tries", n.Tries), zap.String("reason", o.Error))
		}
	}
	return o
}

// Pause is the back-off after a number of tries: 2 s, 4 s, 8 s … 1 h, of which the upper half is left to chance.
func Pause(tries int) time.Duration {
	d := maxPause
	if tries < 12 { // 2 s · 2¹¹ is above an hour
		d = min(d, firstPause<<max(tries-1, 0))
	}
	return d/2 + rand.N(d/2)
}

func (d *Delivery) count(ctx context.Context) {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if waiting, oldest, err := d.Queue.Backlog(ctx); err == nil { // else the workers complain
			d.waiting.Set(float64(waiting))
			d.oldest.Set(oldest.Seconds())
		}
	}
}
