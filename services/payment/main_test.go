package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sethvargo/go-envconfig"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/outbox"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/libs/testkit"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	"github.com/waybill-dev/waybill/services/payment/internal/postgres"
	"github.com/waybill-dev/waybill/services/payment/internal/provider/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type world struct {
	t        testing.TB
	pool     *pgxpool.Pool
	brokers  []string
	provider *providertest.Server
	producer *stream.Producer
	env      map[string]string

	mu   sync.Mutex
	told map[string][]event.Event // by order, in the order of the topic
}

func setup(t testing.TB) *world {
	pool, url := testkit.Postgres(t, outbox.Migrations, inbox.Migrations, postgres.Migrations)
	brokers, _ := testkit.Kafka(t)
	issuer := testkit.Identity(t)
	w := &world{t: t, pool: pool, brokers: brokers, provider: providertest.New(t), told: map[string][]event.Event{}, env: map[string]string{
		"HTTP_ADDR": "127.0.0.1:0", "DATABASE_URL": url, "KAFKA_BROKERS": strings.Join(brokers, ","), "JWKS_URL": issuer.JWKSURL,
		"WAYBILL_SERVICE_JWKS": issuer.ServiceJWKSFile(), "WAYBILL_ENV": "development", "LOG_LEVEL": "warn",
		"PROVIDER_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
	}}
	w.env["PROVIDER_URL"] = w.provider.URL
	var err error
	kafka := stream.Config{Brokers: brokers, ClientID: "test", Log: testkit.Log(t), Registry: prometheus.NewRegistry()}
	if w.producer, err = stream.NewProducer(t.Context(), kafka); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.producer.Close() })
	consumer, err := stream.NewConsumer(t.Context(), kafka, "test", []string{event.Payments}, stream.ConsumerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = consumer.Run(ctx, func(_ context.Context, batch []stream.Message) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, m := range batch {
				e, err := stream.DecodeMessage(m)
				if err != nil {
					return err
				}
				w.told[e.Subject] = append(w.told[e.Subject], e)
			}
			return nil
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// start runs a replica of the service and returns how to stop it.
func (w *world) start() (addr string, stop func()) {
	w.t.Helper()
	at := make(chan string, 1)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- service.Run(ctx, "payment", envconfig.MapLookuper(w.env), func(ctx context.Context, s *service.Service, cfg Config) error {
			at <- s.Addr()
			return run(ctx, s, cfg)
		})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	select {
	case addr = <-at:
	case err := <-ended:
		w.t.Fatal(errors.Join(errors.New("the service does not start"), err))
	}
	return addr, stop
}

func (w *world) send(events ...event.Event) {
	w.t.Helper()
	var batch []stream.Message
	for _, e := range events {
		e.Source = "/waybill/order"
		batch = append(batch, stream.Encode(e))
	}
	if err := w.producer.Send(context.Background(), batch); err != nil {
		w.t.Fatal(err)
	}
}

func order(id, method string) []event.Event {
	make := func(t event.Type, seq int64, m proto.Message) event.Event {
		return event.New(context.Background(), t, id, 1, seq, m)
	}
	return []event.Event{
		make(event.OrderCreated, 1, &orderv1.OrderCreated{OrderId: id, Amount: 5990, Currency: "EUR", PaymentMethod: method, Customer: "customer"}),
		make(event.OrderPaymentRequested, 2, &orderv1.OrderPaymentRequested{OrderId: id, Amount: 5990, Currency: "EUR", PaymentMethod: method}),
	}
}

func (w *world) events(id string) []event.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.told[id])
}

func (w *world) types(id string) []event.Type {
	var all []event.Type
	for _, e := range w.events(id) {
		all = append(all, e.Type)
	}
	return all
}

// TestService runs two replicas on a broker, repeats every record three times, and stops one of them in the middle.
func TestService(t *testing.T) {
	w := setup(t)
	_, stop := w.start()
	addr, _ := w.start()
	methods := []string{"card", "card", "card", "card_declined", "card_flaky"}
	const orders = 100
	for n := range orders {
		events := order(fmt.Sprintf("o-%d", n), methods[n%len(methods)])
		w.send(events[0], events[0])
		w.send(events[1], events[0], events[1], events[1])
		if n == orders/2 {
			stop()
		}
	}
	for n := range orders {
		id := fmt.Sprintf("o-%d", n)
		outcome, charges := event.PaymentProcessed, 1
		switch methods[n%len(methods)] {
		case "card_declined":
			outcome = event.PaymentFailed
		case "card_flaky":
			charges = 3
		}
		testkit.Eventually(t, 40*time.Second, func() bool { return len(w.types(id)) >= 2 }, id+" has no outcome")
		if d := cmp.Diff([]event.Type{event.PaymentInitiated, outcome}, w.types(id)); d != "" {
			t.Errorf("%s (-want +got):\n%s", id, d)
		}
		if got := w.provider.Calls(providertest.Charge, id); got != charges {
			t.Errorf("%s: %d charge calls, want %d", id, got, charges)
		}
		for i, e := range w.events(id) {
			if e.Seq != int64(i+1) || e.Source != "/waybill/payment" || e.Tenant != 1 || e.Traceparent == "" {
				t.Errorf("%s: event %d is %+v", id, i+1, e)
			}
		}
	}
	var debit, credit int64
	if err := w.pool.QueryRow(t.Context(), `SELECT sum(debit), sum(credit) FROM ledger_entries`).Scan(&debit, &credit); err != nil || debit != credit || debit != 80*5990 {
		t.Errorf("debit %d, credit %d, %v", debit, credit, err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + "/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("GET /openapi.yaml: %d", resp.StatusCode)
	}
}

// BenchmarkService is payments a second from the topic orders to the topic payments, everything included: broker, database,
// provider and this client share the cores with the service.
func BenchmarkService(b *testing.B) {
	w := setup(b)
	w.env["LOG_LEVEL"] = "error"
	w.start()
	ids := make([]string, b.N)
	b.ResetTimer()
	for n := 0; n < b.N; n += 100 {
		var batch []event.Event
		for k := n; k < min(n+100, b.N); k++ {
			ids[k] = fmt.Sprintf("o-%d", k)
			batch = append(batch, order(ids[k], "card")...)
		}
		w.send(batch...)
	}
	for _, id := range ids {
		testkit.Eventually(b, time.Minute, func() bool { return len(w.types(id)) == 2 }, id+" has no outcome")
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "payments/s")
	var commits float64
	if err := w.pool.QueryRow(context.Background(), `SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()`).Scan(&commits); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(commits/float64(b.N), "commits/payment")
}
