package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/klauspost/compress/s2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sethvargo/go-envconfig"
	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/libs/testkit"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/httpapi"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/keeper"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/platform"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func created(n int64) event.Event {
	e := event.New(context.Background(), event.OrderCreated, fmt.Sprintf("o-%d", n), 1, 1, &orderv1.OrderCreated{})
	e.Source = "/waybill/order"
	return e
}

func TestAPI(t *testing.T) {
	for _, media := range []string{"application/x-protobuf", "application/x-ndjson"} {
		openapi3filter.RegisterBodyDecoder(media, openapi3filter.FileBodyDecoder) // bytes, for the contract
	}
	topics, write, otlp, lines := &aggregate.Source{Name: "kafka", Clamp: true}, &aggregate.Source{Name: "write"}, &aggregate.Source{Name: "otlp"}, &aggregate.Source{Name: "json"}
	a, err := aggregate.New(aggregate.Options{Series: 1000}, topics, write, otlp, lines)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	keep := keeper.New(a, nil, platform.NewRecorder(a, topics), testkit.Log(t))
	other := stream.Encode(created(4))
	other.Topic = event.Payments // not where its type belongs
	batch := []stream.Message{stream.Encode(created(1)), stream.Encode(created(2)), {Topic: event.Orders}, other}
	for i := range batch {
		batch[i].Offset = int64(i)
	}
	if err := keep.Consume(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	issuer := testkit.Identity(t)
	contract := testkit.OpenAPI(t, "openapi.yaml")
	h := contract.Wrap(t, httpapi.New(httpapi.Options{
		Aggregator: a, Authenticate: issuer.Verifier("metrics-processor").Middleware, OpenAPI: openAPI, Draining: ended(),
		Sources: httpapi.Sources(a, httpapi.Tokens{RemoteWrite: "w", OTLP: "o", JSON: "j"}, write, otlp, lines),
	}))
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
		{`/query?series=waybill_events_total{type="order.created"}&stat=count,p99,rate`, operator, 200, `"count":2`},
		{"/query?series=waybill_order_amount&window=10s&step=10s&from=2020-01-01T00:00:00Z&to=2020-01-01T00:01:00Z", operator, 200, `"series":[]`},
		{"/query?series=x&window=11s", operator, 400, "window"},
		{"/query?series=x&stat=p42", operator, 400, "stat"},
		{"/query?series=x{", operator, 400, "series"},
		{"/query?series=x&from=yesterday", operator, 400, "from"},
		{"/stream?series=waybill_events_total", operator, 200, "event: window\ndata: {"},
		{"/stream", operator, 400, "series"},
		{"/stream", "", 401, "unauthenticated"},
		{"/stream", customer, 403, "forbidden"},
		{"/ledger", operator, 200, `{"source":"kafka","accepted":10,"aggregated":10,"dropped":{},"unseen":0}`},
		{"/ledger", "", 401, "unauthenticated"},
		{"/ledger", customer, 403, "forbidden"},
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
	stat := func(selector string) string {
		r := httptest.NewRequest(http.MethodGet, "/query?stat=count,sum,last&series="+url.QueryEscape(selector), nil)
		r.Header.Set("Authorization", "Bearer "+operator)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Body.String()
	}
	const proto = "application/x-protobuf"
	now := time.Now().UnixMilli()
	bomb := s2.EncodeSnappy(nil, make([]byte, 17<<20))
	for _, x := range []struct {
		path, token, media, encoding string
		body                         []byte
		status                       int
	}{
		{"/ingest/json", "j", "application/x-ndjson", "", fmt.Appendf(nil, `{"name":"x","labels":{"a":"b"},"value":2.5,"ts":%d}`+"\n"+`{"value":1.5,"labels":{"a":"b"},"name":"x"}`, now), 204},
		{"/ingest/json", operator, "application/json", "", []byte(`{"name":"n","value":1,"type":"counter"}`), 204},
		{"/ingest/json", "j", "application/json", "", []byte(`{"name":"n"}`), 400},
		{"/ingest/json", "w", "application/json", "", nil, 401},
		{"/ingest/json", customer, "application/json", "", nil, 403},
		{"/ingest/json", "j", "image/png", "", nil, 415},
		{"/ingest/json", "j", "application/json", "snappy", bomb, 413},
		{"/api/v1/write", "w", proto, "snappy", s2.EncodeSnappy(nil, writeRequest("up_total", now, 7)), 204},
		{"/api/v1/write", "w", proto, "snappy", []byte("nonsense"), 400},
		{"/api/v1/write", "", proto, "snappy", nil, 401},
		{"/api/v1/write", customer, proto, "snappy", nil, 403},
		{"/api/v1/write", "w", proto, "snappy", bomb, 413},
		{"/api/v1/write", "w", proto + ";proto=other", "snappy", nil, 415},
		{"/v1/metrics", "o", proto, "", []byte{1<<3 | 2, 0}, 200},
		{"/v1/metrics", "o", proto, "", []byte{1}, 400},
		{"/v1/metrics", "", proto, "", nil, 401},
		{"/v1/metrics", customer, proto, "", nil, 403},
		{"/v1/metrics", "o", proto, "snappy", bomb, 413},
		{"/v1/metrics", "o", "application/json", "", []byte(`{"resourceMetrics":[]}`), 200},
		{"/v1/metrics", "o", "application/json", "", []byte(`{"resourceMetrics":`), 400},
		{"/v1/metrics", "o", "image/png", "", nil, 415},
	} {
		r := httptest.NewRequest(http.MethodPost, x.path, bytes.NewReader(x.body))
		r.Header.Set("Content-Type", x.media)
		if x.encoding != "" {
			r.Header.Set("Content-Encoding", x.encoding)
		}
		if x.token != "" {
			r.Header.Set("Authorization", "Bearer "+x.token)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != x.status {
			t.Errorf("POST %s %s: %d %s, want %d", x.path, x.media, w.Code, w.Body, x.status)
		}
	}
	for selector, want := range map[string]string{`x{a="b"}`: `"count":2`, `{a="b"}`: `"sum":4`, "up_total": `"last":7`, "n": `"sum":1`} {
		if got := stat(selector); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", selector, got, want)
		}
	}
	// What makes a source busy is a matter of a moment: TestOverload.
	contract.Complete(t, "POST /api/v1/write 503", "POST /v1/metrics 503", "POST /ingest/json 503")
}

func ended() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// writeRequest is a remote write request with one sample.
func writeRequest(name string, at int64, v float64) []byte {
	field := func(b []byte, n byte, data []byte) []byte {
		return append(append(b, n<<3|2, byte(len(data))), data...)
	}
	label := field(field(nil, 1, []byte("__name__")), 2, []byte(name))
	sample := binary.LittleEndian.AppendUint64([]byte{1<<3 | 1}, math.Float64bits(v))
	sample = binary.AppendUvarint(append(sample, 2<<3), uint64(at))
	return field(nil, 1, field(field(nil, 1, label), 2, sample))
}

// TestService runs the program on a broker and a database, ends it, and runs it again: what was produced and sent is counted
// once.
func TestService(t *testing.T) {
	brokers, _ := testkit.Kafka(t)
	_, database := testkit.Postgres(t, postgres.Migrations)
	issuer := testkit.Identity(t)
	env := map[string]string{
		"HTTP_ADDR": "127.0.0.1:0", "KAFKA_BROKERS": strings.Join(brokers, ","), "JWKS_URL": issuer.JWKSURL, "DATABASE_URL": database,
		"WAYBILL_SERVICE_JWKS": issuer.ServiceJWKSFile(), "PPROF_ADDR": "127.0.0.1:0", "LOG_LEVEL": "error", "INSTANCE": "test",
		"STATE_DIR": t.TempDir(), "STATSD_ADDR": freePort(t),
	}
	producer, err := stream.NewProducer(t.Context(), stream.Config{Brokers: brokers, ClientID: "test", Log: testkit.Log(t), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	for round := range 2 {
		start(t, env, func(at string) {
			var batch []stream.Message
			for n := range int64(10) {
				batch = append(batch, stream.Encode(created(int64(round)*10+n)))
			}
			if err := producer.Send(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			wait(t, at, fmt.Sprintf(`waybill_events_total{topic="orders",type="order.created"} %d`, (round+1)*10))
			conn, err := net.Dial("udp", env["STATSD_ADDR"])
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("clicks:3|c|#page:home\nbroken")); err != nil {
				t.Fatal(err)
			}
			wait(t, at, fmt.Sprintf(`clicks{page="home"} %d`, (round+1)*3))
		})
	}
}

func start(t *testing.T, env map[string]string, use func(addr string)) {
	t.Helper()
	addr := make(chan string, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- service.Run(ctx, "metrics-processor", envconfig.MapLookuper(env), func(ctx context.Context, s *service.Service, cfg Config) error {
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
	use(<-addr)
}

func wait(t *testing.T, addr, text string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var last []byte
	defer func() {
		if t.Failed() {
			t.Logf("seen last:\n%s", last)
		}
	}()
	// A member of the group that was killed is missed after 8 s, and joining takes its time too.
	testkit.Eventually(t, 40*time.Second, func() bool {
		resp, err := client.Get("http://" + addr + "/metrics")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		last = b
		return strings.Contains(string(b), text)
	}, "never seen: "+text)
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// serveRegistry serves a registry's metrics and returns its address.
func serveRegistry(t *testing.T, registry *prometheus.Registry) string {
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}
