package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/sethvargo/go-envconfig"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/libs/testkit"
	inventoryv1 "github.com/waybill-dev/waybill/proto/gen/waybill/inventory/v1"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	paymentv1 "github.com/waybill-dev/waybill/proto/gen/waybill/payment/v1"
)

// process is the service as main starts it.
type process struct {
	t       *testing.T
	addr    string
	admin   string
	issuer  *testkit.Issuer
	brokers []string
	pool    *pgxpool.Pool
	orders  *stream.Producer // stands in for the order and payment services
	seq     map[string]int64
}

func start(t *testing.T) *process {
	t.Helper()
	pool, url := testkit.Postgres(t)
	brokers, _ := testkit.Kafka(t)
	p := &process{t: t, issuer: testkit.Identity(t), brokers: brokers, pool: pool, seq: map[string]int64{}}
	var err error
	if p.orders, err = stream.NewProducer(t.Context(), stream.Config{Brokers: brokers, ClientID: "test", Log: zap.NewNop()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.orders.Close() })
	env := envconfig.MapLookuper(map[string]string{
		"HTTP_ADDR": "127.0.0.1:0", "ADMIN_ADDR": "127.0.0.1:0", "DATABASE_URL": url, "KAFKA_BROKERS": strings.Join(brokers, ","),
		"JWKS_URL": p.issuer.JWKSURL, "WAYBILL_SERVICE_JWKS": p.issuer.ServiceJWKSFile(), "WAYBILL_SERVICE_KEY": p.issuer.KeyFile("inventory"),
		"WAYBILL_ENV": "development", "LOG_LEVEL": "error", "RESERVATION_SWEEP": "50ms", "RESERVATION_TTL": "1h",
	})
	ctx, cancel := context.WithCancel(context.Background())
	addr, ended := make(chan [2]string, 1), make(chan error, 1)
	go func() {
		ended <- service.Run(ctx, name, env, func(ctx context.Context, s *service.Service, cfg Config) error {
			addr <- [2]string{s.Addr(), s.AdminAddr()}
			return run(ctx, s, cfg)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("ended: %v", err)
		}
	})
	select {
	case a := <-addr:
		p.addr, p.admin = "http://"+a[0], "http://"+a[1]
	case err := <-ended:
		ended <- nil
		t.Fatalf("did not start: %v", err)
	}
	testkit.Eventually(t, 30*time.Second, func() bool {
		resp, err := http.Get(p.admin + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, "the service is ready")
	return p
}

func (p *process) call(token, method, path, body string) (status int, answer map[string]any) {
	p.t.Helper()
	req, err := http.NewRequest(method, p.addr+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	_ = d.Decode(&answer)
	return resp.StatusCode, answer
}

// send publishes an event as its service would: the next sequence of its source and subject.
func (p *process) send(source string, t event.Type, orderID string, m proto.Message) {
	p.t.Helper()
	key := source + orderID
	p.seq[key]++
	e := event.New(p.t.Context(), t, orderID, 1, p.seq[key], m)
	e.Source = "/waybill/" + source
	msg := stream.Encode(e)
	if err := p.orders.Send(p.t.Context(), []stream.Message{msg, msg}); err != nil { // each of them twice
		p.t.Fatal(err)
	}
}

func (p *process) state(orderID string) (s string) {
	_ = p.pool.QueryRow(context.Background(), `SELECT state FROM reservations WHERE order_id = $1`, orderID).Scan(&s)
	return s
}

// An order from its reservation to the goods that came back, over HTTP and Kafka, through the program that main runs.
func TestService(t *testing.T) {
	p := start(t)
	customer := p.issuer.UserToken("customer", 1, "customer")
	if status, a := p.call(customer, "GET", "/products/sku-0001", ""); status != 200 || fmt.Sprint(a["price"]) != "29.95" || fmt.Sprint(a["currency"]) != "EUR" {
		t.Fatalf("sku-0001: %d %v", status, a)
	}
	var least, products int
	if err := p.pool.QueryRow(t.Context(), `SELECT count(*), min(on_hand) FROM products WHERE tenant = 1 AND product_id BETWEEN 'sku-0001' AND 'sku-0100'`).Scan(&products, &least); err != nil || products != 100 || least < 1000 {
		t.Errorf("catalogue: %d products, %d of the rarest, %v", products, least, err)
	}
	reservation := func(id string) {
		t.Helper()
		status, a := p.call(p.issuer.ServiceToken("order", "inventory"), "POST", "/inventory/reservations",
			fmt.Sprintf(`{"reservations":[{"order_id":%q,"tenant":1,"currency":"EUR","amount":5990,"items":[{"product_id":"sku-0001","quantity":2}],"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}]}`, id))
		if status != 200 || fmt.Sprint(a["results"]) != fmt.Sprintf("[map[currency:EUR order_id:%s outcome:pinned total:5990]]", id) {
			t.Fatalf("reserve: %d %v", status, a)
		}
	}
	reservation("o-1")
	reservation("o-2")
	items := []*orderv1.Item{{ProductId: "sku-0001", Quantity: 2}}
	p.send("order", event.OrderCreated, "o-1", &orderv1.OrderCreated{OrderId: "o-1", Items: items}) // not wanted, but counted
	p.send("payment", event.PaymentInitiated, "o-1", &paymentv1.PaymentInitiated{OrderId: "o-1"})
	p.send("order", event.OrderPaymentProcessed, "o-1", &orderv1.OrderPaymentProcessed{OrderId: "o-1", Items: items})
	testkit.Eventually(t, 20*time.Second, func() bool { return p.state("o-1") == "CONFIRMED" }, "o-1 is confirmed")
	p.send("order", event.OrderCancelled, "o-1", &orderv1.OrderCancelled{OrderId: "o-1", Goods: "returned", Reason: "shipping_failed"})
	testkit.Eventually(t, 20*time.Second, func() bool { return p.state("o-1") == "RETURNED" }, "o-1 is returned")
	p.send("payment", event.PaymentFailed, "o-2", &paymentv1.PaymentFailed{OrderId: "o-2", Status: "declined"})
	testkit.Eventually(t, 20*time.Second, func() bool { return p.state("o-2") == "HELD" }, "o-2 is held")
	if _, err := p.pool.Exec(t.Context(), `UPDATE reservations SET due_at = now() WHERE order_id = 'o-2'`); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 20*time.Second, func() bool { return p.state("o-2") == "EXPIRED" }, "the sweeper expires o-2")
	if status, a := p.call(customer, "GET", "/products/sku-0001", ""); status != 200 || fmt.Sprint(a["on_hand"]) != fmt.Sprint(seedStock) || fmt.Sprint(a["reserved"]) != "0" {
		t.Errorf("afterwards: %d %v", status, a)
	}
	want := map[string][]string{
		"o-1":              {"1 inventory.reserved pinned", "2 inventory.updated confirmed -2", "3 inventory.updated returned 2"},
		"o-2":              {"1 inventory.reserved pinned", "2 inventory.released expired"},
		"stock:1:sku-0100": {"1 inventory.updated restocked 100000"},
	}
	p.published(want)
}

// published waits until the topic has told these stories, each event once at least, in order.
func (p *process) published(want map[string][]string) {
	p.t.Helper()
	c, err := stream.NewConsumer(p.t.Context(), stream.Config{Brokers: p.brokers, ClientID: "test", Log: zap.NewNop()}, "test", []string{event.Inventory}, stream.ConsumerOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	got := map[string][]string{}
	err = c.Run(ctx, func(_ context.Context, batch []stream.Message) error {
		for _, m := range batch {
			e, err := stream.DecodeMessage(m)
			if err != nil {
				return err
			}
			if e.Source != "/waybill/inventory" || e.Tenant != 1 || string(m.Key) != e.Subject {
				p.t.Errorf("envelope: %+v", e)
			}
			if e.Subject == "o-1" && e.Seq == 1 && e.Traceparent != "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" {
				p.t.Errorf("trace of the order is lost: %s", e.Traceparent)
			}
			if line := fmt.Sprintf("%d %s %s", e.Seq, e.Type, gist(p.t, e)); int64(len(got[e.Subject])) < e.Seq {
				got[e.Subject] = append(got[e.Subject], line)
			}
		}
		for id, lines := range want {
			if strings.Join(got[id], "\n") != strings.Join(lines, "\n") {
				return nil
			}
		}
		cancel()
		return nil
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		p.t.Errorf("read the topic: %v", err)
	}
	for id, lines := range want {
		if strings.Join(got[id], "\n") != strings.Join(lines, "\n") {
			p.t.Errorf("%s was told as %q, want %q", id, got[id], lines)
		}
	}
}

func gist(t *testing.T, e event.Event) string {
	decode := func(m proto.Message) {
		if err := e.Decode(m); err != nil {
			t.Error(err)
		}
	}
	switch e.Type {
	case event.InventoryReserved:
		var m inventoryv1.InventoryReserved
		decode(&m)
		return m.State
	case event.InventoryReleased:
		var m inventoryv1.InventoryReleased
		decode(&m)
		return m.State
	}
	var m inventoryv1.InventoryUpdated
	decode(&m)
	out := m.Reason
	for _, c := range m.Changes {
		out += fmt.Sprintf(" %d", c.Delta)
	}
	return out
}
