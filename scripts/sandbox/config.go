package main

import (
	"time"

	"github.com/waybill-dev/waybill/libs/service"
)

// Config is everything that can be set from outside.
type Config struct {
	service.Base `listen:"127.0.0.1:8090"`

	SMTPListen         string         `env:"SMTP_LISTEN,default=127.0.0.1:1025" usage:"mail listener"`
	DataDir            string         `env:"DATA_DIR,default=.waybill/sandbox" usage:"directory of the ledger and the mailbox"`
	PaymentWebhookURL  string         `env:"PAYMENT_WEBHOOK_URL" usage:"receiver of the provider's webhooks; unset: none are sent"`
	ShippingWebhookURL string         `env:"SHIPPING_WEBHOOK_URL" usage:"receiver of the carrier's webhooks; unset: none are sent"`
	ProviderSecret     service.Secret `env:"PROVIDER_SECRET,required" usage:"key of the provider's webhooks: whsec_ and base64"`
	CarrierSecret      service.Secret `env:"CARRIER_SECRET,required" usage:"key of the carrier's webhooks: whsec_ and base64"`
	Step               time.Duration  `env:"SANDBOX_STEP,default=100ms" usage:"time between two states of a parcel; 0 delivers at once and reports only that"`
}
