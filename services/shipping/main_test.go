package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sethvargo/go-envconfig"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/libs/testkit"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// lorry is a carrier that behaves badly: it refuses to work, works and says that it did not, reports twice and in any
// order, or not at all. What it does with a parcel is said by the city.
type lorry struct {
	t      *testing.T
	server *httptest.Server
	sign   *standardwebhooks.Webhook

	mu      sync.Mutex
	hook    string            // where webhooks go
	parcels map[string]string // by key, its final state
	effects map[string]int    // how often a key had an effect
	asked   map[string]int
	posting sync.WaitGroup
}

func newLorry(t *testing.T) *lorry {
	t.Helper()
	sign, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	l := &lorry{t: t, sign: sign, parcels: map[string]string{}, effects: map[string]int{}, asked: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /carrier/shipments", l.create)
	mux.HandleFunc("GET /carrier/shipments/{key}", l.find)
	l.server = httptest.NewServer(mux)
	t.Cleanup(func() {
		l.posting.Wait()
		l.server.Close()
	})
	return l
}

type parcel struct {
	Key      string `json:"key"`
	OrderID  string `json:"order_id"`
	Attempt  int    `json:"attempt"`
	Tracking string `json:"tracking"`
	Status   string `json:"status"`
	Reason   string `json:"reason"`
}

func (l *lorry) create(w http.ResponseWriter, r *http.Request) {
	var in struct {
		parcel
		Address struct{ City string }
		Items   []any
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || len(in.Items) == 0 || r.Header.Get("Traceparent") == "" {
		l.t.Errorf("a call cannot be read (%v), has %d items, trace %q", err, len(in.Items), r.Header.Get("Traceparent"))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked[in.Key]++
	if in.Address.City == "Nowhere" {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, `{"type":"urn:problem:address-refused","title":"no","status":422}`)
		return
	}
	if in.Address.City == "Delayed" && l.asked[in.Key] <= 2 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	p := in.parcel
	p.Tracking = "WB-" + p.OrderID
	if l.parcels[p.Key] == "" {
		l.effects[p.Key]++
		l.parcels[p.Key] = "delivered"
		states := []string{"accepted", "in_transit", "delivered"}
		if in.Address.City == "Lost" {
			l.parcels[p.Key], states[2] = "failed", "failed"
		}
		if in.Address.City != "Silent" { // of that one only a poll hears
			l.report(p, append(states, states[rand.N(3)], states[rand.N(3)]))
		}
	}
	if in.Address.City == "Liar" && l.asked[p.Key] == 1 {
		w.WriteHeader(http.StatusInternalServerError) // did happen, caller told otherwise
		return
	}
	w.WriteHeader(http.StatusAccepted)
	p.Status = "accepted"
	_ = json.NewEncoder(w).Encode(p)
}

func (l *lorry) find(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := r.PathValue("key")
	status := l.parcels[key]
	if status == "" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(parcel{Key: key, Status: status, Tracking: "WB-polled", Reason: map[string]string{"failed": "parcel_lost"}[status]})
}

// report posts the states all at once, so that they arrive in any order.
func (l *lorry) report(p parcel, states []string) {
	hook := l.hook
	for _, s := range states {
		l.posting.Go(func() {
			p := p
			p.Status = s
			if s == "failed" {
				p.Reason = "parcel_lost"
			}
			body, _ := json.Marshal(map[string]any{"type": "shipment." + s, "timestamp": time.Now(), "data": p})
			now := time.Now()
			signature, err := l.sign.Sign("msg_"+p.Key+s, now, body)
			if err != nil {
				l.t.Error(err)
			}
			r, err := http.NewRequest(http.MethodPost, hook, strings.NewReader(string(body)))
			if err != nil {
				l.t.Error(err)
				return
			}
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("webhook-id", "msg_"+p.Key+s)
			r.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
			r.Header.Set("webhook-signature", signature)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				return // the receiver is away: the poll finds it out
			}
			resp.Body.Close()
			if resp.StatusCode >= 500 || resp.StatusCode == http.StatusUnauthorized {
				l.t.Errorf("a webhook was answered %s", resp.Status)
			}
		})
	}
}

// start runs a replica of the service, waits until it is ready and returns its address.
func start(t *testing.T, env map[string]string) (addr string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	services, done := make(chan *service.Service, 1), make(chan error, 1)
	go func() {
		done <- service.Run(ctx, "shipping", envconfig.MapLookuper(env), func(ctx context.Context, s *service.Service, cfg Config) error {
			services <- s
			return run(ctx, s, cfg)
		})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the service ended with %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case s := <-services:
		testkit.Eventually(t, 30*time.Second, func() bool { return s.Ready(t.Context()) == nil }, "the service is ready")
		return s.Addr(), stop
	case err := <-done:
		t.Fatalf("the service did not start: %v", err)
	}
	return "", nil
}

var items = []*orderv1.Item{{ProductId: "sku-0001", Quantity: 2}}

func to(city string) *orderv1.Address {
	return &orderv1.Address{Name: "A. Buyer", Line1: "1 Main St", City: city, PostalCode: "10115", Country: "DE"}
}

// story is what the order service says of an order.
func story(id, city string) []event.Event {
	first := event.New(context.Background(), event.OrderCreated, id, 1, 1, &orderv1.OrderCreated{OrderId: id, Customer: "customer", Items: items, Address: to(city)})
	rest := func(typ event.Type, seq int64, m proto.Message) event.Event { return first.Next(typ, id, seq, m) }
	es := []event.Event{
		first,
		rest(event.OrderPaymentRequested, 2, &orderv1.OrderPaymentRequested{OrderId: id}),
		rest(event.OrderPaymentProcessed, 3, &orderv1.OrderPaymentProcessed{OrderId: id, Items: items, Address: to(city)}),
	}
	for i := range es {
		es[i].Source = "/waybill/order"
	}
	return es
}

// TestService runs two replicas between a broker, a database and a carrier that does what it likes. Every event comes twice,
// one replica goes away half-way, and each order is told of once, in order, to its end.
func TestService(t *testing.T) {
	_, url := testkit.Postgres(t)
	brokers, _ := testkit.Kafka(t)
	issuer := testkit.Identity(t)
	l := newLorry(t)
	env := map[string]string{
		"HTTP_ADDR": "127.0.0.1:0", "DATABASE_URL": url, "KAFKA_BROKERS": strings.Join(brokers, ","), "JWKS_URL": issuer.JWKSURL,
		"WAYBILL_SERVICE_JWKS": issuer.ServiceJWKSFile(), "CARRIER_URL": l.server.URL, "CARRIER_SECRET": secret, "LOG_LEVEL": "error",
	}
	addr, _ := start(t, env)
	_, stopOther := start(t, env)
	l.mu.Lock()
	l.hook = "http://" + addr + "/webhooks/shipping"
	l.mu.Unlock()

	kafka := stream.Config{Brokers: brokers, ClientID: "test", Log: testkit.Log(t), Registry: prometheus.NewRegistry()}
	producer, err := stream.NewProducer(t.Context(), kafka)
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	heard := listen(t, kafka)

	const each = 8
	endings := map[string]string{
		"Berlin": "shipping.completed", "Delayed": "shipping.completed", "Liar": "shipping.completed", "Silent": "shipping.completed",
		"Lost": "shipping.failed", "Nowhere": "shipping.failed",
	}
	send := func(from, to int) {
		var ms []stream.Message
		for city := range endings {
			for i := from; i < to; i++ {
				for _, e := range story(fmt.Sprintf("%s-%d", city, i), city) {
					ms = append(ms, stream.Encode(e), stream.Encode(e)) // at least once
				}
			}
		}
		if err := producer.Send(t.Context(), ms); err != nil {
			t.Fatal(err)
		}
	}
	send(0, each/2)
	testkit.Eventually(t, 30*time.Second, func() bool { return heard.orders() > 0 }, "the first order is told of")
	stopOther()
	send(each/2, each)
	testkit.Eventually(t, 60*time.Second, func() bool { return heard.ended() == each*len(endings) }, "every shipment ends")

	for city, last := range endings {
		for i := range each {
			id := fmt.Sprintf("%s-%d", city, i)
			heard.check(t, id, last)
			effects := 1
			if city == "Nowhere" {
				effects = 0
			}
			l.mu.Lock()
			if n := l.effects[id+":ship:1"]; n != effects {
				t.Errorf("%s was shipped %d times, want %d", id, n, effects)
			}
			if n := l.asked[id+":ship:1"]; city == "Nowhere" && n != 1 || city == "Delayed" && n != 3 {
				t.Errorf("%s: the carrier was called %d times", id, n)
			}
			l.mu.Unlock()
		}
	}
	status, body := get(t, addr, "/shipping/Lost-0", issuer.UserToken("customer", 1, "customer"))
	if status != 200 || !strings.Contains(body, `"status":"failed"`) || !strings.Contains(body, `"reason":"parcel_lost"`) {
		t.Errorf("GET answers %d %s", status, body)
	}
	if status, _ := get(t, addr, "/shipping/Lost-0", issuer.UserToken("customer2", 2, "customer")); status != 404 {
		t.Errorf("a stranger is answered %d", status)
	}
}

func get(t *testing.T, addr, path, token string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// heard is what the service has said.
type heard struct {
	mu     sync.Mutex
	events map[string][]event.Event
	ids    map[string]bool
}

func listen(t *testing.T, kafka stream.Config) *heard {
	t.Helper()
	h := &heard{events: map[string][]event.Event{}, ids: map[string]bool{}}
	kafka.Registry = prometheus.NewRegistry()
	c, err := stream.NewConsumer(t.Context(), kafka, "test", []string{event.Shipping}, stream.ConsumerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := c.Run(ctx, func(_ context.Context, batch []stream.Message) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			for _, m := range batch {
				e, err := stream.DecodeMessage(m)
				if err != nil {
					t.Errorf("the service says what is no event: %v", err)
				} else if !h.ids[e.ID.String()] { // at least once
					h.ids[e.ID.String()] = true
					h.events[e.Subject] = append(h.events[e.Subject], e)
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return h
}

func (h *heard) orders() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.events)
}

func (h *heard) ended() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, es := range h.events {
		if last := es[len(es)-1].Type; last == event.ShippingCompleted || last == event.ShippingFailed {
			n++
		}
	}
	return n
}

// check says that an order's events are requested, perhaps progress, and the end, numbered without a gap.
func (h *heard) check(t *testing.T, id, last string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	var types []string
	for i, e := range h.events[id] {
		if e.Seq != int64(i+1) || e.Source != "/waybill/shipping" || e.Tenant != 1 || e.Traceparent == "" {
			t.Errorf("event %d of %s is %+v", i+1, id, e)
		}
		if e.Type != event.ShippingProgress {
			types = append(types, string(e.Type))
		}
	}
	if diff := cmp.Diff([]string{"shipping.requested", last}, types); diff != "" {
		t.Errorf("%s (-want +got):\n%s", id, diff)
	}
}
