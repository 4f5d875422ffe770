package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/zap"
)

const (
	defaultMax = 256
	// leaveWait bounds a shutdown while the brokers are away. What is not committed by then is delivered again.
	leaveWait = 10 * time.Second
	// joinPatience is how long joining may fail, with brokers that answer, before the process ends and starts afresh.
	joinPatience = 5 * time.Minute
	// unjoinedLimit is how long brokers that answer may refuse a member before it calls itself unhealthy.
	unjoinedLimit = time.Minute
	// shortSession is what a session must outlive to count as one: below, rejoining backs off.
	shortSession = time.Second
)

// ConsumerOptions say how much a handler gets at once.
type ConsumerOptions struct {
	Max    int           // messages of a batch; 256 when it is 0
	Linger time.Duration // how long a batch may gather; passive consumers wait 100 ms, the others not at all
}

// Where a batch may gather, it does so at the broker: asking for whatever is there took a third of a passive consumer's CPU.
const (
	gatherBytes = 256 << 10
	// gatherWait is the longest that the broker is let wait: commits and heartbeats stand behind a fetch. The rest of Linger is
	// spent here.
	gatherWait = 250 * time.Millisecond
)

// Consumer is a member of a consumer group.
type Consumer struct {
	config  Config
	options ConsumerOptions
	group   string
	topics  []string
	client  sarama.Client
	member  sarama.ConsumerGroup
	metrics *consumerMetrics

	mu       sync.Mutex
	unjoined time.Time // since when there is no session; zero while there is one, and before Run
	joinErr  error
	lost     error // records that were deleted before they were read
	stalled  error
}

// NewConsumer connects to the brokers. It tries for 30 s.
func NewConsumer(ctx context.Context, c Config, group string, topics []string, o ConsumerOptions) (*Consumer, error) {
	c = c.withDefaults()
	if o.Max == 0 {
		o.Max = defaultMax
	}
	c.Log = c.Log.With(zap.String("group", group))
	settings := c.settings()
	if o.Linger > 0 {
		settings.Consumer.Fetch.Min, settings.Consumer.MaxWaitTime = gatherBytes, min(o.Linger, gatherWait)
		o.Linger -= settings.Consumer.MaxWaitTime
	}
	client, err := connect(ctx, c, settings)
	if err != nil {
		return nil, err
	}
	member, err := sarama.NewConsumerGroupFromClient(group, client)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make consumer of group %s: %w", group, err), client.Close())
	}
	return &Consumer{
		config: c, options: o, group: group, topics: topics, client: client, member: member,
		metrics: newConsumerMetrics(c.Registry, group),
	}, nil
}

// Run consumes until ctx ends, and then leaves the group: handle may end its batch within 5 s, its offsets are committed.
// It must be called once; the consumer is closed afterwards. The error is not nil only when the group could not be joined
// for 5 minutes although brokers answered.
//
// handle gets batches one at a time, in order per partition, each with a deadline of 30 s. Its ctx outlives the end of ctx
// by those 5 s. The batch is the handler's to keep.
//
// While the brokers are away it waits, for as long as that takes: the process has other work, and the service that it is
// part of may still answer.
func (c *Consumer) Run(ctx context.Context, handle func(ctx context.Context, batch []Message) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var background sync.WaitGroup
	background.Go(c.drainErrors)
	finished := make(chan error, 1)
	go func() { finished <- c.join(ctx, handle) }()
	var err error
	select {
	case err = <-finished:
	case <-ctx.Done():
		select {
		case err = <-finished:
		case <-time.After(leaveWait):
			c.config.Log.Warn("brokers do not answer, leaving without a commit")
		}
	}
	closed := make(chan error, 1)
	go func() {
		e := errors.Join(c.member.Close(), c.client.Close())
		background.Wait()
		closed <- e
	}()
	select {
	case e := <-closed:
		if e != nil {
			c.config.Log.Warn("group not left in order", zap.Error(e))
		}
	case <-time.After(leaveWait):
		c.config.Log.Warn("brokers do not answer, group not left")
	}
	return err
}

// join keeps the member in the group.
func (c *Consumer) join(ctx context.Context, handle func(context.Context, []Message) error) error {
	c.setUnjoined(time.Now(), nil)
	since, failures := time.Now(), 0
	for {
		inner, end := context.WithCancel(ctx)
		s := newSession(c, handle, end)
		began := time.Now()
		err := c.member.Consume(inner, c.topics, s)
		end()
		if ctx.Err() != nil {
			return nil
		}
		c.setUnjoined(time.Now(), err)
		if s.joined.Load() || away(err) {
			since = time.Now()
		}
		if err == nil && time.Since(began) > shortSession {
			failures = 0 // an ordinary rebalance: the others wait for this member
			continue
		}
		failures++
		if err != nil {
			c.config.Log.Warn("group not joined", zap.Error(err), zap.Int("attempt", failures))
		}
		if time.Since(since) > joinPatience {
			return fmt.Errorf("join group %s for %v: %w", c.group, joinPatience, err)
		}
		if !pause(ctx, jitter(failures)) {
			return nil
		}
	}
}

// drainErrors reads what sarama reports: an unread channel would stop it.
func (c *Consumer) drainErrors() {
	var logged time.Time
	unlogged := 0
	for err := range c.member.Errors() {
		if errors.Is(err, sarama.ErrOffsetOutOfRange) {
			c.config.Log.Error("records were deleted before they were read, a person must set the group's offset", zap.Error(err))
			c.mu.Lock()
			c.lost = err
			c.mu.Unlock()
			continue
		}
		if time.Since(logged) < time.Second { // in an outage each partition says the same, again and again
			unlogged++
			continue
		}
		c.config.Log.Warn("consumer trouble", zap.Error(err), zap.Int("unlogged", unlogged))
		logged, unlogged = time.Now(), 0
	}
}

// away says that no broker could be reached or was ready, which says nothing about this member.
func away(err error) bool {
	var network net.Error
	if errors.As(err, &network) {
		return true
	}
	for _, e := range []error{sarama.ErrOutOfBrokers, sarama.ErrNotConnected, sarama.ErrConsumerCoordinatorNotAvailable,
		sarama.ErrBrokerNotAvailable, sarama.ErrLeaderNotAvailable, sarama.ErrRequestTimedOut, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Healthy returns an error when the member cannot do its work: brokers that answer have refused it for a minute, a partition
// has records but yields none, or records were deleted before they were read. A handler that keeps failing is not the
// consumer's trouble, and brokers that are away are nobody's here: a service without them can still answer.
func (c *Consumer) Healthy() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost != nil {
		return fmt.Errorf("group %s: records lost: %w", c.group, c.lost)
	}
	if c.stalled != nil {
		return c.stalled
	}
	limit := unjoinedLimit
	if c.joinErr == nil { // it is still trying, or waits for the others
		limit = joinPatience
	}
	if d := time.Since(c.unjoined); !c.unjoined.IsZero() && d > limit && !away(c.joinErr) {
		return fmt.Errorf("group %s not joined for %v: %w", c.group, d.Round(time.Second), errors.Join(errUnjoined, c.joinErr))
	}
	return nil
}

var errUnjoined = errors.New("no session")

func (c *Consumer) setUnjoined(at time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unjoined.IsZero() {
		c.unjoined = at
	}
	c.joinErr = err
}

func (c *Consumer) setJoined() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unjoined, c.joinErr = time.Time{}, nil
}

func (c *Consumer) setStalled(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalled = err
}

// Oldest is the oldest offset that the partition still has.
func (c *Consumer) Oldest(ctx context.Context, topic string, partition int32) (int64, error) {
	type result struct {
		offset int64
		err    error
	}
	done := make(chan result, 1)
	go func() { // GetOffset takes no context
		offset, err := c.client.GetOffset(topic, partition, sarama.OffsetOldest)
		done <- result{offset, err}
	}()
	select {
	case r := <-done:
		return r.offset, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
