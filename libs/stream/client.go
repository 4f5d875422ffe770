package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	gometrics "github.com/rcrowley/go-metrics"
	"go.uber.org/zap"
)

// Config is how to reach the brokers.
type Config struct {
	Brokers  []string
	ClientID string // the service; host and process are added, so that a broker's log tells who it was
	Log      *zap.Logger
	Registry prometheus.Registerer
	// Partitions is what EnsureTopics creates a topic with; 3 when it is 0. It stays: another number would move keys to
	// other partitions and break their order.
	Partitions int32
}

const (
	defaultPartitions = 3
	// maxMessageBytes stays below the brokers' default limit of 1 MiB with room for headers.
	maxMessageBytes = 900 << 10
	// connectWait is how long connecting is tried. Brokers that are away longer are reported, and the process starts again.
	connectWait = 30 * time.Second
	// retention is longer than any outage that is survived without a person. Sequences find a gap, they do not fill it.
	retention = "604800000" // 7 days
)

func init() {
	// sarama's own metrics cost a registry and a goroutine per client and are read by nobody here.
	gometrics.UseNilMetrics = true
	// Bombs: no response of ours is near these sizes.
	sarama.MaxResponseSize = 32 << 20
	sarama.MaxDecompressedBatchSize = 8 << 20
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Partitions == 0 {
		c.Partitions = defaultPartitions
	}
	return c
}

// settings are the same for all clients; where they differ from sarama's defaults there is a reason.
func (c Config) settings() *sarama.Config {
	host, _ := os.Hostname()
	s := sarama.NewConfig()
	s.Version = sarama.V3_6_0_0
	s.ClientID = fmt.Sprintf("%s-%s-%d", c.ClientID, host, os.Getpid())
	s.Net.DialTimeout, s.Net.ReadTimeout, s.Net.WriteTimeout = 5*time.Second, 30*time.Second, 10*time.Second
	s.Net.MaxOpenRequests = 1 // with idempotence: what is retried cannot be overtaken
	s.Metadata.Retry.Max, s.Metadata.Retry.Backoff = 10, 500*time.Millisecond
	s.Metadata.Timeout = 15 * time.Second
	s.Metadata.RefreshFrequency = time.Minute
	s.Metadata.AllowAutoTopicCreation = false // a mistyped topic is an error, not a topic

	s.Producer.Idempotent = true
	s.Producer.RequiredAcks = sarama.WaitForAll // the default acknowledges what a dead leader takes along
	s.Producer.Compression = sarama.CompressionSnappy
	// A batch is one request and not two, the first of which holds its first message: a fifth less CPU per message.
	s.Producer.Flush.Frequency = time.Millisecond
	s.Producer.Partitioner = sarama.NewMurmur2Partitioner // as Java has it; sarama's default is FNV-1a
	s.Producer.MaxMessageBytes = maxMessageBytes
	s.Producer.Timeout = 10 * time.Second
	s.Producer.Return.Successes = true // SendMessages reads them
	// "For ever" in effect: half an hour at 2 s. Each level costs 32 bytes per partition, a million would cost 96 MB.
	s.Producer.Retry.Max = 1000
	s.Producer.Retry.BackoffFunc = func(retries, _ int) time.Duration {
		return min(50*time.Millisecond<<min(retries, 6), 2*time.Second)
	}
	s.Producer.Retry.MaxBufferLength, s.Producer.Retry.MaxBufferBytes = 1<<16, 64<<20

	s.Consumer.Return.Errors = true
	s.Consumer.Offsets.AutoCommit.Enable = false // it would commit what no database has committed
	s.Consumer.Offsets.Initial = sarama.OffsetOldest
	s.Consumer.Group.ResetInvalidOffsets = false // lost records are a person's business, not a jump
	s.Consumer.Group.Session.Timeout = 8 * time.Second
	s.Consumer.Group.Heartbeat.Interval = time.Second // 10 s and 2 s miss the 12 s in which a dead member is replaced
	// A JoinGroup is answered when the rebalance ends: later than the read time-out, and members that wait would hang up and join
	// anew for ever. It is time for a handler's grace and a commit.
	s.Consumer.Group.Rebalance.Timeout = 20 * time.Second
	s.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategySticky()}
	s.Consumer.Retry.Max = 20
	s.Consumer.MaxProcessingTime = time.Second
	s.Consumer.Fetch.MaxBytes = 16 << 20
	// Commits, joins and heartbeats stand behind an empty fetch on the coordinator's connection.
	s.Consumer.MaxWaitTime = 250 * time.Millisecond
	return s
}

// connect makes a client. It tries for 30 s.
func connect(ctx context.Context, c Config, settings *sarama.Config) (sarama.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	for failures := 1; ; failures++ {
		type result struct {
			client sarama.Client
			err    error
		}
		done := make(chan result, 1)
		go func() { // NewClient takes no context
			client, err := sarama.NewClient(c.Brokers, settings)
			done <- result{client, err}
		}()
		var r result
		select {
		case r = <-done:
		case <-ctx.Done():
			go func() {
				if late := <-done; late.err == nil {
					_ = late.client.Close()
				}
			}()
			return nil, fmt.Errorf("connect to brokers %v: %w", c.Brokers, context.Cause(ctx))
		}
		if r.err == nil {
			return r.client, nil
		}
		c.Log.Warn("brokers not reachable yet", zap.Strings("brokers", c.Brokers), zap.Error(r.err))
		if !pause(ctx, jitter(failures)) {
			return nil, fmt.Errorf("connect to brokers %v: %w", c.Brokers, r.err)
		}
	}
}

// jitter is how long to wait after so many failures in a row: 100 ms doubling to 5 s, a half of it by chance, so that
// members that failed together do not come back together.
func jitter(failures int) time.Duration {
	d := min(100*time.Millisecond<<min(max(failures-1, 0), 6), 5*time.Second)
	return d/2 + rand.N(d/2)
}

// pause waits and says whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// EnsureTopics creates the topics that are missing and waits until each of their partitions has a leader. Replicas are as
// many as the brokers' own default says.
func EnsureTopics(ctx context.Context, c Config, topics []string) error {
	c = c.withDefaults()
	client, err := connect(ctx, c, c.settings())
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	for failures := 1; ; failures++ {
		err := ensure(client, c, topics)
		if err == nil {
			return nil
		}
		if !pause(ctx, jitter(failures)) {
			return fmt.Errorf("create topics: %w", err)
		}
	}
}

func ensure(client sarama.Client, c Config, topics []string) error {
	admin, err := sarama.NewClusterAdminFromClient(client) // not closed: that would close the client
	if err != nil {
		return err
	}
	policy, keep := "delete", retention
	for _, topic := range topics {
		err := admin.CreateTopic(topic, &sarama.TopicDetail{
			NumPartitions: c.Partitions, ReplicationFactor: -1,
			ConfigEntries: map[string]*string{"cleanup.policy": &policy, "retention.ms": &keep},
		}, false)
		if err != nil && !errors.Is(err, sarama.ErrTopicAlreadyExists) {
			return fmt.Errorf("create %s: %w", topic, err)
		}
	}
	if err := client.RefreshMetadata(topics...); err != nil {
		return err
	}
	for _, topic := range topics {
		partitions, err := client.Partitions(topic)
		if err != nil {
			return fmt.Errorf("partitions of %s: %w", topic, err)
		}
		if len(partitions) != int(c.Partitions) {
			c.Log.Warn("topic has another number of partitions", zap.String("topic", topic), zap.Int("has", len(partitions)), zap.Int32("asked", c.Partitions))
		}
		for _, p := range partitions {
			if _, err := client.Leader(topic, p); err != nil {
				return fmt.Errorf("leader of %s/%d: %w", topic, p, err)
			}
		}
	}
	return nil
}
