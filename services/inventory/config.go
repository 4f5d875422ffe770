package main

import (
	"time"

	"github.com/waybill-dev/waybill/libs/service"
)

// Config is what an operator may set.
type Config struct {
	service.Base `listen:"127.0.0.1:8083"`

	DatabaseURL  service.Secret `env:"DATABASE_URL,required" usage:"PostgreSQL of this service"`
	KafkaBrokers []string       `env:"KAFKA_BROKERS,default=127.0.0.1:9092" usage:"brokers, separated by commas"`
	Partitions   int32          `env:"WAYBILL_PARTITIONS,default=3" usage:"partitions of topics that do not exist yet"`
	JWKSURL      string         `env:"JWKS_URL,default=http://127.0.0.1:8080/.well-known/jwks.json" usage:"public keys of user tokens"`
	ServiceJWKS  string         `env:"WAYBILL_SERVICE_JWKS,required" usage:"file of the services' public keys"`
	ServiceKey   string         `env:"WAYBILL_SERVICE_KEY,required" usage:"file of this service's private key"`
	OrderURL     string         `env:"ORDER_URL,default=http://127.0.0.1:8081" usage:"order service, asked about pins that grow old"`

	// HoldTTL is how long POST /inventory/reserve holds: a quarter of an hour is what checkouts commonly promise.
	HoldTTL time.Duration `env:"RESERVATION_TTL,default=15m" usage:"how long a hold made over the API lasts"`
	// PinBound must exceed the order's own deadline of 30 min, or live orders are asked about for nothing.
	PinBound time.Duration `env:"RESERVATION_PIN_BOUND,default=45m" usage:"age at which the order service is asked about a pin"`
	// SweepEvery and TTL together bound how long stock lies idle.
	SweepEvery time.Duration `env:"RESERVATION_SWEEP,default=1s" usage:"how often expired holds are freed"`
	DriftEvery time.Duration `env:"DRIFT_INTERVAL,default=10m" usage:"how often stock is compared with its ledger"`
}

// lapse is how long stock stays set aside after its payment failed: order.cancelled comes within a second or so and frees
// it sooner; a minute is for the case that it does not come.
const lapse = time.Minute
