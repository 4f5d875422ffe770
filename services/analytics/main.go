// Command analytics stores what happens to each tenant and reports it by day. README.md tells what it reads and serves.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/services/analytics/internal/httpapi"
	"github.com/waybill-dev/waybill/services/analytics/internal/ingest"
	"github.com/waybill-dev/waybill/services/analytics/internal/postgres"
)

//go:embed openapi.yaml
var openAPI []byte

func main() { service.Main("analytics", run) }

func run(ctx context.Context, s *service.Service, cfg Config) error {
	pool, err := pg.Open(ctx, string(cfg.DatabaseURL), s.Log, inbox.Migrations, postgres.Migrations)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer pool.Close()
	s.Check("postgres", pool.Ping)
	store := postgres.New(pool, cfg.RetentionMonths)
	if err := store.Maintain(ctx, time.Now()); err != nil {
		return fmt.Errorf("create partitions: %w", err)
	}
	if s.Development() {
		if err := store.Seed(ctx); err != nil {
			return fmt.Errorf("seed tenants: %w", err)
		}
	}

	kafka := stream.Config{Brokers: cfg.KafkaBrokers, ClientID: s.Name, Log: s.Log, Registry: s.Registry, Partitions: cfg.Partitions}
	if err := stream.EnsureTopics(ctx, kafka, event.Topics()); err != nil {
		return fmt.Errorf("ensure topics: %w", err)
	}
	// Nobody waits for analytics: larger batches are cheaper.
	consumer, err := stream.NewConsumer(ctx, kafka, "analytics-service", event.Topics(), stream.ConsumerOptions{Max: 1024, Linger: 100 * time.Millisecond})
	if err != nil {
		return fmt.Errorf("open consumer: %w", err)
	}
	s.Check("kafka", func(context.Context) error { return consumer.Healthy() })
	events := inbox.New(inbox.Options{Group: "analytics-service", Pool: pool, Wants: event.Types(), Handler: ingest.New(store, s.Log).Events, Unordered: true,
		Log: s.Log, Registry: s.Registry})
	s.Check("inbox", func(context.Context) error { return events.Healthy() })

	verifier, err := auth.NewVerifier(ctx, auth.VerifierConfig{JWKSURL: cfg.JWKSURL, ServiceJWKSFile: cfg.ServiceJWKS, Audience: s.Name, Log: s.Log})
	if err != nil {
		return fmt.Errorf("open token verifier: %w", err)
	}
	s.Go("partitions", func(ctx context.Context) error { return maintain(ctx, store, s.Log) })
	s.Go("inbox", events.Run)
	s.Consume("consumer", func(ctx context.Context) error { return consumer.Run(ctx, events.Consume) })
	s.Serve(httpapi.New(store, verifier.Middleware, events.Routes(), openAPI))
	return nil
}

// maintain looks after the partitions every hour. They are made two months ahead, so a failure has weeks to be noticed.
func maintain(ctx context.Context, store *postgres.Store, log *zap.Logger) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if err := store.Maintain(ctx, now); err != nil && ctx.Err() == nil {
				log.Error("maintain partitions", zap.Error(err))
			}
		}
	}
}
