package main

import "github.com/waybill-dev/waybill/libs/service"

// Config is what the notification service is told from outside.
type Config struct {
	service.Base `listen:"127.0.0.1:8085"`
	DatabaseURL  service.Secret `env:"DATABASE_URL,required" usage:"PostgreSQL of the notification service"`
	KafkaBrokers []string       `env:"KAFKA_BROKERS,required" usage:"comma-separated addresses"`
	Partitions   int32          `env:"WAYBILL_PARTITIONS,default=3" usage:"partitions of topics that do not exist yet"`
	JWKSURL      string         `env:"JWKS_URL,default=http://127.0.0.1:8080/.well-known/jwks.json" usage:"keys of user tokens"`
	ServiceJWKS  string         `env:"WAYBILL_SERVICE_JWKS" usage:"file with the keys of service tokens"`
	SMTPAddr     string         `env:"SMTP_ADDR,default=127.0.0.1:1025" usage:"mail server"`
	SMTPTLS      string         `env:"SMTP_TLS,default=opportunistic" usage:"none, opportunistic or mandatory"`
	SMTPUsername string         `env:"SMTP_USERNAME" usage:"unset: no authentication"`
	SMTPPassword service.Secret `env:"SMTP_PASSWORD" usage:"for SMTP_USERNAME"`
	MailFrom     string         `env:"MAIL_FROM,default=waybill <orders@waybill.example>" usage:"sender of the messages"`
	MailRate     int            `env:"MAIL_RATE,default=200" usage:"messages a second at most"`
}
