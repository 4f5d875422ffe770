package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sethvargo/go-envconfig"
	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/libs/testkit"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/count"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/httpapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func created(n int64) event.Event {
	e := event.New(context.Background(), event.OrderCreated, fmt.Sprintf("o-%d", n), 1, 1, &orderv1.OrderCreated{})
	e.Source = "/waybill/order"
	return e
}

func TestAPI(t *testing.T) {
	c := count.New()
	other := stream.Encode(created(4))
	other.Topic = event.Payments // not where its type belongs
	if err := c.Consume(t.Context(), []stream.Message{stream.Encode(created(1)), stream.Encode(created(2)), {Topic: event.Orders}, other}); err != nil {
		t.Fatal(err)
	}
	issuer := testkit.Identity(t)
	contract := testkit.OpenAPI(t, "openapi.yaml")
	h := contract.Wrap(t, httpapi.New(c, issuer.Verifier("metrics-processor").Middleware, openAPI))
	operator, customer := issuer.UserToken("operator", 1, "operator"), issuer.UserToken("customer", 1, "customer")
	for _, x := range []struct {
		path, token string
		status      int
		contains    string
	}{
		{"/metrics", "", 200, `waybill_events_total{topic="orders",type="order.created"} 2`},
		{"/metrics", "", 200, `waybill_events_total{topic="orders",type="unreadable"} 1`},
		{"/metrics", "", 200, `waybill_events_total{topic="payments",type="unreadable"} 1`},
		{"/metrics", "", 200, `waybill_events_total{topic="shipping",type="shipping.failed"} 0`},
		{"/query", operator, 200, `{"topic":"orders","type":"order.created","count":2}`},
		{"/query?type=order.created", operator, 200, `{"items":[{"topic":"orders","type":"order.created","count":2}]}`},
		{"/query?type=nonsense", operator, 400, "invalid-field"},
		{"/query?x=1", operator, 400, "unknown-parameter"},
		{"/query", "", 401, "unauthenticated"},
		{"/query", customer, 403, "forbidden"},
		{"/interventions?limit=100", operator, 200, `{"items":[]}`},
		{"/interventions?x=1", operator, 400, "unknown-parameter"},
		{"/interventions", "", 401, "unauthenticated"},
		{"/interventions", customer, 403, "forbidden"},
		{"/openapi.yaml", "", 200, "openapi: 3.1.0"},
		{"/nothing", "", 404, "not-found"},
	} {
		r := httptest.NewRequest(http.MethodGet, x.path, nil)
		if x.token != "" {
			r.Header.Set("Authorization", "Bearer "+x.token)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != x.status || !strings.Contains(w.Body.String(), x.contains) {
			t.Errorf("GET %s: %d %s", x.path, w.Code, w.Body)
		}
	}
	contract.Complete(t)
}

// TestService runs the program on a broker: what is produced is counted.
func TestService(t *testing.T) {
	brokers, _ := testkit.Kafka(t)
	issuer := testkit.Identity(t)
	addr := make(chan string, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- service.Run(ctx, "metrics-processor", envconfig.MapLookuper(map[string]string{
			"HTTP_ADDR": "127.0.0.1:0", "KAFKA_BROKERS": strings.Join(brokers, ","), "JWKS_URL": issuer.JWKSURL,
			"WAYBILL_SERVICE_JWKS": issuer.ServiceJWKSFile(), "PPROF_ADDR": "127.0.0.1:0", "LOG_LEVEL": "error",
		}), func(ctx context.Context, s *service.Service, cfg Config) error {
			addr <- s.Addr()
			return run(ctx, s, cfg)
		})
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	producer, err := stream.NewProducer(t.Context(), stream.Config{Brokers: brokers, ClientID: "test", Log: testkit.Log(t), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	var batch []stream.Message
	for n := range int64(10) {
		batch = append(batch, stream.Encode(created(n)))
	}
	if err := producer.Send(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	at := <-addr
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	testkit.Eventually(t, 20*time.Second, func() bool {
		resp, err := client.Get("http://" + at + "/metrics")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return strings.Contains(string(b), `waybill_events_total{topic="orders",type="order.created"} 10`)
	}, "the events are not counted")
}
