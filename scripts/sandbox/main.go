// Sandbox plays the world outside the platform, for development and tests: a payment provider, a carrier and a mail
// server. What it does is asked for by test values (see README.md) and faults; what it did stands in its ledger.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"net"

	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/carrier"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/fault"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/httpapi"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/ledger"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/mailbox"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/provider"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/webhook"
)

//go:embed openapi.yaml
var document []byte

func main() { service.Main("sandbox", run) }

func run(ctx context.Context, s *service.Service, cfg Config) error {
	faults := &fault.Set{}
	payments, err := webhook.New(webhook.Options{
		Name: "payment", URL: cfg.PaymentWebhookURL, Secret: string(cfg.ProviderSecret), Faults: faults, Log: s.Log, Registry: s.Registry,
	})
	if err != nil {
		return err
	}
	shipping, err := webhook.New(webhook.Options{
		Name: "shipping", URL: cfg.ShippingWebhookURL, Secret: string(cfg.CarrierSecret), Faults: faults, Log: s.Log, Registry: s.Registry,
	})
	if err != nil {
		return err
	}

	api := &httpapi.API{Payments: payments, Shipping: shipping, Faults: faults, Provider: provider.New(), Document: document}
	api.Carrier = carrier.New(cfg.Step, api.ReportParcel)
	if api.Ledger, err = ledger.Open(cfg.DataDir, func(e ledger.Entry) {
		api.Provider.Replay(e)
		api.Carrier.Replay(e)
	}); err != nil {
		return err
	}
	defer api.Ledger.Close()
	api.Provider.Use(api.Ledger)
	api.Carrier.Use(api.Ledger)

	if api.Mailbox, err = mailbox.Open(cfg.DataDir); err != nil {
		return err
	}
	defer api.Mailbox.Close()
	smtp, err := net.Listen("tcp", cfg.SMTPListen)
	if err != nil {
		return fmt.Errorf("listen for mail: %w", err)
	}

	s.Go("payment webhooks", payments.Run)
	s.Go("shipping webhooks", shipping.Run)
	s.Go("parcels", api.Carrier.Run)
	s.Go("mail", func(ctx context.Context) error { return api.Mailbox.Serve(ctx, smtp, faults, s.Log) })
	s.Serve(api.Routes())
	return nil
}
