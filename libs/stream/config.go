package stream

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Config is how to reach the brokers.
type Config struct {
	Brokers  []string
	ClientID string // service, host and process, so that a broker's log tells who it was
	Log      *zap.Logger
	Registry prometheus.Registerer
	// Partitions is what EnsureTopics creates a topic with; 3 when it is 0. It stays: another number would move keys to
	// other partitions and break their order.
	Partitions int32
}

// EnsureTopics creates the topics that are missing and waits until each of them has a leader.
func EnsureTopics(ctx context.Context, c Config, topics []string) error { return errors.ErrUnsupported }

// Producer writes messages.
type Producer struct{}

// NewProducer connects to the brokers.
func NewProducer(ctx context.Context, c Config) (*Producer, error) { return nil, errors.ErrUnsupported }

// Send writes the messages and returns nil when all of them are acknowledged by all in-sync replicas.
func (p *Producer) Send(ctx context.Context, messages []Message) error { return errors.ErrUnsupported }

// Close gives up what is in flight after a few seconds.
func (p *Producer) Close() error { return errors.ErrUnsupported }

// ConsumerOptions say how much a handler gets at once.
type ConsumerOptions struct {
	Max    int           // messages of a batch; 256 when it is 0
	Linger time.Duration // how long to gather a batch; passive consumers wait 100 ms, the others not at all
}

// Consumer is a member of a consumer group.
type Consumer struct{}

// NewConsumer connects to the brokers.
func NewConsumer(ctx context.Context, c Config, group string, topics []string, o ConsumerOptions) (*Consumer, error) {
	return nil, errors.ErrUnsupported
}

// Run consumes until ctx ends.
func (c *Consumer) Run(ctx context.Context, handle func(ctx context.Context, batch []Message) error) error {
	return errors.ErrUnsupported
}

// Healthy returns an error when the consumer has made no progress for a minute though there is something to read.
func (c *Consumer) Healthy() error { return nil }

// Oldest is the oldest offset that the partition still has.
func (c *Consumer) Oldest(ctx context.Context, topic string, partition int32) (int64, error) {
	return 0, errors.ErrUnsupported
}
