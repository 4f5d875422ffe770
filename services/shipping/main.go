// Command shipping is the shipping service: it has a carrier bring what was paid, and tells how far it has come. README.md
// says what it reads, tells and keeps.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/outbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/services/shipping/internal/carrier"
	"github.com/waybill-dev/waybill/services/shipping/internal/dispatch"
	"github.com/waybill-dev/waybill/services/shipping/internal/httpapi"
	"github.com/waybill-dev/waybill/services/shipping/internal/postgres"
	"github.com/waybill-dev/waybill/services/shipping/internal/progress"
)

//go:embed openapi.yaml
var document []byte

func init() {
	problem.Classify(func(err error) *problem.Problem {
		if errors.Is(err, progress.ErrStopped) {
			return problem.Unavailable()
		}
		return nil
	})
}

func main() { service.Main("shipping", run) }

func run(ctx context.Context, s *service.Service, cfg Config) error {
	pool, err := pg.Open(ctx, string(cfg.DatabaseURL), s.Log, outbox.Migrations, inbox.Migrations, postgres.Migrations)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer pool.Close()
	s.Check("postgres", pool.Ping)

	kafka := stream.Config{Brokers: cfg.KafkaBrokers, ClientID: s.Name, Log: s.Log, Registry: s.Registry, Partitions: cfg.Partitions}
	if err := stream.EnsureTopics(ctx, kafka, []string{event.Shipping, event.Orders}); err != nil {
		return fmt.Errorf("ensure topics: %w", err)
	}
	producer, err := stream.NewProducer(ctx, kafka)
	if err != nil {
		return fmt.Errorf("open producer: %w", err)
	}
	defer producer.Close()
	consumer, err := stream.NewConsumer(ctx, kafka, "shipping-service", []string{event.Orders}, stream.ConsumerOptions{Max: 256})
	if err != nil {
		return fmt.Errorf("open consumer: %w", err)
	}
	s.Check("kafka", func(context.Context) error { return consumer.Healthy() })

	events := outbox.New(outbox.Options{
		Source: "shipping", Pool: pool, DatabaseURL: string(cfg.DatabaseURL), Producer: producer, Log: s.Log, Registry: s.Registry,
	})
	wake := make(chan struct{}, 1)
	store := postgres.New(pool, events, func() {
		select {
		case wake <- struct{}{}:
		default: // it is awake
		}
	})
	people := inbox.New(inbox.Options{
		Group: "shipping-service", Pool: pool, Wants: postgres.Wants, Handler: store.Consume, Oldest: consumer.Oldest,
		Log: s.Log, Registry: s.Registry,
	})
	s.Check("inbox", func(context.Context) error { return people.Healthy() })
	client := carrier.New(cfg.CarrierURL, dispatch.Parallel)
	defer client.Close()
	intake := progress.New(store)
	queue := dispatch.New(store, client, intake, wake, s.Log, s.Registry)

	verifier, err := auth.NewVerifier(ctx, auth.VerifierConfig{JWKSURL: cfg.JWKSURL, ServiceJWKSFile: cfg.ServiceJWKS, Audience: s.Name, Log: s.Log})
	if err != nil {
		return fmt.Errorf("open token verifier: %w", err)
	}
	api, err := httpapi.New(httpapi.Options{
		Store: store, Intake: intake, Auth: verifier.Middleware, Secret: string(cfg.CarrierSecret),
		Interventions: people.Routes(), Document: document,
	})
	if err != nil {
		return err
	}

	// They stop in reverse order: who calls, then who keeps the outcomes, then who publishes.
	s.Go("outbox", events.Run)
	s.Go("progress", intake.Run)
	s.Go("dispatch", queue.Run)
	s.Go("inbox", people.Run)
	s.Consume("consumer", func(ctx context.Context) error { return consumer.Run(ctx, people.Consume) })
	s.Serve(api)
	return nil
}
