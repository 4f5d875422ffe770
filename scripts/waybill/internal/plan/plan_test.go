package plan

import (
	"slices"
	"strings"
	"testing"
)

func TestDefaultPortsAreTheDocumented(t *testing.T) {
	t.Parallel()
	p := DefaultPorts()
	for name, want := range map[string]int{
		"gateway": 8080, "order": 8081, "payment": 8082, "inventory": 8083, "shipping": 8084, "notification": 8085, "analytics": 8086,
		"metrics-processor": 8087, "sandbox": 8090, "gateway-admin": 9080, "metrics-processor-admin": 9087, "sandbox-admin": 9090,
		"kafka": 9092, "postgres": 15432, "redis": 16379, "smtp": 1025, "pprof": 6060, "statsd": 8125,
	} {
		if p[name] != want {
			t.Errorf("%s listens on %d, want %d", name, p[name], want)
		}
	}
	if err := p.Clash(); err != nil {
		t.Error(err)
	}
}

func TestPortsFrom(t *testing.T) {
	t.Parallel()
	for _, base := range []int{1024, 20000, 60000} {
		p, err := PortsFrom(base)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Clash(); err != nil {
			t.Errorf("base %d: %v", base, err)
		}
		for name, port := range p {
			if port <= base || port >= base+2000 {
				t.Errorf("base %d: %s listens on %d", base, name, port)
			}
		}
	}
	for _, base := range []int{-1, 0, 80, 64000} {
		if _, err := PortsFrom(base); err == nil {
			t.Errorf("base %d is taken", base)
		}
	}
}

func TestFreePorts(t *testing.T) {
	t.Parallel()
	p, err := FreePorts()
	if err != nil {
		t.Fatal(err)
	}
	if len(p) != len(DefaultPorts()) || p.Clash() != nil {
		t.Errorf("%d ports, %v", len(p), p.Clash())
	}
}

func TestSet(t *testing.T) {
	t.Parallel()
	p := DefaultPorts()
	if err := p.Set([]string{"order=18081", "kafka=19092"}); err != nil || p["order"] != 18081 || p["kafka"] != 19092 {
		t.Errorf("%v, order %d, kafka %d", err, p["order"], p["kafka"])
	}
	for _, bad := range []string{"order", "order=", "order=x", "order=70000", "nothing=1", "=1"} {
		if err := p.Set([]string{bad}); err == nil || !strings.Contains(err.Error(), "name=port") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	p["payment"] = p["order"]
	if err := p.Clash(); err == nil || !strings.Contains(err.Error(), "order and payment") {
		t.Errorf("a clash is not seen: %v", err)
	}
}

func TestDatabase(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]string{
		"postgres://postgres@127.0.0.1:15432":         "postgres://postgres@127.0.0.1:15432/order?sslmode=disable",
		"postgres://u:p@db.internal:5432":             "postgres://u:p@db.internal:5432/order",
		"postgres://u@localhost:5432/?sslmode=prefer": "postgres://u@localhost:5432/order?sslmode=prefer",
	} {
		if got := (Settings{Parts: Parts{Postgres: server}}).Database("order"); got != want {
			t.Errorf("%s: %s, want %s", server, got, want)
		}
	}
}

// A replica listens elsewhere and calls the same others.
func TestServiceEnvironment(t *testing.T) {
	t.Parallel()
	own, err := FreePorts()
	if err != nil {
		t.Fatal(err)
	}
	s := Settings{Ports: DefaultPorts(), Data: "/data", LogLevel: "info", Partitions: 3, Replicas: 2, Others: []Ports{own}, Parts: Parts{Kafka: "k:9092", Postgres: "postgres://p@127.0.0.1:1", Redis: "r:1"}}
	env := s.Service("order", 1)
	for _, want := range []string{
		"HTTP_ADDR=" + own.Addr("order"), "ADMIN_ADDR=" + own.Addr("order-admin"), "INVENTORY_URL=http://127.0.0.1:8083",
		"METRICS_PROCESSOR_URL=http://127.0.0.1:8087", "WAYBILL_SERVICE_KEY=/data/keys/order.jwk", "WAYBILL_ENV=development", "KAFKA_BROKERS=k:9092",
	} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if !slices.Contains(s.Service("gateway", 1), "GATEWAY_REPLICAS=2") {
		t.Error("gateways do not know how many share a budget")
	}
}

// Every call of every process can be led elsewhere, and no listener moves with it.
func TestRoute(t *testing.T) {
	t.Parallel()
	others, err := FreePorts()
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string][]string{}
	s := Settings{
		Ports: DefaultPorts(), Others: []Ports{others}, Replicas: 2, Parts: Parts{Kafka: "k:9092", Postgres: "postgres://p@127.0.0.1:1", Redis: "r:1"},
		Route: func(process, callee string, at []string) string {
			asked[process+">"+callee] = at
			return "via-" + process + "-" + callee
		},
		Environment: map[string][]string{"order": {"ORDER_DEADLINE=1m"}},
	}
	env := s.Service("order", 1)
	for _, want := range []string{
		"HTTP_ADDR=" + others.Addr("order"), "KAFKA_BROKERS=via-order-2-kafka", "INVENTORY_URL=http://via-order-2-inventory",
		"DATABASE_URL=postgres://p@via-order-2-postgres/order", "JWKS_URL=http://via-order-2-gateway/.well-known/jwks.json",
		"SHIPPING_URL=http://127.0.0.1:8084", "ORDER_DEADLINE=1m", // the order service does not call shipping
	} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is missing in %q", want, env)
		}
	}
	if got := asked["order-2>inventory"]; len(got) != 2 || got[0] != "127.0.0.1:8083" || got[1] != others.Addr("inventory") {
		t.Errorf("inventory is at %v", got)
	}
	if !slices.Contains(s.Sandbox(), "PAYMENT_WEBHOOK_URL=http://via-sandbox-payment/webhooks/payments") {
		t.Error("webhooks go another way")
	}
	for _, name := range Services {
		s.Service(name, 0)
		for _, callee := range Calls[name] {
			if len(asked[name+">"+callee]) == 0 {
				t.Errorf("%s calls %s without asking for the way", name, callee)
			}
		}
	}
}
