package main

import "github.com/waybill-dev/waybill/libs/service"

// Config is what the analytics service is told from outside.
type Config struct {
	service.Base    `listen:"127.0.0.1:8086"`
	DatabaseURL     service.Secret `env:"DATABASE_URL,required" usage:"PostgreSQL of the analytics service"`
	KafkaBrokers    []string       `env:"KAFKA_BROKERS,required" usage:"comma-separated addresses"`
	Partitions      int32          `env:"WAYBILL_PARTITIONS,default=3" usage:"partitions of topics that do not exist yet"`
	JWKSURL         string         `env:"JWKS_URL,default=http://127.0.0.1:8080/.well-known/jwks.json" usage:"keys of user tokens"`
	ServiceJWKS     string         `env:"WAYBILL_SERVICE_JWKS" usage:"file with the keys of service tokens"`
	RetentionMonths int            `env:"RETENTION_MONTHS,default=13" usage:"months of events that stay attached; older partitions are detached"`
}
