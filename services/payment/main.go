// Command payment is the payment service: it charges orders, asks until it knows what became of a charge, and gives money
// back. README.md tells what it reads, tells and keeps.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/outbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/libs/telemetry"
	"github.com/waybill-dev/waybill/services/payment/internal/batch"
	"github.com/waybill-dev/waybill/services/payment/internal/httpapi"
	"github.com/waybill-dev/waybill/services/payment/internal/intake"
	"github.com/waybill-dev/waybill/services/payment/internal/postgres"
	"github.com/waybill-dev/waybill/services/payment/internal/processor"
	"github.com/waybill-dev/waybill/services/payment/internal/provider"
)

//go:embed openapi.yaml
var openAPI []byte

func init() { problem.Classify(httpapi.Classify) }

func main() { service.Main("payment", run) }

func run(ctx context.Context, s *service.Service, cfg Config) error {
	pool, err := pg.Open(ctx, string(cfg.DatabaseURL), s.Log, outbox.Migrations, inbox.Migrations, postgres.Migrations)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer pool.Close()
	s.Check("postgres", pool.Ping)

	kafka := stream.Config{Brokers: cfg.KafkaBrokers, ClientID: s.Name, Log: s.Log, Registry: s.Registry, Partitions: cfg.Partitions}
	if err := stream.EnsureTopics(ctx, kafka, []string{event.Payments, event.Orders}); err != nil {
		return fmt.Errorf("ensure topics: %w", err)
	}
	producer, err := stream.NewProducer(ctx, kafka)
	if err != nil {
		return fmt.Errorf("open producer: %w", err)
	}
	defer producer.Close()
	consumer, err := stream.NewConsumer(ctx, kafka, "payment-service", []string{event.Orders}, stream.ConsumerOptions{Max: batch.Max})
	if err != nil {
		return fmt.Errorf("open consumer: %w", err)
	}
	s.Check("kafka", func(context.Context) error { return consumer.Healthy() })

	events := outbox.New(outbox.Options{Source: "payment", Pool: pool, DatabaseURL: string(cfg.DatabaseURL),
		Producer: producer, Log: s.Log, Registry: s.Registry})
	client, err := provider.NewClient(cfg.ProviderURL, telemetry.Transport(provider.Transport(processor.Parallel)))
	if err != nil {
		return err
	}
	store := postgres.New(pool, events)
	queue := processor.New(store, client, s.Log, s.Registry)
	in := intake.New(store, queue)
	people := inbox.New(inbox.Options{
		Group: "payment-service", Pool: pool, Wants: intake.Wants, Handler: in.Events, Oldest: consumer.Oldest,
		Redrive: map[string]func(context.Context, *pg.Unit, uuid.UUID, string) error{postgres.RefundIntervention: in.RefundAgain},
		Log:     s.Log, Registry: s.Registry,
	})
	store.Attach(people)
	s.Check("inbox", func(context.Context) error { return people.Healthy() })

	verifier, err := auth.NewVerifier(ctx, auth.VerifierConfig{JWKSURL: cfg.JWKSURL, ServiceJWKSFile: cfg.ServiceJWKS, Audience: s.Name, Log: s.Log})
	if err != nil {
		return fmt.Errorf("open token verifier: %w", err)
	}
	api, err := httpapi.New(httpapi.Options{
		Payments: store, Intake: in, Provider: queue, WebhookSecret: string(cfg.ProviderSecret),
		Auth: verifier.Middleware, Interventions: people.Routes(), OpenAPI: openAPI,
	})
	if err != nil {
		return err
	}

	// They stop in reverse order: who asks, then who calls, then who publishes.
	s.Go("outbox", events.Run)
	s.Go("processor", queue.Run)
	s.Go("inbox", people.Run)
	s.Go("intake", in.Run)
	s.Consume("consumer", func(ctx context.Context) error { return consumer.Run(ctx, people.Consume) })
	s.Serve(http.Handler(api))
	return nil
}
