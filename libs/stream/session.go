package stream

import (
	"context"
	"fmt"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

const (
	// commitEvery is how much is handled again after a crash; the inbox drops it.
	commitEvery = 500 * time.Millisecond
	// handleLimit ends a handler that hangs. Where a rebalance waits for it, it has handleGrace, a quarter of the rebalance time-out.
	handleLimit = 30 * time.Second
	// handleGrace is what a handler gets when its session has ended.
	handleGrace = 5 * time.Second
	// chunks is how many reads of partitions may wait for the worker.
	chunks = 16
	// maxPause is the longest wait between two tries of a batch.
	maxPause = 30 * time.Second
	// inPlace is how many tries come before fetching is paused.
	inPlace = 3
	// A partition that has records and yields none for stallLimit is looked at every stallLook.
	stallLook, stallLimit = 10 * time.Second, time.Minute
)

// session is a membership from a join to the next rebalance. It is sarama's ConsumerGroupHandler.
type session struct {
	*Consumer
	handle func(context.Context, []Message) error
	end    context.CancelFunc // of the session
	joined atomic.Bool
	idle   atomic.Bool // the worker waits for records

	waiting chan []*sarama.ConsumerMessage
	rest    []*sarama.ConsumerMessage // of a chunk that was larger than the batch; the worker's own
	stop    context.CancelFunc        // of worker and committer
	done    sync.WaitGroup

	mu     sync.Mutex
	claims map[partition]*claim
}

type partition struct {
	topic string
	id    int32
}

// claim is what the session knows of one partition.
type claim struct {
	sarama.ConsumerGroupClaim
	next    atomic.Int64 // the offset after the last one that was read
	lag     prometheus.Gauge
	handled int64     // the offset after the last one that was handled; guarded by the session's mu
	seen    int64     // next at the watchdog's last look; the watchdog's own, as the next
	behind  time.Time // since when there are records that are not read
}

func newSession(c *Consumer, handle func(context.Context, []Message) error, end context.CancelFunc) *session {
	return &session{
		Consumer: c, handle: handle, end: end,
		waiting: make(chan []*sarama.ConsumerMessage, chunks), claims: map[partition]*claim{},
	}
}

// Setup starts the session's goroutines.
func (s *session) Setup(ss sarama.ConsumerGroupSession) error {
	s.joined.Store(true)
	s.setJoined()
	s.metrics.sessions.Inc()
	s.member.ResumeAll() // a session that ended while paused
	ctx, stop := context.WithCancel(ss.Context())
	s.stop = stop
	s.done.Go(func() { s.commit(ctx, ss) })
	s.done.Go(func() { s.work(ctx, ss) })
	go s.watch(ctx)
	s.config.Log.Info("group joined", zap.Int32("generation", ss.GenerationID()), zap.Any("claims", ss.Claims()))
	return nil
}

// Cleanup waits for the worker and commits what it has handled: with auto-commit off sarama does not.
func (s *session) Cleanup(ss sarama.ConsumerGroupSession) error {
	s.stop()
	s.done.Wait()
	ss.Commit()
	s.metrics.lag.Reset() // the partitions may be another member's from now on
	s.setUnjoined(time.Now(), nil)
	return nil
}

// ConsumeClaim passes records on to the worker. It returns when the partition is taken away and never for the sake of a
// record: returning ends the session of all partitions.
func (s *session) ConsumeClaim(ss sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	cl := &claim{
		ConsumerGroupClaim: c,
		lag:                s.metrics.lag.WithLabelValues(c.Topic(), strconv.Itoa(int(c.Partition()))),
	}
	cl.next.Store(c.InitialOffset())
	s.mu.Lock()
	s.claims[partition{c.Topic(), c.Partition()}] = cl
	s.mu.Unlock()
	records := c.Messages()
	for {
		var chunk []*sarama.ConsumerMessage
		select {
		case r, ok := <-records:
			if !ok {
				return nil
			}
			chunk = append(make([]*sarama.ConsumerMessage, 0, min(1+len(records), s.options.Max)), r)
		case <-ss.Context().Done():
			return nil
		}
		for len(chunk) < cap(chunk) { // at least so many are there
			r, ok := <-records
			if !ok {
				break
			}
			chunk = append(chunk, r)
		}
		cl.next.Store(chunk[len(chunk)-1].Offset + 1)
		select {
		case s.waiting <- chunk:
		case <-ss.Context().Done():
			return nil
		}
	}
}

func (s *session) commit(ctx context.Context, ss sarama.ConsumerGroupSession) {
	t := time.NewTicker(commitEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			ss.Commit()
			s.observeLag()
		case <-ctx.Done():
			return
		}
	}
}

// work hands batches to the handler until the session ends.
func (s *session) work(ctx context.Context, ss sarama.ConsumerGroupSession) {
	// The handler's context outlives the session by the grace period, so that a batch in the middle can end.
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(handleGrace, cancel) })()
	for {
		s.idle.Store(true)
		records := s.gather(ctx)
		s.idle.Store(false)
		if len(records) == 0 || !s.process(ctx, lasting, records) {
			return
		}
		s.mark(ss, records)
	}
}

// gather takes what waits, up to Max, and waits for more for Linger. It returns nothing when the session has ended.
func (s *session) gather(ctx context.Context) []*sarama.ConsumerMessage {
	batch := s.take(nil, s.rest)
	if len(batch) == 0 {
		select {
		case chunk := <-s.waiting:
			batch = s.take(batch, chunk)
		case <-ctx.Done():
			return nil
		}
	}
	var linger <-chan time.Time
	if s.options.Linger > 0 && len(batch) < s.options.Max {
		t := time.NewTimer(s.options.Linger)
		defer t.Stop()
		linger = t.C
	}
	for len(batch) < s.options.Max {
		select {
		case chunk := <-s.waiting:
			batch = s.take(batch, chunk)
			continue
		default:
		}
		if linger == nil {
			break
		}
		select {
		case chunk := <-s.waiting:
			batch = s.take(batch, chunk)
		case <-linger:
			linger = nil
		case <-ctx.Done():
			return nil
		}
	}
	if ctx.Err() != nil { // another member may have these already; the inbox would find out, at a price
		return nil
	}
	return batch
}

// take adds as much of chunk to batch as fits and keeps the rest.
func (s *session) take(batch, chunk []*sarama.ConsumerMessage) []*sarama.ConsumerMessage {
	n := min(len(chunk), s.options.Max-len(batch))
	s.rest = chunk[n:]
	if len(batch) == 0 {
		return chunk[:n:n]
	}
	return append(batch, chunk[:n]...)
}

// process brings the batch to the handler until it succeeds. It gives up only when the session ends.
func (s *session) process(ctx, lasting context.Context, records []*sarama.ConsumerMessage) bool {
	batch := received(records)
	s.metrics.batch.Observe(float64(len(batch)))
	s.metrics.delay.Observe(time.Since(batch[0].Time).Seconds())
	for failures := 0; ; {
		began := time.Now()
		err := s.call(lasting, batch)
		s.metrics.handle.Observe(time.Since(began).Seconds())
		if err == nil {
			if failures > inPlace {
				s.member.ResumeAll()
				s.metrics.paused.Set(0)
			}
			return true
		}
		if ctx.Err() != nil {
			return false // shutting down is nobody's fault
		}
		failures++
		s.metrics.failures.Inc()
		wait := backoff(failures)
		s.config.Log.Warn("handler did not take the batch", zap.Error(err), zap.Int("messages", len(batch)), zap.Int("attempt", failures),
			zap.String("topic", batch[0].Topic), zap.Int32("partition", batch[0].Partition), zap.Int64("offset", batch[0].Offset), zap.Duration("next_try", wait))
		if failures > inPlace {
			s.member.PauseAll() // heartbeats go on, fetches do not
			s.metrics.paused.Set(1)
		}
		if !pause(ctx, wait) {
			return false
		}
	}
}

// backoff is the wait after so many failures: 0.1, 0.5, 2 s, then 4 s doubling to 30 s.
func backoff(failures int) time.Duration {
	switch failures {
	case 1:
		return 100 * time.Millisecond
	case 2:
		return 500 * time.Millisecond
	}
	return min(time.Second<<min(failures-2, 5), maxPause)
}

// call runs the handler once. A panic is an error like others: the process has other work.
func (s *session) call(lasting context.Context, batch []Message) (err error) {
	ctx, cancel := context.WithTimeout(lasting, handleLimit)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("handler panicked: %v\n%s", r, debug.Stack())
		}
	}()
	return s.handle(ctx, batch)
}

// mark says that the records are done: the highest offset of each partition, for marks mean "everything up to here".
func (s *session) mark(ss sarama.ConsumerGroupSession, records []*sarama.ConsumerMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var p partition
	var c *claim
	for _, r := range records {
		if r.Partition != p.id || r.Topic != p.topic { // they come in runs
			p = partition{r.Topic, r.Partition}
			c = s.claims[p]
		}
		c.handled = r.Offset + 1
	}
	for p, c := range s.claims {
		if c.handled > 0 {
			ss.MarkOffset(p.topic, p.id, c.handled, "")
		}
	}
}

// observeLag keeps the gauges true while the handler fails, too.
func (s *session) observeLag() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.claims {
		if from := max(c.handled, c.InitialOffset()); from >= 0 {
			c.lag.Set(float64(max(c.HighWaterMarkOffset()-from, 0)))
		}
	}
}

// watch ends the session when a partition has had records for a minute that do not come.
func (s *session) watch(ctx context.Context) {
	for pause(ctx, stallLook) {
		s.mu.Lock()
		claims := make([]*claim, 0, len(s.claims))
		for _, c := range s.claims {
			claims = append(claims, c)
		}
		s.mu.Unlock()
		var stalled error
		for _, c := range claims {
			next := c.next.Load()
			if moved := next != c.seen; moved || !s.idle.Load() || !s.hasMore(c, next) {
				c.seen, c.behind = next, time.Time{}
				continue
			}
			if c.behind.IsZero() {
				c.behind = time.Now()
			}
			if d := time.Since(c.behind); d >= stallLimit {
				stalled = fmt.Errorf("group %s: %s/%d has records after offset %d but yields none for %v", s.group, c.Topic(), c.Partition(), next, d)
			}
		}
		s.setStalled(stalled)
		if stalled != nil {
			s.config.Log.Error("partition stalled, joining again", zap.Error(stalled))
			s.metrics.rejoins.Inc()
			s.end()
			return
		}
	}
}

// hasMore asks the broker. When it does not answer there is nothing to blame the partition for.
func (s *session) hasMore(c *claim, next int64) bool {
	newest, err := s.client.GetOffset(c.Topic(), c.Partition(), sarama.OffsetNewest)
	if err != nil {
		return false
	}
	if next < 0 { // nothing was read and nothing committed: from the oldest
		if next, err = s.client.GetOffset(c.Topic(), c.Partition(), sarama.OffsetOldest); err != nil {
			return false
		}
	}
	return newest > next
}
