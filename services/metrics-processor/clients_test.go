package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"

	statsd "github.com/smira/go-statsd"

	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/libs/testkit"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/postgres"
)

// childVariable has the test binary be the service, so that a test can kill it.
const childVariable = "METRICS_PROCESSOR_CHILD"

func init() {
	if os.Getenv(childVariable) != "" {
		service.Main("metrics-processor", run)
		os.Exit(0)
	}
}

// environment is what a process of the service needs, and how it is asked.
type environment struct {
	env      map[string]string
	brokers  []string
	operator string
}

func newEnvironment(t *testing.T) *environment {
	brokers, _ := testkit.Kafka(t)
	_, database := testkit.Postgres(t, postgres.Migrations)
	issuer := testkit.Identity(t)
	return &environment{brokers: brokers, operator: issuer.UserToken("operator", 1, "operator"), env: map[string]string{
		"HTTP_ADDR": freePort(t), "ADMIN_ADDR": "127.0.0.1:0", "KAFKA_BROKERS": strings.Join(brokers, ","), "JWKS_URL": issuer.JWKSURL, "DATABASE_URL": database,
		"WAYBILL_SERVICE_JWKS": issuer.ServiceJWKSFile(), "PPROF_ADDR": "127.0.0.1:0", "LOG_LEVEL": "error", "INSTANCE": "test",
		"STATE_DIR": t.TempDir(), "STATSD_ADDR": freePort(t), "OTLP_TOKEN": "otlp", "REMOTE_WRITE_TOKEN": "write",
	}}
}

// spawn starts a process of the service and returns what kills it.
func (e *environment) spawn(t *testing.T) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=1")
	for k, v := range e.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(kill)
	return kill
}

func (e *environment) ledger(t *testing.T) map[string]aggregate.Account {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+e.env["HTTP_ADDR"]+"/ledger", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+e.operator)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var answer struct{ Sources []aggregate.Account }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil
	}
	all := map[string]aggregate.Account{}
	for _, b := range answer.Sources {
		n := b.Aggregated
		for _, d := range b.Dropped {
			n += d
		}
		if n != b.Accepted {
			t.Errorf("the books do not balance: %+v", b)
		}
		all[b.Source] = b
	}
	return all
}

// TestKill kills the service while events and pushed samples come in, twice: every event is counted once, and the
// ledger knows every pushed sample that was accepted.
func TestKill(t *testing.T) {
	e := newEnvironment(t)
	producer, err := stream.NewProducer(t.Context(), stream.Config{Brokers: e.brokers, ClientID: "test", Log: testkit.Log(t), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	sent, accepted := int64(0), uint64(0)
	for round := range 2 {
		kill := e.spawn(t)
		var books map[string]aggregate.Account
		testkit.Eventually(t, 30*time.Second, func() bool { books = e.ledger(t); return books != nil }, "the service does not answer")
		if got := books["statsd"].Accepted; got != accepted {
			t.Errorf("round %d: %d pushed samples in the books, %d were accepted: %+v", round, got, accepted, books["statsd"])
		}
		conn, err := net.Dial("tcp", e.env["STATSD_ADDR"])
		if err != nil {
			t.Fatal(err)
		}
		push := func(n int) {
			for range n {
				if _, err := fmt.Fprint(conn, "x:1|c\n"); err != nil {
					t.Fatal(err)
				}
			}
			accepted += uint64(n)
			testkit.Eventually(t, 10*time.Second, func() bool { return e.ledger(t)["statsd"].Accepted == accepted }, "pushed samples are not accepted")
		}
		produce := func() {
			var batch []stream.Message
			for range 40 {
				batch = append(batch, stream.Encode(created(sent)))
				sent++
			}
			if err := producer.Send(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		push(50)
		produce()
		// A member that is killed while it joins keeps the group waiting for a minute, which is the broker's affair.
		wait(t, e.env["HTTP_ADDR"], fmt.Sprintf(`waybill_events_total{topic="orders",type="order.created"} %d`, sent))
		push(20)
		produce() // recorded, saved, acknowledged or none of these when it is killed
		kill()
		conn.Close()
	}
	e.spawn(t)
	wait(t, e.env["HTTP_ADDR"], fmt.Sprintf(`waybill_events_total{topic="orders",type="order.created"} %d`, sent))
	books := e.ledger(t)
	if b := books["statsd"]; b.Accepted != accepted || b.Dropped["crash"] > 2*70 {
		t.Errorf("%d accepted: %+v", accepted, b)
	}
	wait(t, e.env["HTTP_ADDR"], fmt.Sprintf("x %d\n", books["statsd"].Aggregated))
	if b := books["kafka"]; b.Accepted != b.Aggregated {
		t.Errorf("%+v", b)
	}
}

// TestOpenTelemetrySDK has the OpenTelemetry SDK push what it counted.
func TestOpenTelemetrySDK(t *testing.T) {
	e := newEnvironment(t)
	start(t, e.env, func(addr string) {
		exporter, err := otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpoint(addr), otlpmetrichttp.WithInsecure(),
			otlpmetrichttp.WithHeaders(map[string]string{"Authorization": "Bearer otlp"}), otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression))
		if err != nil {
			t.Fatal(err)
		}
		provider := sdk.NewMeterProvider(sdk.WithReader(sdk.NewPeriodicReader(exporter, sdk.WithInterval(time.Hour))))
		defer func() { _ = provider.Shutdown(context.WithoutCancel(t.Context())) }()
		meter := provider.Meter("test")
		clicks, err := meter.Int64Counter("clicks")
		if err != nil {
			t.Fatal(err)
		}
		took, err := meter.Float64Histogram("took")
		if err != nil {
			t.Fatal(err)
		}
		page := metric.WithAttributes(attribute.String("page", "home"))
		for range 7 {
			clicks.Add(t.Context(), 3, page)
			took.Record(t.Context(), 0.5, page)
		}
		if err := provider.ForceFlush(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`clicks{page="home"`, "} 21\n", `took_count{page="home"`, "} 7\n", `took_sum{page="home"`, "} 3.5\n"} {
			wait(t, addr, want)
		}
	})
}

// TestStatsDClient has a StatsD client send over UDP.
func TestStatsDClient(t *testing.T) {
	e := newEnvironment(t)
	start(t, e.env, func(addr string) {
		wait(t, addr, "waybill_events_total") // it listens
		client := statsd.NewClient(e.env["STATSD_ADDR"], statsd.TagStyle(statsd.TagFormatDatadog), statsd.MetricPrefix("shop."), statsd.FlushInterval(10*time.Millisecond))
		for i := range 10 {
			client.Incr("clicks", 2, statsd.StringTag("page", "home"))
			client.PrecisionTiming("took", time.Duration(i+1)*time.Millisecond)
		}
		client.Gauge("level", 42)
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"shop_clicks{page=\"home\"} 20\n", "shop_took_count 10\n", "shop_took_sum 55\n", "shop_level 42\n"} {
			wait(t, addr, want)
		}
	})
}

// TestPrometheus has Prometheus itself scrape a target and remote-write what it read. It needs the program (Debian: apt-get
// install prometheus).
func TestPrometheus(t *testing.T) {
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("SKIPPED: no prometheus on PATH (Debian: apt-get install prometheus); remote write is tested with our own bodies only")
	}
	e := newEnvironment(t)
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "shop_clicks_total", Help: "h"})
	registry.MustRegister(counter)
	counter.Add(1234)
	target := serveRegistry(t, registry)
	start(t, e.env, func(addr string) {
		dir := t.TempDir()
		config := fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs: [{job_name: shop, static_configs: [{targets: [%q]}]}]\nremote_write: [{url: \"http://%s/api/v1/write\", authorization: {credentials: write}}]\n", target, addr)
		path := filepath.Join(dir, "prometheus.yml")
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, "--config.file="+path, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+freePort(t), "--log.level=error")
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
		wait(t, addr, "shop_clicks_total{instance=")
		wait(t, addr, "} 1234\n")
	})
}
