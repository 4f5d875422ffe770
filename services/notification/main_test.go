package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sethvargo/go-envconfig"
	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/libs/testkit"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	paymentv1 "github.com/waybill-dev/waybill/proto/gen/waybill/payment/v1"
)

// postman is a mail server that behaves badly: to addresses at flaky.example it says "later" at the first attempt, to those
// at lying.example it says so after it has taken the message, and at gone.example nobody lives.
type postman struct {
	addr string
	mu   sync.Mutex
	seen map[string]int      // attempts by recipient and message
	got  map[string][]letter // by recipient
}

type letter struct{ id, subject string }

func newPostman(t *testing.T) *postman {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &postman{addr: l.Addr().String(), seen: map[string]int{}, got: map[string][]letter{}}
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &round{postman: p}, nil }))
	s.Domain = "localhost"
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return p
}

type round struct {
	*postman
	to string
}

func (r *round) Reset()                               { r.to = "" }
func (r *round) Logout() error                        { return nil }
func (r *round) Mail(string, *smtp.MailOptions) error { return nil }
func (r *round) Rcpt(to string, _ *smtp.RcptOptions) error {
	r.to = to
	switch {
	case strings.HasSuffix(to, "@gone.example"):
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "nobody called " + to}
	case strings.HasSuffix(to, "@flaky.example"):
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.seen[to]++; r.seen[to] == 1 {
			return &smtp.SMTPError{Code: 451, Message: "later, " + to}
		}
	}
	return nil
}

func (r *round) Data(body io.Reader) error {
	m, err := mail.ReadMessage(body)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, m.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	id := m.Header.Get("Message-Id")
	r.got[r.to] = append(r.got[r.to], letter{id, m.Header.Get("Subject")})
	if r.seen[id]++; strings.HasSuffix(r.to, "@lying.example") && r.seen[id] == 1 {
		return &smtp.SMTPError{Code: 451, Message: "did happen, caller told otherwise"}
	}
	return nil
}

// start runs a replica of the service, waits until it is ready and returns its address.
func start(t *testing.T, env map[string]string) (addr string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	services, done := make(chan *service.Service, 1), make(chan error, 1)
	go func() {
		done <- service.Run(ctx, "notification", envconfig.MapLookuper(env), func(ctx context.Context, s *service.Service, cfg Config) error {
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

// story is what the topics say of an order, in the order of its events, and what its customer is to hear.
func story(id, kind, to string) (events []event.Event, want []string) {
	first := event.New(context.Background(), event.OrderCreated, id, 1, 1, &orderv1.OrderCreated{OrderId: id, Email: to})
	say := func(e event.Event, source string) {
		e.Source = source
		events = append(events, e)
	}
	seq := int64(1)
	order := func(typ event.Type, m proto.Message) {
		seq++
		say(first.Next(typ, id, seq, m), "/waybill/order")
	}
	say(first, "/waybill/order")
	say(first.Next(event.PaymentInitiated, id, 1, &paymentv1.PaymentInitiated{OrderId: id}), "/waybill/payment")
	items := []*orderv1.Item{{ProductId: "sku-0001", Quantity: 1}}
	switch kind {
	case "completed":
		order(event.OrderPaymentRequested, &orderv1.OrderPaymentRequested{Email: to})
		order(event.OrderPaymentProcessed, &orderv1.OrderPaymentProcessed{Email: to, Items: items, Currency: "EUR", Amount: 5990})
		order(event.OrderCompleted, &orderv1.OrderCompleted{Email: to, Currency: "EUR", Amount: 5990})
		want = []string{"is confirmed", "is complete"}
	case "charge-only":
		order(event.OrderPaymentProcessed, &orderv1.OrderPaymentProcessed{Email: to, Currency: "EUR", Amount: 5990})
		order(event.OrderCompleted, &orderv1.OrderCompleted{Email: to, Currency: "EUR", Amount: 5990})
		want = []string{"is complete"}
	case "failed":
		order(event.OrderFailed, &orderv1.OrderFailed{Email: to, Reason: "out_of_stock", Currency: "EUR", Amount: 5990})
		want = []string{"could not be accepted"}
	}
	return events, want
}

// TestService runs two replicas between a broker, a database and a mail server with moods. Every event comes twice, and each
// customer hears each thing once (twice, under one Message-ID, from the server that lies), in order.
func TestService(t *testing.T) {
	_, url := testkit.Postgres(t)
	brokers, _ := testkit.Kafka(t)
	issuer := testkit.Identity(t)
	p := newPostman(t)
	env := map[string]string{
		"HTTP_ADDR": "127.0.0.1:0", "DATABASE_URL": url, "KAFKA_BROKERS": strings.Join(brokers, ","), "JWKS_URL": issuer.JWKSURL,
		"WAYBILL_SERVICE_JWKS": issuer.ServiceJWKSFile(), "SMTP_ADDR": p.addr, "MAIL_FROM": "orders@waybill.example", "LOG_LEVEL": "error",
	}
	addr, _ := start(t, env)
	_, stopOther := start(t, env)
	producer, err := stream.NewProducer(t.Context(), stream.Config{
		Brokers: brokers, ClientID: "test", Log: testkit.Log(t), Registry: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()

	want := map[string][]string{}
	send := func(round string) {
		var ms []stream.Message
		for _, kind := range []string{"completed", "charge-only", "failed"} {
			for _, domain := range []string{"fine.example", "flaky.example", "lying.example", "gone.example"} {
				id := kind + "-" + strings.TrimSuffix(domain, ".example") + "-" + round
				to := id + "@" + domain
				events, subjects := story(id, kind, to)
				for _, e := range events {
					ms = append(ms, stream.Encode(e), stream.Encode(e)) // at least once
				}
				want[to] = nil
				for _, s := range subjects {
					want[to] = append(want[to], "Your order "+id+" "+s)
				}
				if domain == "gone.example" {
					delete(want, to)
				}
			}
		}
		if err := producer.Send(t.Context(), ms); err != nil {
			t.Fatal(err)
		}
	}
	heard := func() map[string][]string {
		p.mu.Lock()
		defer p.mu.Unlock()
		out := map[string][]string{}
		for to, letters := range p.got {
			ids := map[string]bool{}
			for _, l := range letters {
				if !ids[l.id] { // one id, one message
					ids[l.id] = true
					out[to] = append(out[to], l.subject)
				}
			}
		}
		return out
	}
	send("1")
	testkit.Eventually(t, 30*time.Second, func() bool { return len(heard()) > 0 }, "the first customer is told")
	stopOther()
	send("2")
	testkit.Eventually(t, 60*time.Second, func() bool { return cmp.Equal(want, heard()) }, "everybody is told everything, once and in order")

	operator := issuer.UserToken("operator", 1, "operator")
	var gone int
	testkit.Eventually(t, 30*time.Second, func() bool {
		_, body := get(t, addr, "/interventions?kind=mail_undelivered&status=open&limit=100", operator)
		gone = strings.Count(body, `"kind":"mail_undelivered"`)
		if strings.Contains(body, "@gone.example") {
			t.Fatalf("an address stands in an intervention: %s", body)
		}
		return gone == 6
	}, "a person is asked for each order whose customer cannot be told")
	// The last of them may still wait for its second try.
	testkit.Eventually(t, 30*time.Second, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		lied := 0
		for to, letters := range p.got {
			if strings.HasSuffix(to, "@lying.example") && len(letters) > len(want[to]) {
				lied++
			}
		}
		return lied == 6
	}, "each customer of the server that lies gets a message twice: else the fault was not met")
	status, body := get(t, addr, "/notifications?order_id=completed-flaky-1", operator)
	if status != 200 || strings.Count(body, `"status":"sent"`) != 2 || !strings.Contains(body, `"recipient":"c***@flaky.example"`) {
		t.Errorf("GET answers %d %s", status, body)
	}
}

func get(t *testing.T, addr, path, token string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s%s", addr, path), nil)
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
