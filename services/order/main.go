// Command order accepts orders and drives each of them to its end: it is the orchestrator of the platform.
package main

import (
	"context"
	_ "embed"

	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/outbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/libs/telemetry"
	"github.com/waybill-dev/waybill/services/order/internal/httpapi"
	"github.com/waybill-dev/waybill/services/order/internal/intake"
	"github.com/waybill-dev/waybill/services/order/internal/live"
	"github.com/waybill-dev/waybill/services/order/internal/payment"
	"github.com/waybill-dev/waybill/services/order/internal/postgres"
	"github.com/waybill-dev/waybill/services/order/internal/saga"
	"github.com/waybill-dev/waybill/services/order/internal/stock"
)

//go:embed openapi.yaml
var openAPI []byte

const name = "order"

func main() { service.Main(name, run) }

func run(ctx context.Context, s *service.Service, cfg Config) error {
	pool, err := pg.Open(ctx, string(cfg.DatabaseURL), s.Log, outbox.Migrations, inbox.Migrations, postgres.Migrations)
	if err != nil {
		return err
	}
	defer pool.Close()

	kafka := stream.Config{Brokers: cfg.KafkaBrokers, ClientID: name, Log: s.Log, Registry: s.Registry, Partitions: cfg.Partitions}
	if err := stream.EnsureTopics(ctx, kafka, event.Topics()); err != nil {
		return err
	}
	producer, err := stream.NewProducer(ctx, kafka)
	if err != nil {
		return err
	}
	defer producer.Close()
	consumer, err := stream.NewConsumer(ctx, kafka, saga.Group, saga.Topics(), stream.ConsumerOptions{})
	if err != nil {
		return err
	}

	out := outbox.New(outbox.Options{Source: name, Pool: pool, DatabaseURL: string(cfg.DatabaseURL), Producer: producer, Log: s.Log, Registry: s.Registry})
	orders := saga.New(saga.Options{Pool: pool, Outbox: out, Log: s.Log, Registry: s.Registry, Deadline: cfg.Deadline, AskAfter: cfg.AskAfter})
	in := inbox.New(inbox.Options{
		Group: saga.Group, Pool: pool, Wants: saga.Wants(), Handler: orders.Handle, Oldest: consumer.Oldest, Log: s.Log, Registry: s.Registry,
		Redrive: map[string]func(context.Context, *pg.Unit, uuid.UUID, string) error{saga.TicketRefund: orders.RefundAgain},
	})
	orders.SetTickets(in)

	verifier, err := auth.NewVerifier(ctx, auth.VerifierConfig{JWKSURL: cfg.JWKSURL, ServiceJWKSFile: cfg.ServiceJWKS, Audience: name, Log: s.Log})
	if err != nil {
		return err
	}
	signer, err := auth.NewSigner(name, cfg.ServiceKey)
	if err != nil {
		return err
	}
	reserver := saga.NewReserver(orders, stock.New(cfg.InventoryURL, signer.Transport("inventory", telemetry.Transport(nil))))
	taker := intake.New(orders, reserver.Offer, s.Log)
	store := postgres.Store{Pool: pool}
	hub := live.New(store, s.Log)

	s.Go("relay", out.Run)
	s.Go("inbox", in.Run)
	s.Go("reserver", reserver.Run)
	s.Go("sweeper", saga.NewSweeper(orders, reserver).Run)
	s.Go("timelines", hub.Run)
	s.Go("intake", taker.Run)
	s.Consume("consumer", func(ctx context.Context) error { return consumer.Run(ctx, in.Consume) })
	s.Check("database", pool.Ping)
	s.Check("consumer", func(context.Context) error { return consumer.Healthy() })
	s.Check("inbox", func(context.Context) error { return in.Healthy() })
	s.Serve(httpapi.New(httpapi.Options{
		Intake: taker, Saga: orders, Store: store, Hub: hub, Interventions: in.Routes(), Authenticate: verifier.Middleware,
		Payments: payment.New(cfg.PaymentURL, signer.Transport("payment", telemetry.Transport(nil))),
		OpenAPI:  openAPI, Draining: s.Draining(),
	}))
	return nil
}
