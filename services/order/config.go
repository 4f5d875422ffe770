package main

import (
	"time"

	"github.com/waybill-dev/waybill/libs/service"
)

// Config is what an operator may set.
type Config struct {
	service.Base `listen:"127.0.0.1:8081"`

	DatabaseURL  service.Secret `env:"DATABASE_URL,required" usage:"PostgreSQL of this service"`
	KafkaBrokers []string       `env:"KAFKA_BROKERS,default=127.0.0.1:9092" usage:"brokers, separated by commas"`
	Partitions   int32          `env:"WAYBILL_PARTITIONS,default=3" usage:"partitions of topics that do not exist yet"`
	JWKSURL      string         `env:"JWKS_URL,default=http://127.0.0.1:8080/.well-known/jwks.json" usage:"public keys of user tokens"`
	ServiceJWKS  string         `env:"WAYBILL_SERVICE_JWKS,required" usage:"file of the services' public keys"`
	ServiceKey   string         `env:"WAYBILL_SERVICE_KEY,required" usage:"file of this service's private key"`
	InventoryURL string         `env:"INVENTORY_URL,default=http://127.0.0.1:8083" usage:"inventory service, which reserves"`
	PaymentURL   string         `env:"PAYMENT_URL,default=http://127.0.0.1:8082" usage:"payment service, asked for GET /payment/{order_id}"`

	Deadline time.Duration `env:"ORDER_DEADLINE,default=30m" usage:"time from acceptance to capture; after it the order is undone"`
	AskAfter time.Duration `env:"RESERVATION_PATIENCE,default=2s" usage:"how long an unanswered reservation rests before inventory is asked again"`
}
