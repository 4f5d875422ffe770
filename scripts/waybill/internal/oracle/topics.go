package oracle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/stream"
)

// span is what a partition holds: offsets from start up to, but without, end.
type span struct{ start, end int64 }

// asking bounds a question to the broker; stalled is how long a read may go without a record.
const asking, stalled = 10 * time.Second, 30 * time.Second

// brokers opens a client that asks.
func brokers(addresses []string) (*kadm.Client, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addresses...), kgo.RetryTimeout(asking))
	if err != nil {
		return nil, fmt.Errorf("open a Kafka client: %w", err)
	}
	return kadm.NewClient(cl), nil
}

// bounds asks what the topics hold.
func bounds(ctx context.Context, adm *kadm.Client) (map[string]map[int32]span, error) {
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	starts, err := adm.ListStartOffsets(ctx, event.Topics()...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask Kafka for its topics: %w", err)
	}
	ends, err := adm.ListEndOffsets(ctx, event.Topics()...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask Kafka for its topics: %w", err)
	}
	spans := map[string]map[int32]span{}
	ends.Each(func(o kadm.ListedOffset) {
		start, _ := starts.Lookup(o.Topic, o.Partition)
		if spans[o.Topic] == nil {
			spans[o.Topic] = map[int32]span{}
		}
		spans[o.Topic][o.Partition] = span{start.Offset, o.Offset}
	})
	return spans, nil
}

// readTopic shows every record of a topic; within a partition in the order of the offsets.
func (c *check) readTopic(ctx context.Context, topic string, f func(stream.Message) error) error {
	left := map[int32]int64{}
	offsets := map[int32]kgo.Offset{}
	for id, s := range c.spans[topic] {
		if s.end > s.start {
			left[id], offsets[id] = s.end, kgo.NewOffset().At(s.start)
		}
	}
	if len(left) == 0 {
		return nil
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.target.Kafka...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}),
		kgo.FetchMaxBytes(8<<20), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		return fmt.Errorf("open a Kafka client: %w", err)
	}
	defer cl.Close()
	for len(left) > 0 {
		poll, cancel := context.WithTimeout(ctx, stalled)
		fetches := cl.PollFetches(poll)
		cancel()
		for _, e := range fetches.Errors() {
			if errors.Is(e.Err, context.DeadlineExceeded) && ctx.Err() == nil {
				return fmt.Errorf("read topic %s: Kafka gave no record for %s", topic, stalled)
			}
			return fmt.Errorf("read topic %s: %w", topic, e.Err)
		}
		var failed error
		fetches.EachRecord(func(r *kgo.Record) {
			end, waiting := left[r.Partition]
			if failed != nil || !waiting || r.Offset >= end {
				return
			}
			if r.Offset+1 >= end {
				delete(left, r.Partition)
			}
			m := stream.Message{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value, Time: r.Timestamp}
			for _, h := range r.Headers {
				m.Headers = append(m.Headers, stream.Header{Key: h.Key, Value: h.Value})
			}
			for _, m := range c.spoil.record(m) {
				if failed == nil {
					failed = f(m)
				}
			}
		})
		if failed != nil {
			return failed
		}
	}
	return nil
}

// lag is how many records each group has not committed, by group and topic.
func lag(ctx context.Context, adm *kadm.Client, ends map[string]map[int32]span) (map[string]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	behind := map[string]int64{}
	for group, topics := range readers {
		committed, err := adm.FetchOffsets(ctx, group)
		if err != nil {
			return nil, fmt.Errorf("ask Kafka for the offsets of %s: %w", group, err)
		}
		for _, topic := range topics {
			for id, s := range ends[topic] {
				at := s.start
				if o, ok := committed.Lookup(topic, id); ok && o.At >= 0 {
					at = o.At
				}
				if at > s.end {
					behind[group+" is ahead of "+topic] += at - s.end
				} else if at < s.end {
					behind[group+" on "+topic] += s.end - at
				}
			}
		}
	}
	return behind, nil
}

// readers are the consumer groups and what they read.
var readers = map[string][]string{
	"order-service":        {event.Payments, event.Inventory, event.Shipping},
	"payment-service":      {event.Orders},
	"inventory-service":    {event.Orders, event.Payments},
	"shipping-service":     {event.Orders},
	"analytics-service":    event.Topics(),
	"notification-service": event.Topics(),
	"metrics-processor":    event.Topics(),
}
