// Command gateway is the platform's one door: it gives out tokens, checks them, limits who asks how often, and passes requests on.
// README.md tells what it serves and keeps.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"os"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/services/gateway/internal/address"
	"github.com/waybill-dev/waybill/services/gateway/internal/document"
	"github.com/waybill-dev/waybill/services/gateway/internal/httpapi"
	"github.com/waybill-dev/waybill/services/gateway/internal/login"
	"github.com/waybill-dev/waybill/services/gateway/internal/postgres"
	"github.com/waybill-dev/waybill/services/gateway/internal/proxy"
	"github.com/waybill-dev/waybill/services/gateway/internal/ratelimit"
	"github.com/waybill-dev/waybill/services/gateway/internal/route"
	"github.com/waybill-dev/waybill/services/gateway/internal/wire"
)

//go:embed openapi.yaml
var openAPI []byte

func main() {
	if len(os.Args) > 1 && os.Args[1] == "adduser" {
		if err := addUser(context.Background(), os.Getenv("DATABASE_URL"), os.Args[2:], os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, "gateway:", err)
			os.Exit(1)
		}
		return
	}
	service.Main("gateway", run)
}

func run(ctx context.Context, s *service.Service, cfg Config) error {
	trusted, err := address.NewBook(cfg.TrustedProxies)
	if err != nil {
		return err
	}
	pool, err := pg.Open(ctx, string(cfg.DatabaseURL), s.Log, postgres.Migrations)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer pool.Close()
	// No readiness check asks the database: without it nobody can log in, but every token that is out still works.
	store := postgres.New(pool)

	if s.Development() {
		err = login.Seed(ctx, store)
	} else {
		err = login.RefuseDemo(ctx, store)
	}
	if err != nil {
		return err
	}
	keys, err := login.OpenKeys(ctx, store, s.Log)
	if err != nil {
		return err
	}
	verifier, err := auth.NewVerifier(ctx, auth.VerifierConfig{JWKS: keys.JWKS, Audience: s.Name, Log: s.Log})
	if err != nil {
		return fmt.Errorf("open token verifier: %w", err)
	}

	redis := ratelimit.NewRedis(cfg.RedisAddr, string(cfg.RedisPassword), cfg.RedisTimeout)
	defer redis.Close()
	limiter := ratelimit.New(redis, cfg.Limits.Replicas, s.Log, s.Registry)
	logins := ratelimit.NewLogins(limiter, trusted, cfg.Limits.Login)

	upstreams := cfg.Upstreams.table()
	forward, err := proxy.New(proxy.Options{Upstreams: upstreams, Addresses: trusted, Draining: s.Draining(), Log: s.Log})
	if err != nil {
		return err
	}
	metrics, err := cfg.metricsReaders()
	if err != nil {
		return err
	}
	routes, err := httpapi.Routes(httpapi.Options{
		Login: login.New(store, keys, logins, s.Log), Verifier: verifier, Proxy: forward, Limiter: limiter,
		Addresses: trusted, Rate: cfg.Limits.Rate, Registry: s.Registry, Metrics: metrics,
		Document: document.New(openAPI, upstreams, forward.Transport()),
		Ready:    func(r *http.Request) error { return s.Ready(r.Context()) },
	})
	if err != nil {
		return err
	}

	s.Listen(wire.Listener)
	s.Go("keys", keys.Run)
	s.Go("cleaner", store.Run)
	s.Serve(routes)
	return nil
}

// table is the configuration by the names of the route table.
func (u Upstreams) table() map[route.Service]string {
	return map[route.Service]string{
		route.Order: u.Order, route.Payment: u.Payment, route.Inventory: u.Inventory, route.Shipping: u.Shipping,
		route.Notification: u.Notification, route.Analytics: u.Analytics, route.MetricsProcessor: u.MetricsProcessor,
	}
}

// metricsReaders are the networks that may read /metrics; in development everybody may.
func (c Config) metricsReaders() (*address.Book, error) {
	if c.Development() {
		return nil, nil
	}
	book, err := address.NewBook(c.MetricsAllow)
	return &book, err
}
