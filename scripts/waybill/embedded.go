package main

import (
	"fmt"
	"net"
	"os"

	"github.com/alicebob/miniredis/v2"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/waybill-dev/waybill/libs/testkit/kafka"
)

// newKafka is the broker that "up" runs as a child of its own.
func newKafka() *cobra.Command {
	var listen, dir string
	var fsync bool
	var partitions int
	cmd := &cobra.Command{
		Use: "kafka-embedded", Short: "Run the embedded broker", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options := []kfake.Opt{
				kfake.NumBrokers(1),
				kfake.DefaultNumPartitions(partitions),
				kfake.DataDir(dir),
				// One broker, so the only address asked for is this one.
				kfake.ListenFn(func(network, _ string) (net.Listener, error) { return kafka.Listen(network, listen) }),
				kfake.WithLogger(kfake.BasicLogger(os.Stderr, kfake.LogLevelWarn)),
			}
			if fsync {
				options = append(options, kfake.SyncWrites())
			}
			cluster, err := kafka.New(options...)
			if err != nil {
				return fmt.Errorf("start the broker on %s: %w", listen, err)
			}
			<-cmd.Context().Done()
			cluster.Close()
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:9092", "address")
	f.StringVar(&dir, "dir", ".waybill/kafka", "data directory")
	f.IntVar(&partitions, "partitions", 3, "partitions of a topic that is created without a number")
	f.BoolVar(&fsync, "fsync", false, "write every batch through to the disk")
	return cmd
}

// newRedis is the Redis that "up" runs as a child of its own. Nothing in it needs to
// survive its end: rate limits begin anew and caches fill again.
func newRedis() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use: "redis-embedded", Short: "Run the embedded Redis", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			server := miniredis.NewMiniRedis()
			server.ClockTTL(true)
			if err := server.StartAddr(listen); err != nil {
				return fmt.Errorf("start Redis on %s: %w", listen, err)
			}
			defer server.Close()
			<-cmd.Context().Done()
			return nil
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:16379", "address")
	return cmd
}
