package main

import (
	"time"

	"github.com/waybill-dev/waybill/libs/service"
)

// Config is what the metrics processor is told from outside.
type Config struct {
	service.Base `listen:"127.0.0.1:8087"`
	KafkaBrokers []string       `env:"KAFKA_BROKERS,required" usage:"comma-separated addresses"`
	Partitions   int32          `env:"WAYBILL_PARTITIONS,default=3" usage:"partitions of topics that do not exist yet"`
	DatabaseURL  service.Secret `env:"DATABASE_URL" usage:"PostgreSQL for windows and offsets; unset: windows end with the process"`
	JWKSURL      string         `env:"JWKS_URL,default=http://127.0.0.1:8080/.well-known/jwks.json" usage:"keys of user tokens"`
	ServiceJWKS  string         `env:"WAYBILL_SERVICE_JWKS" usage:"file with the keys of service tokens"`
	PprofAddr    string         `env:"PPROF_ADDR,default=localhost:6060" usage:"net/http/pprof while serving; empty: only on the admin listener"`
	StatsDAddr   string         `env:"STATSD_ADDR,default=127.0.0.1:8125" usage:"StatsD over UDP and TCP, a loopback address; empty: off"`
	Series       int            `env:"SERIES_BUDGET,default=100000" usage:"series before overflow"`
	Idle         time.Duration  `env:"SERIES_IDLE,default=1h" usage:"a series without samples for so long is forgotten; below 0 none is"`
	Instance     string         `env:"INSTANCE" usage:"name of this replica, the same after a restart; host and HTTP_ADDR unless set"`
	StateDir     string         `env:"STATE_DIR" usage:"where counts of accepted samples survive a kill; the system's temporary directory unless set"`
	RemoteURL    string         `env:"REMOTE_WRITE_URL" usage:"Prometheus-compatible store that aggregates are written to every 10 s; unset: none"`
	WriteToken   service.Secret `env:"REMOTE_WRITE_TOKEN" usage:"bearer token of POST /api/v1/write; unset: only users' and services'"`
	OTLPToken    service.Secret `env:"OTLP_TOKEN" usage:"bearer token of POST /v1/metrics"`
	JSONToken    service.Secret `env:"JSON_TOKEN" usage:"bearer token of POST /ingest/json"`
}
