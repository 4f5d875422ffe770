// Command notification is the notification service: it tells customers what has become of their orders. README.md says
// what it reads, tells and keeps.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/services/notification/internal/delivery"
	"github.com/waybill-dev/waybill/services/notification/internal/httpapi"
	"github.com/waybill-dev/waybill/services/notification/internal/notice"
	"github.com/waybill-dev/waybill/services/notification/internal/postgres"
	"github.com/waybill-dev/waybill/services/notification/internal/smtp"
)

//go:embed openapi.yaml
var document []byte

// linger is what a passive consumer waits to gather a batch: nobody waits for a message to the tenth of a second.
const linger = 100 * time.Millisecond

func main() { service.Main("notification", run) }

func run(ctx context.Context, s *service.Service, cfg Config) error {
	if cfg.MailRate < 1 {
		return fmt.Errorf("MAIL_RATE is %d, and must be above 0", cfg.MailRate)
	}
	mailer, err := smtp.New(smtp.Options{
		Addr: cfg.SMTPAddr, TLS: cfg.SMTPTLS, Username: cfg.SMTPUsername, Password: string(cfg.SMTPPassword), From: cfg.MailFrom,
	})
	if err != nil {
		return err
	}
	pool, err := pg.Open(ctx, string(cfg.DatabaseURL), s.Log, inbox.Migrations, postgres.Migrations)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer pool.Close()
	s.Check("postgres", pool.Ping)

	kafka := stream.Config{Brokers: cfg.KafkaBrokers, ClientID: s.Name, Log: s.Log, Registry: s.Registry, Partitions: cfg.Partitions}
	if err := stream.EnsureTopics(ctx, kafka, event.Topics()); err != nil {
		return fmt.Errorf("ensure topics: %w", err)
	}
	consumer, err := stream.NewConsumer(ctx, kafka, "notification-service", event.Topics(), stream.ConsumerOptions{Max: 1024, Linger: linger})
	if err != nil {
		return fmt.Errorf("open consumer: %w", err)
	}
	s.Check("kafka", func(context.Context) error { return consumer.Healthy() })

	wake := make(chan struct{}, 1)
	store := postgres.New(pool, func() {
		select {
		case wake <- struct{}{}:
		default: // somebody is awake
		}
	})
	people := inbox.New(inbox.Options{
		Group: "notification-service", Pool: pool, Wants: notice.Wants, Handler: store.Consume, Unordered: true,
		Redrive: map[string]func(context.Context, *pg.Unit, uuid.UUID, string) error{postgres.Intervention: store.Redrive},
		Log:     s.Log, Registry: s.Registry,
	})
	s.Check("inbox", func(context.Context) error { return people.Healthy() })
	post := delivery.New(delivery.Options{
		Queue: store, Mailer: mailer, Raise: people.Raise, Wake: wake, PerSecond: cfg.MailRate, Log: s.Log, Registry: s.Registry,
	})

	verifier, err := auth.NewVerifier(ctx, auth.VerifierConfig{JWKSURL: cfg.JWKSURL, ServiceJWKSFile: cfg.ServiceJWKS, Audience: s.Name, Log: s.Log})
	if err != nil {
		return fmt.Errorf("open token verifier: %w", err)
	}
	// The mail server is no condition of readiness: messages wait for it.
	s.Go("delivery", post.Run)
	s.Go("inbox", people.Run)
	s.Consume("consumer", func(ctx context.Context) error { return consumer.Run(ctx, people.Consume) })
	s.Serve(httpapi.New(httpapi.Options{Store: store, Auth: verifier.Middleware, Interventions: people.Routes(), Document: document}))
	return nil
}
