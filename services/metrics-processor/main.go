// Command metrics-processor counts what happens on the platform. README.md tells what it reads and serves.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/count"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/httpapi"
)

//go:embed openapi.yaml
var openAPI []byte

func main() { service.Main("metrics-processor", run) }

func run(ctx context.Context, s *service.Service, cfg Config) error {
	kafka := stream.Config{Brokers: cfg.KafkaBrokers, ClientID: s.Name, Log: s.Log, Registry: s.Registry, Partitions: cfg.Partitions}
	if err := stream.EnsureTopics(ctx, kafka, event.Topics()); err != nil {
		return fmt.Errorf("ensure topics: %w", err)
	}
	// Nobody waits for a count: larger batches are cheaper.
	consumer, err := stream.NewConsumer(ctx, kafka, "metrics-processor", event.Topics(), stream.ConsumerOptions{Linger: 100 * time.Millisecond})
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
	counter := count.New()
	s.Consume("consumer", func(ctx context.Context) error { return consumer.Run(ctx, counter.Consume) })
	s.Serve(httpapi.New(counter, verifier.Middleware, openAPI))
	return nil
}

// serveProfiles serves net/http/pprof until ctx ends. A profile that is being taken then is cut off.
func serveProfiles(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
