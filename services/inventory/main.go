// Command inventory is the stockroom of the platform: products, reservations and the ledger that explains them.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"

	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/outbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/libs/telemetry"
	"github.com/waybill-dev/waybill/services/inventory/internal/expiry"
	"github.com/waybill-dev/waybill/services/inventory/internal/httpapi"
	"github.com/waybill-dev/waybill/services/inventory/internal/intake"
	"github.com/waybill-dev/waybill/services/inventory/internal/order"
	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
	"github.com/waybill-dev/waybill/services/inventory/internal/recount"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

//go:embed openapi.yaml
var openAPI []byte

const (
	name  = "inventory"
	group = "inventory-service"
)

func main() { service.Main(name, run) }

func run(ctx context.Context, s *service.Service, cfg Config) error {
	pool, err := pg.Open(ctx, string(cfg.DatabaseURL), s.Log, outbox.Migrations, inbox.Migrations, postgres.Migrations)
	if err != nil {
		return err
	}
	defer pool.Close()

	kafka := stream.Config{Brokers: cfg.KafkaBrokers, ClientID: clientID(), Log: s.Log, Registry: s.Registry, Partitions: cfg.Partitions}
	if err := stream.EnsureTopics(ctx, kafka, []string{event.Orders, event.Payments, event.Inventory}); err != nil {
		return err
	}
	producer, err := stream.NewProducer(ctx, kafka)
	if err != nil {
		return err
	}
	defer producer.Close()
	consumer, err := stream.NewConsumer(ctx, kafka, group, []string{event.Orders, event.Payments}, stream.ConsumerOptions{})
	if err != nil {
		return err
	}

	out := outbox.New(outbox.Options{Source: name, Pool: pool, DatabaseURL: string(cfg.DatabaseURL), Producer: producer, Log: s.Log, Registry: s.Registry})
	store := postgres.New(pool, out, stock.Terms{Hold: cfg.HoldTTL, Lapse: lapse, Pin: cfg.PinBound}, s.Registry)
	var in *inbox.Inbox
	in = inbox.New(inbox.Options{
		Group: group, Pool: pool, Wants: postgres.Wants, Oldest: consumer.Oldest, Log: s.Log, Registry: s.Registry,
		Handler: func(ctx context.Context, u *pg.Unit, batch []event.Event) error {
			return store.Follow(ctx, u, batch, in)
		},
		Redrive: map[string]func(context.Context, *pg.Unit, uuid.UUID, string) error{postgres.KindShort: store.Confirm},
	})
	if s.Development() {
		if err := store.Seed(ctx, catalogue()); err != nil {
			return err
		}
	}

	verifier, err := auth.NewVerifier(ctx, auth.VerifierConfig{JWKSURL: cfg.JWKSURL, ServiceJWKSFile: cfg.ServiceJWKS, Audience: name, Log: s.Log})
	if err != nil {
		return err
	}
	signer, err := auth.NewSigner(name, cfg.ServiceKey)
	if err != nil {
		return err
	}
	orders := order.NewClient(cfg.OrderURL, signer.Transport("order", telemetry.Transport(nil)))
	queue := intake.New(store.Reserve, s.Registry)

	s.Go("relay", out.Run)
	s.Go("inbox", in.Run)
	s.Go("intake", queue.Run)
	s.Go("expiry", expiry.New(store, orders, cfg.SweepEvery, s.Log, s.Registry).Run)
	s.Go("drift", recount.NewWatch(postgres.Comparison{Store: store, Raise: in}, cfg.DriftEvery, s.Log, s.Registry).Run)
	s.Consume("consumer", func(ctx context.Context) error { return consumer.Run(ctx, in.Consume) })
	s.Check("database", func(ctx context.Context) error { return pool.Ping(ctx) })
	s.Check("consumer", func(context.Context) error { return consumer.Healthy() })
	s.Check("inbox", func(context.Context) error { return in.Healthy() })
	s.Serve(httpapi.New(httpapi.Options{Store: store, Intake: queue, Interventions: in, Authenticate: verifier.Middleware, OpenAPI: openAPI}))
	return nil
}

func clientID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return fmt.Sprintf("%s-%s-%d", name, host, os.Getpid())
}
