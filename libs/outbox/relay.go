package outbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/failpoint"
	"github.com/waybill-dev/waybill/libs/stream"
)

const (
	// A read returns at most readRows rows; with fewer, nothing else was unpublished.
	readRows = 200
	// Rows of other replicas are read this often while some come, and less and less while none do.
	readSoon, readLate = 20 * time.Millisecond, 200 * time.Millisecond
	// Marks wait for company. Until they are written a crash means that many duplicates.
	markEvery, markRows = 50 * time.Millisecond, 256
	beatEvery           = time.Second
	// batchEvents bounds a batch; maxEvents the memory, beyond which nothing is read and the hand-off overflows.
	batchEvents, maxEvents = 1024, 2 * maxHanded
	// endWait is how long a relay that is to stop waits for its batch.
	endWait = 2 * time.Second
)

var (
	errDatabaseURL = errors.New("not a PostgreSQL URL")
	errStopped     = errors.New("stopped")
)

// Run relays what was added, by this process or another replica, until ctx ends. Of all replicas one relays, the others
// stand by.
func (o *Outbox) Run(ctx context.Context) error {
	for failures := 0; ; failures++ {
		held, err := o.stand(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if held {
			failures = 0
		}
		wait := min(50*time.Millisecond<<min(failures, 6), 2*time.Second)
		wait = wait/2 + rand.N(wait/2)
		o.Log.Warn("relay stopped", zap.Error(err), zap.Duration("next_try", wait))
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

// stand waits for the lock and relays for as long as it is held.
func (o *Outbox) stand(ctx context.Context) (held bool, err error) {
	s, err := o.connect(ctx)
	if err != nil {
		return false, err
	}
	defer s.close()
	for !held {
		if held, err = s.lock(ctx); err != nil {
			return false, fmt.Errorf("lock: %w", err)
		}
		if held {
			break
		}
		evicted, err := s.evict(ctx)
		if err != nil {
			return false, fmt.Errorf("evict: %w", err)
		}
		if evicted {
			o.Log.Warn("relay was not seen for 5 s, its lock was taken away")
			o.metrics.evictions.Inc()
			continue
		}
		if !sleep(ctx, lockEvery/2+rand.N(lockEvery/2)) {
			return false, ctx.Err()
		}
	}
	o.Log.Info("relay started", zap.String("holder", s.holder))
	o.metrics.takeovers.Inc()
	o.metrics.active.Set(1)
	defer o.metrics.active.Set(0)
	keep, stop := context.WithCancel(ctx)
	k := &keeper{Outbox: o}
	kept := make(chan struct{})
	go func() { defer close(kept); k.run(keep) }()
	defer func() { stop(); <-kept }()
	r := &relay{
		Outbox: o, keeper: k, session: s, memory: newMemory(),
		asked: make(chan request, 1), answers: make(chan answer, 1), sent: make(chan error, 1),
	}
	return true, r.run(ctx)
}

// relay publishes while the lock is held. Its goroutine owns the memory; a second one talks to the table, a third sends.
type relay struct {
	*Outbox
	keeper  *keeper
	session *session
	memory  *memory

	asked    chan request
	answers  chan answer
	asking   bool
	sent     chan error
	sending  bool
	rows     []*row
	batch    []item
	messages []stream.Message

	valid    int64 // reads that began before this one know nothing of what was forgotten
	failures int   // sends that failed in a row
	quiet    time.Time
	interval time.Duration
	nextRead time.Time
	nextMark time.Time
	nextBeat time.Time
}

func (r *relay) run(ctx context.Context) error {
	r.handed.turnOff()
	defer r.handed.turnOff()
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	over := make(chan struct{})
	go func() {
		defer close(over)
		for q := range r.asked {
			r.answers <- r.session.ask(lasting, q)
		}
	}()
	defer func() { cancel(); close(r.asked); <-over }() // nobody uses the connection when it is closed
	timer := time.NewTimer(0)
	defer timer.Stop()
	var end <-chan time.Time // when the batch in flight is given up, once ctx has ended
	for {
		if end == nil {
			r.send(lasting)
		}
		wait := r.exchange()
		timer.Reset(wait)
		select {
		case <-r.handed.signal:
		case err := <-r.sent:
			r.settle(err)
		case a := <-r.answers:
			if err := r.learn(a); err != nil {
				return err
			}
		case <-timer.C:
		case <-ctx.Done():
			ctx, end = context.WithoutCancel(ctx), time.After(endWait)
		case <-end:
			return errStopped
		}
		if end != nil && !r.sending && !r.asking {
			if len(r.memory.marks) == 0 {
				return errStopped
			}
			r.ask(request{marks: r.memory.marks})
			r.memory.marks = nil
		}
	}
}

// send puts the next batch in flight, if none is.
func (r *relay) send(ctx context.Context) {
	if r.memory.events < maxEvents {
		r.rows = r.handed.take(r.rows[:0])
		for _, row := range r.rows {
			r.memory.hand(row)
		}
		r.metrics.handed.Add(float64(len(r.rows)))
		clear(r.rows)
		if len(r.memory.doubtful) > 0 {
			r.readWithin(readSoon)
		}
	}
	if r.sending || time.Now().Before(r.quiet) {
		return
	}
	if r.batch = r.memory.batch(batchEvents, r.batch[:0]); len(r.batch) == 0 {
		return
	}
	r.messages = r.messages[:0]
	for _, x := range r.batch {
		x.Source = r.source
		r.messages = append(r.messages, stream.Encode(*x.Event))
	}
	r.sending = true
	r.metrics.batch.Observe(float64(len(r.batch)))
	go func() { r.sent <- r.Producer.Send(ctx, r.messages) }()
}

// settle takes the outcome of a batch. After an error everything is forgotten and read again, in order.
func (r *relay) settle(err error) {
	r.sending = false
	if err = failpoint.After(err, "relay.after_produce"); err == nil {
		r.failures = 0
		now := time.Now()
		for _, x := range r.batch {
			r.metrics.publish.Observe(now.Sub(x.Time).Seconds())
		}
		r.metrics.published.Add(float64(len(r.batch)))
		r.memory.settle(r.batch)
		return
	}
	r.failures++
	wait := min(50*time.Millisecond<<min(r.failures, 6), 2*time.Second)
	r.Log.Warn("batch not acknowledged, reading again", zap.Error(err), zap.Int("events", len(r.batch)), zap.Duration("next_try", wait))
	r.metrics.failures.Inc()
	r.handed.turnOff()
	r.memory = r.memory.forget()
	r.valid = r.memory.reads + 1
	r.quiet = time.Now().Add(wait/2 + rand.N(wait/2))
	r.nextRead = r.quiet
}

// exchange asks the table for what is due and says how long nothing else will be.
func (r *relay) exchange() time.Duration {
	now := time.Now()
	if r.asking {
		return beatEvery // its answer comes first
	}
	var q request
	m := r.memory
	if len(m.marks) >= markRows || len(m.marks) > 0 && !now.Before(r.nextMark) {
		q.marks, m.marks = m.marks, nil
		r.nextMark = now.Add(markEvery)
	}
	if !now.Before(r.nextBeat) {
		q.beat = true
		r.nextBeat = now.Add(beatEvery)
	}
	if !now.Before(r.nextRead) && m.events < maxEvents {
		q.read, q.known = m.begin()
		q.limit = readRows
		r.nextRead = now.Add(r.interval)
	}
	if len(q.marks) > 0 || q.beat || q.read > 0 {
		r.ask(q)
		return beatEvery
	}
	next := r.nextBeat
	if m.events < maxEvents && r.nextRead.Before(next) {
		next = r.nextRead
	}
	if len(m.marks) > 0 && r.nextMark.Before(next) {
		next = r.nextMark
	}
	if r.quiet.After(now) && r.quiet.Before(next) {
		next = r.quiet
	}
	return max(next.Sub(now), 0)
}

func (r *relay) ask(q request) {
	q.low = r.keeper.low()
	r.asking = true
	r.asked <- q
}

// learn takes the table's answer. An error means that the lock may be gone.
func (r *relay) learn(a answer) error {
	r.asking = false
	if a.err != nil {
		return a.err
	}
	if len(a.marks) > 0 {
		if err := failpoint.Hit("relay.after_mark"); err != nil {
			return err
		}
	}
	r.memory.marked(a.marks)
	if a.read == 0 || a.read < r.valid {
		return nil
	}
	if len(a.found) > 0 {
		if err := failpoint.Hit("relay.after_read"); err != nil {
			return err
		}
	}
	full := len(a.found) == a.limit
	unknown := r.memory.loaded(a.read, a.found, full)
	r.metrics.read.Add(float64(unknown))
	switch {
	case full:
		r.readWithin(0)
	case unknown > 0 || len(r.memory.doubtful) > 0:
		r.interval = readSoon
		r.readWithin(readSoon)
	default:
		r.interval = min(max(2*r.interval, readSoon), readLate)
	}
	if !full {
		r.handed.turnOn()
	}
	return nil
}

func (r *relay) readWithin(d time.Duration) {
	if at := time.Now().Add(d); at.Before(r.nextRead) {
		r.nextRead = at
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
