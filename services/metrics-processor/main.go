// Command metrics-processor aggregates metrics. README.md tells what it reads and serves; bench as its first argument measures it.
package main

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/bench"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/exposition"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/httpapi"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/keeper"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/platform"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/postgres"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/statsd"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/wire"
)

//go:embed openapi.yaml
var openAPI []byte

func main() {
	if len(os.Args) > 1 && os.Args[1] == "bench" {
		os.Exit(bench.Main(os.Args[2:], os.Stdout, os.Stderr))
	}
	service.Main("metrics-processor", run)
}

func run(ctx context.Context, s *service.Service, cfg Config) error {
	topics, datagrams := &aggregate.Source{Name: "kafka", Clamp: true, Replayed: true}, &aggregate.Source{Name: "statsd"}
	write, otlp, lines := &aggregate.Source{Name: "remote_write"}, &aggregate.Source{Name: "otlp"}, &aggregate.Source{Name: "json"}
	if cfg.Instance == "" {
		host, _ := os.Hostname() // replicas in containers have the same address
		cfg.Instance = strings.NewReplacer(":", "-", "/", "-").Replace(host + "-" + s.Addr())
	}
	cfg.StateDir = cmp.Or(cfg.StateDir, filepath.Join(os.TempDir(), "waybill-metrics-processor"))
	survivor, former, err := keeper.Survivor(cfg.StateDir, cfg.Instance)
	if err != nil { // a read-only file system, say: only the ledger's count of what a kill loses is missing
		s.Log.Warn("counts do not survive a kill", zap.Error(err))
		survivor = new(aggregate.Survivor)
	}
	a, err := aggregate.New(aggregate.Options{Series: cfg.Series, Idle: cfg.Idle, Survivor: survivor}, topics, write, otlp, lines, datagrams)
	if err != nil {
		return fmt.Errorf("make aggregator: %w", err)
	}
	var store *postgres.Store
	if cfg.DatabaseURL == "" {
		s.Log.Warn("no DATABASE_URL, windows end with the process")
	} else {
		pool, err := pg.Open(ctx, string(cfg.DatabaseURL), s.Log, postgres.Migrations)
		if err != nil {
			return fmt.Errorf("open database: %w", err)
		}
		defer pool.Close()
		s.Check("postgres", pool.Ping)
		store = postgres.New(pool, cfg.Instance)
		if err := store.Load(ctx, a, func(id uuid.UUID) *aggregate.Survivor { return keeper.Of(former, id) }); err != nil {
			return fmt.Errorf("load windows: %w", err)
		}
		survivor.Instance = store.ID()
	}
	keep := keeper.New(a, store, platform.NewRecorder(a, topics), s.Log)
	s.Check("windows", keep.Healthy)
	kafka := stream.Config{Brokers: cfg.KafkaBrokers, ClientID: s.Name, Log: s.Log, Registry: s.Registry, Partitions: cfg.Partitions}
	if err := stream.EnsureTopics(ctx, kafka, event.Topics()); err != nil {
		return fmt.Errorf("ensure topics: %w", err)
	}
	// A batch is a transaction, so one gathers for a second.
	consumer, err := stream.NewConsumer(ctx, kafka, "metrics-processor", event.Topics(), stream.ConsumerOptions{Max: 16 << 10, Linger: time.Second})
	if err != nil {
		return fmt.Errorf("open consumer: %w", err)
	}
	s.Check("kafka", func(context.Context) error { return consumer.Healthy() })
	verifier, err := auth.NewVerifier(ctx, auth.VerifierConfig{JWKSURL: cfg.JWKSURL, ServiceJWKSFile: cfg.ServiceJWKS, Audience: s.Name, Log: s.Log})
	if err != nil {
		return fmt.Errorf("open token verifier: %w", err)
	}
	if cfg.PprofAddr != "" {
		profiles, err := net.Listen("tcp", cfg.PprofAddr)
		if err != nil {
			return fmt.Errorf("open PPROF_ADDR: %w", err)
		}
		s.Go("pprof", func(ctx context.Context) error { return serveProfiles(ctx, profiles) })
	}
	if cfg.RemoteURL != "" {
		s.Go("remote write", func(ctx context.Context) error {
			return exposition.Push(ctx, a, cfg.RemoteURL, http.DefaultClient, s.Log)
		})
	}
	if cfg.StatsDAddr != "" {
		server, err := statsd.Listen(cfg.StatsDAddr, func() *wire.StatsD { return wire.NewStatsD(a, datagrams) })
		if err != nil {
			return err
		}
		datagrams.Unseen = server.Unseen
		s.Go("statsd", server.Run)
	}
	s.Go("windows", keep.Run)
	s.Consume("consumer", func(ctx context.Context) error { return consumer.Run(ctx, keep.Consume) })
	tokens := httpapi.Tokens{RemoteWrite: string(cfg.WriteToken), OTLP: string(cfg.OTLPToken), JSON: string(cfg.JSONToken)}
	sources := httpapi.Sources(a, tokens, write, otlp, lines)
	s.Serve(httpapi.New(httpapi.Options{Aggregator: a, Authenticate: verifier.Middleware, Draining: s.Draining(), OpenAPI: openAPI, Sources: sources}))
	return nil
}
