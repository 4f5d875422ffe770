package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/zap"
)

// closeWait is how long Close waits for what is in flight.
const closeWait = 5 * time.Second

// Producer writes messages, one Send at a time.
type Producer struct {
	client  sarama.Client
	sync    sarama.SyncProducer
	metrics *producerMetrics

	// Whoever has taken the token from turn owns the buffers below, until sarama is done with them.
	turn    chan struct{}
	slab    []sarama.ProducerMessage
	refs    []*sarama.ProducerMessage
	headers []sarama.RecordHeader
}

// NewProducer connects to the brokers. It tries for 30 s.
func NewProducer(ctx context.Context, c Config) (*Producer, error) {
	c = c.withDefaults()
	client, err := connect(ctx, c, c.settings())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	var sync sarama.SyncProducer
	for failures := 1; ; failures++ { // it asks for a producer id, which a broker that has just started may not give yet
		if sync, err = sarama.NewSyncProducerFromClient(client); err == nil {
			break
		}
		c.Log.Warn("no producer id yet", zap.Error(err))
		if !pause(ctx, jitter(failures)) {
			return nil, errors.Join(fmt.Errorf("make producer: %w", err), client.Close())
		}
	}
	p := &Producer{client: client, sync: sync, metrics: newProducerMetrics(c.Registry), turn: make(chan struct{}, 1)}
	p.turn <- struct{}{}
	return p, nil
}

// Send writes the messages and returns nil when all of them are acknowledged by all in-sync replicas. When ctx ends first
// it returns at once and the messages may or may not be written; the next Send waits until that is settled.
func (p *Producer) Send(ctx context.Context, messages []Message) error {
	if len(messages) == 0 {
		return nil
	}
	select {
	case <-p.turn:
	case <-ctx.Done():
		return fmt.Errorf("send %d messages: %w", len(messages), ctx.Err())
	}
	p.fill(messages)
	done := make(chan error, 1)
	go func() { // SendMessages takes no context and blocks up to 20 s in an outage; nobody's shutdown waits for it
		err := p.sync.SendMessages(p.refs)
		p.turn <- struct{}{}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			p.metrics.errors.Inc()
			return fmt.Errorf("send %d messages: %w", len(messages), first(err))
		}
		p.metrics.sent.Add(float64(len(messages)))
		return nil
	case <-ctx.Done():
		return fmt.Errorf("send %d messages: %w", len(messages), ctx.Err())
	}
}

// fill puts the messages into the buffers.
func (p *Producer) fill(messages []Message) {
	n := 0
	for i := range messages {
		n += len(messages[i].Headers)
	}
	if cap(p.headers) < n {
		p.headers = make([]sarama.RecordHeader, n)
	}
	if cap(p.slab) < len(messages) {
		p.slab = make([]sarama.ProducerMessage, len(messages))
		p.refs = make([]*sarama.ProducerMessage, len(messages))
	}
	p.headers, p.slab, p.refs = p.headers[:n], p.slab[:len(messages)], p.refs[:len(messages)]
	n = 0
	for i := range messages {
		m := &messages[i]
		start := n
		for j := range m.Headers {
			p.headers[n] = sarama.RecordHeader{Key: keyBytes(j, m.Headers[j].Key), Value: m.Headers[j].Value}
			n++
		}
		p.slab[i] = sarama.ProducerMessage{
			Topic: m.Topic, Key: sarama.ByteEncoder(m.Key), Value: sarama.ByteEncoder(m.Value),
			Headers: p.headers[start:n:n], Timestamp: m.Time,
		}
		p.refs[i] = &p.slab[i]
	}
}

// first picks one of the errors that sarama lists per message: in an outage it is the same one a thousand times.
func first(err error) error {
	var each sarama.ProducerErrors
	if errors.As(err, &each) && len(each) > 0 {
		return fmt.Errorf("%d failed, the first of them: %w", len(each), each[0].Err)
	}
	return err
}

// Close waits up to 5 s for what is in flight and gives up the rest.
func (p *Producer) Close() error {
	done := make(chan error, 1)
	go func() { done <- p.sync.Close() }()
	var err error
	select {
	case err = <-done:
	case <-time.After(closeWait):
		err = errors.New("messages in flight were given up")
	}
	if err = errors.Join(err, p.client.Close()); err != nil {
		return fmt.Errorf("close producer: %w", err)
	}
	return nil
}
