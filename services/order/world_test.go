package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

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
	inventoryv1 "github.com/waybill-dev/waybill/proto/gen/waybill/inventory/v1"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	paymentv1 "github.com/waybill-dev/waybill/proto/gen/waybill/payment/v1"
	shippingv1 "github.com/waybill-dev/waybill/proto/gen/waybill/shipping/v1"
	"github.com/waybill-dev/waybill/services/order/internal/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	sourceInventory = "/waybill/inventory"
	sourcePayment   = "/waybill/payment"
	sourceShipping  = "/waybill/shipping"
)

// world is everything around the service: a database, a broker, and one program that plays inventory, payment and
// shipping over HTTP and Kafka. Whatever it publishes comes three times.
type world struct {
	t        testing.TB
	pool     *pgxpool.Pool
	issuer   *testkit.Issuer
	contract *testkit.Contract
	producer *stream.Producer
	env      map[string]string

	mu     sync.Mutex
	seq    map[string]int64
	orders map[string]*orderv1.OrderCreated
	told   map[string][]event.Event // of the topic orders, by subject, once each
	last   map[string]int64
	asked  map[string]int // calls for a reservation, by order
	city   map[string]string
	hold   map[string]func() // payments that wait for the test
}

func newWorld(t testing.TB, contract *testkit.Contract) *world {
	pool, url := testkit.Postgres(t, outbox.Migrations, inbox.Migrations, postgres.Migrations)
	brokers, _ := testkit.Kafka(t)
	w := &world{t: t, pool: pool, issuer: testkit.Identity(t), contract: contract,
		seq: map[string]int64{}, orders: map[string]*orderv1.OrderCreated{}, told: map[string][]event.Event{}, last: map[string]int64{},
		asked: map[string]int{}, city: map[string]string{}, hold: map[string]func(){}}
	others := httptest.NewServer(w.others())
	t.Cleanup(others.Close)
	w.env = map[string]string{
		"HTTP_ADDR": "127.0.0.1:0", "ADMIN_ADDR": "127.0.0.1:0", "DATABASE_URL": url, "KAFKA_BROKERS": strings.Join(brokers, ","),
		"JWKS_URL": w.issuer.JWKSURL, "WAYBILL_SERVICE_JWKS": w.issuer.ServiceJWKSFile(), "WAYBILL_SERVICE_KEY": w.issuer.KeyFile("order"),
		"INVENTORY_URL": others.URL, "PAYMENT_URL": others.URL, "WAYBILL_ENV": "development", "LOG_LEVEL": "warn", "RESERVATION_PATIENCE": "200ms",
	}
	kafka := stream.Config{Brokers: brokers, ClientID: "test", Log: testkit.Log(t), Registry: prometheus.NewRegistry()}
	var err error
	if w.producer, err = stream.NewProducer(t.Context(), kafka); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.producer.Close() })
	consumer, err := stream.NewConsumer(t.Context(), kafka, "others", []string{event.Orders}, stream.ConsumerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = consumer.Run(ctx, func(_ context.Context, batch []stream.Message) error {
			for _, m := range batch {
				e, err := stream.DecodeMessage(m)
				if err != nil {
					return err
				}
				w.follow(e)
			}
			return nil
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// start runs a replica of the service.
func (w *world) start() (url string, stop func()) {
	w.t.Helper()
	at := make(chan string, 1)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- service.Run(ctx, name, envconfig.MapLookuper(w.env), func(ctx context.Context, s *service.Service, cfg Config) error {
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
	case addr := <-at:
		return "http://" + addr, stop
	case err := <-ended:
		w.t.Fatal(errors.Join(errors.New("the service does not start"), err))
	}
	return "", nil
}

// others is what inventory and payment answer over HTTP.
func (w *world) others() http.Handler {
	mux := http.NewServeMux()
	guard := func(audience string, next http.HandlerFunc) http.Handler {
		return w.issuer.Verifier(audience).Middleware(next)
	}
	mux.Handle("POST /inventory/reservations", guard("inventory", w.reserve))
	mux.Handle("GET /payments/{order_id}", guard("payment", func(rw http.ResponseWriter, r *http.Request) {
		id := r.PathValue("order_id")
		w.mu.Lock()
		o := w.orders[id]
		w.mu.Unlock()
		switch {
		case strings.Contains(id, "nobody-home"):
			rw.WriteHeader(http.StatusServiceUnavailable)
		case o == nil || strings.Contains(id, "unpaid"):
			rw.WriteHeader(http.StatusNotFound)
		default:
			fmt.Fprintf(rw, `{"order_id":%q,"status":"captured","amount":59.90,"currency":"EUR","payment_method":"card","attempts":1,"refunded":0}`, id)
		}
	}))
	return mux
}

// reserve answers by the product: sku-out, sku-none, sku-price and sku-closed are refused; of sku-lost the first answer is lost
// after its effect; sku-away is not answered at all until the test says so.
func (w *world) reserve(rw http.ResponseWriter, r *http.Request) {
	var body struct {
		Reservations []struct {
			OrderID  string `json:"order_id"`
			Tenant   int64  `json:"tenant"`
			Currency string `json:"currency"`
			Amount   int64  `json:"amount"`
			Items    []struct {
				ProductID string `json:"product_id"`
				Quantity  int64  `json:"quantity"`
			} `json:"items"`
			Traceparent string `json:"traceparent"`
		} `json:"reservations"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		w.t.Error(err)
	}
	type result struct {
		OrderID  string `json:"order_id"`
		Outcome  string `json:"outcome"`
		Reason   string `json:"reason,omitempty"`
		Total    int64  `json:"total"`
		Currency string `json:"currency,omitempty"`
	}
	results := []result{}
	lost := false
	for _, q := range body.Reservations {
		if q.Traceparent == "" || len(q.Items) == 0 || q.Tenant != 1 {
			w.t.Errorf("asked for %+v", q)
		}
		w.mu.Lock()
		w.asked[q.OrderID]++
		first := w.asked[q.OrderID] == 1
		w.mu.Unlock()
		res := result{OrderID: q.OrderID, Outcome: "pinned", Total: q.Amount, Currency: q.Currency}
		switch product := q.Items[0].ProductID; product {
		case "sku-out":
			res.Outcome, res.Reason = "refused", "out_of_stock"
		case "sku-none":
			res.Outcome, res.Reason = "refused", "unknown_product"
		case "sku-price":
			res.Outcome, res.Reason, res.Total = "mismatch", "amount_mismatch", q.Amount+1
		case "sku-closed":
			res.Outcome, res.Reason = "closed", "reservation_expired"
		case "sku-away":
			continue
		case "sku-lost":
			lost = lost || first // the effect is there; nobody is told, not even by an event
		case "sku-told":
			// The answer is lost, and the event does the work.
			lost = lost || first
			fallthrough
		default:
			if first {
				m := &inventoryv1.InventoryReserved{OrderId: q.OrderID, State: "pinned", Total: q.Amount, Currency: q.Currency}
				for _, it := range q.Items {
					m.Items = append(m.Items, &inventoryv1.Item{ProductId: it.ProductID, Quantity: it.Quantity})
				}
				w.tell(sourceInventory, event.InventoryReserved, q.OrderID, m)
			}
		}
		results = append(results, res)
	}
	if lost {
		rw.WriteHeader(http.StatusGatewayTimeout)
		return
	}
	_ = json.NewEncoder(rw).Encode(map[string]any{"results": results})
}

// tell publishes an event three times.
func (w *world) tell(source string, typ event.Type, subject string, m proto.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seq[source+subject]++
	tenant := int64(1)
	if strings.HasPrefix(subject, "globex") {
		tenant = 2
	}
	e := event.New(context.Background(), typ, subject, tenant, w.seq[source+subject], m)
	e.Source = source
	for range 3 {
		if err := w.producer.Send(context.Background(), []stream.Message{stream.Encode(e)}); err != nil {
			w.t.Error(err)
		}
	}
}

// follow does what the other services do about an event of the topic orders.
func (w *world) follow(e event.Event) {
	w.mu.Lock()
	if e.Seq <= w.last[e.Subject] {
		w.mu.Unlock()
		return
	}
	if e.Seq != w.last[e.Subject]+1 {
		w.t.Errorf("event %d of %s follows %d", e.Seq, e.Subject, w.last[e.Subject])
	}
	w.last[e.Subject] = e.Seq
	w.told[e.Subject] = append(w.told[e.Subject], e)
	o := w.orders[e.Subject]
	w.mu.Unlock()
	if e.Tenant < 1 || e.Source != "/waybill/order" || e.Traceparent == "" {
		w.t.Errorf("event %+v", e)
	}
	id := e.Subject
	switch e.Type {
	case event.OrderCreated:
		m := &orderv1.OrderCreated{}
		w.decode(e, m)
		w.mu.Lock()
		w.orders[id] = m
		w.city[id] = m.GetAddress().GetCity()
		w.mu.Unlock()
	case event.OrderPaymentRequested:
		w.tell(sourcePayment, event.PaymentInitiated, id, &paymentv1.PaymentInitiated{OrderId: id, Amount: o.Amount, Currency: o.Currency, PaymentMethod: o.PaymentMethod})
		processed := func() {
			w.tell(sourcePayment, event.PaymentProcessed, id, &paymentv1.PaymentProcessed{OrderId: id, Amount: o.Amount, Currency: o.Currency, PaymentMethod: o.PaymentMethod, Attempts: 1})
		}
		switch o.PaymentMethod {
		case "card_declined":
			w.tell(sourcePayment, event.PaymentFailed, id, &paymentv1.PaymentFailed{OrderId: id, Amount: o.Amount, Currency: o.Currency, Status: "declined", Reason: "insufficient_funds"})
		case "card_down":
			w.tell(sourcePayment, event.PaymentFailed, id, &paymentv1.PaymentFailed{OrderId: id, Amount: o.Amount, Currency: o.Currency, Status: "failed", Reason: "provider_unavailable"})
		case "card_slow":
			w.mu.Lock()
			w.hold[id] = processed
			w.mu.Unlock()
		default:
			processed()
		}
	case event.OrderPaymentProcessed:
		if len(o.Items) == 0 {
			return
		}
		w.tell(sourceInventory, event.InventoryUpdated, id, &inventoryv1.InventoryUpdated{OrderId: id, Reason: "confirmed"})
		w.ship(id, 1)
	case event.OrderShippingRequested:
		m := &orderv1.OrderShippingRequested{}
		w.decode(e, m)
		w.mu.Lock()
		w.city[id] = m.GetAddress().GetCity()
		w.mu.Unlock()
		w.ship(id, m.Attempt)
	case event.OrderRefundRequested:
		m := &orderv1.OrderRefundRequested{}
		w.decode(e, m)
		if strings.Contains(id, "norefund") && m.Attempt == 1 {
			w.tell(sourcePayment, event.PaymentRefundFailed, id, &paymentv1.PaymentRefundFailed{OrderId: id, Amount: o.Amount, Currency: o.Currency, Attempt: 1, Reason: "account_closed"})
			return
		}
		w.tell(sourcePayment, event.PaymentRefunded, id, &paymentv1.PaymentRefunded{OrderId: id, Amount: o.Amount, Currency: o.Currency, Attempt: m.Attempt})
	case event.OrderFailed, event.OrderCancelled:
		if len(o.Items) > 0 {
			w.tell(sourceInventory, event.InventoryReleased, id, &inventoryv1.InventoryReleased{OrderId: id, State: "released"})
		}
	}
}

func (w *world) ship(id string, attempt int32) {
	w.mu.Lock()
	city := w.city[id]
	w.mu.Unlock()
	w.tell(sourceShipping, event.ShippingRequested, id, &shippingv1.ShippingRequested{OrderId: id, Attempt: attempt})
	if city == "Nowhere" {
		w.tell(sourceShipping, event.ShippingFailed, id, &shippingv1.ShippingFailed{OrderId: id, Attempt: attempt, Reason: "no such place"})
		return
	}
	w.tell(sourceShipping, event.ShippingProgress, id, &shippingv1.ShippingProgress{OrderId: id, Attempt: attempt, Status: "accepted", Tracking: "T1"})
	w.tell(sourceShipping, event.ShippingProgress, id, &shippingv1.ShippingProgress{OrderId: id, Attempt: attempt, Status: "in_transit", Tracking: "T1"})
	w.tell(sourceShipping, event.ShippingCompleted, id, &shippingv1.ShippingCompleted{OrderId: id, Attempt: attempt, Tracking: "T1"})
}

func (w *world) decode(e event.Event, m proto.Message) {
	if err := e.Decode(m); err != nil {
		w.t.Error(err)
	}
}

// release lets a payment that is held up land.
func (w *world) release(t testing.TB, id string) {
	t.Helper()
	var f func()
	testkit.Eventually(t, 20*time.Second, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		f = w.hold[id]
		return f != nil
	}, "no payment was asked for "+id)
	f()
}

// types are the events that the service has published about an order.
func (w *world) types(id string) []event.Type {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []event.Type
	for _, e := range w.told[id] {
		out = append(out, e.Type)
	}
	return out
}

// event finds what was published about an order, decoded into m.
func (w *world) event(t testing.TB, id string, typ event.Type, m proto.Message) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.told[id]) - 1; i >= 0; i-- {
		if e := w.told[id][i]; e.Type == typ {
			w.decode(e, m)
			return
		}
	}
	t.Errorf("no %s about %s", typ, id)
}

// client calls the service as somebody.
type client struct {
	t        testing.TB
	w        *world
	url      string
	token    string
	header   []string
	contract bool
}

func (w *world) as(t testing.TB, url, user string, roles ...string) client {
	return client{t: t, w: w, url: url, token: w.issuer.UserToken(user, 1, roles...), contract: true}
}

// with adds a header to the requests.
func (c client) with(name, value string) client {
	c.header = append(append([]string(nil), c.header...), name, value)
	return c
}

func (c client) do(method, path, body string) (*http.Response, map[string]any) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for i := 0; i+1 < len(c.header); i += 2 {
		req.Header.Set(c.header[i], c.header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		c.t.Fatal(err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(raw))
	if c.contract {
		c.w.contract.Check(c.t, req, []byte(body), resp)
	}
	var doc map[string]any
	_ = json.Unmarshal(raw, &doc)
	return resp, doc
}

// post creates an order and expects 202.
func (c client) post(body string) map[string]any {
	c.t.Helper()
	resp, doc := c.do("POST", "/orders", body)
	if resp.StatusCode != http.StatusAccepted {
		c.t.Fatalf("POST /orders: %d %v", resp.StatusCode, doc)
	}
	return doc
}

// until waits for a status.
func (c client) until(id, status string) map[string]any {
	c.t.Helper()
	var doc map[string]any
	testkit.Eventually(c.t, 30*time.Second, func() bool {
		_, doc = c.do("GET", "/orders/"+id, "")
		return doc["status"] == status
	}, id+" does not become "+status)
	return doc
}

// timeline is what happened, as "event status".
func timeline(doc map[string]any) []string {
	var out []string
	lines, _ := doc["timeline"].([]any)
	for _, l := range lines {
		m := l.(map[string]any)
		out = append(out, fmt.Sprint(m["event"], " ", m["status"]))
	}
	return out
}
