package testkit

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/testkit/kafka"
)

// partitions is what services create topics with: enough that a test which needs
// order per key, and only per key, sees the difference.
const partitions = 3

// Kafka starts a broker in this process with the given topics, or with those of the
// catalogue. The cluster can be told to misbehave (kfake's Control functions).
func Kafka(t testing.TB, topics ...string) ([]string, *kfake.Cluster) {
	t.Helper()
	if len(topics) == 0 {
		topics = event.Topics()
	}
	cluster, err := kafka.New(kfake.NumBrokers(1), kfake.DefaultNumPartitions(partitions), kfake.SeedTopics(partitions, topics...))
	if err != nil {
		t.Fatalf("start a broker: %v", err)
	}
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs(), cluster
}
