package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/libs/testkit"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	"github.com/waybill-dev/waybill/services/payment/internal/httpapi"
	"github.com/waybill-dev/waybill/services/payment/internal/intake"
	"github.com/waybill-dev/waybill/services/payment/internal/payment"
	"github.com/waybill-dev/waybill/services/payment/internal/postgres"
	"github.com/waybill-dev/waybill/services/payment/internal/processor"
	"github.com/waybill-dev/waybill/services/payment/internal/provider"
	"github.com/waybill-dev/waybill/services/payment/internal/provider/providertest"
)

func TestMain(m *testing.M) {
	problem.Classify(httpapi.Classify)
	goleak.VerifyTestMain(m)
}

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// events counts what is published; its order is the processor's tests' business.
type events struct {
	mu  sync.Mutex
	all []event.Event
}

func (e *events) Add(u *pg.Unit, add ...event.Event) {
	u.AfterCommit(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.all = append(e.all, add...)
	})
}

func (e *events) count(t event.Type, orderID string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.all {
		if x.Type == t && x.Subject == orderID {
			n++
		}
	}
	return n
}

type world struct {
	t        *testing.T
	pool     *pgxpool.Pool
	provider *providertest.Server
	events   *events
	in       *intake.Intake
	issuer   *testkit.Issuer
	contract *testkit.Contract
	handlers []http.Handler // of the replicas
	turn     atomic.Int64
}

func setup(t *testing.T) *world {
	t.Helper()
	pool, _ := testkit.Postgres(t, inbox.Migrations, postgres.Migrations)
	w := &world{t: t, pool: pool, provider: providertest.New(t), events: &events{}, issuer: testkit.Identity(t),
		contract: testkit.OpenAPI(t, "../../openapi.yaml")}
	for range 2 { // requests take turns
		w.replica()
	}
	return w
}

func (w *world) replica() {
	t := w.t
	client, err := provider.NewClient(w.provider.URL, provider.Transport(8))
	if err != nil {
		t.Fatal(err)
	}
	store := postgres.New(w.pool, w.events)
	queue := processor.New(store, client, testkit.Log(t), prometheus.NewRegistry())
	in := intake.New(store, queue)
	w.in = in
	people := inbox.New(inbox.Options{Group: "payment-service", Pool: w.pool, Wants: intake.Wants, Handler: in.Events,
		Redrive: map[string]func(context.Context, *pg.Unit, uuid.UUID, string) error{postgres.RefundIntervention: in.RefundAgain},
		Log:     testkit.Log(t), Registry: prometheus.NewRegistry()})
	store.Attach(people)
	document, err := os.ReadFile("../../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	h, err := httpapi.New(httpapi.Options{Payments: store, Intake: in, Provider: queue, WebhookSecret: secret,
		Auth: w.issuer.Verifier("payment").Middleware, Interventions: people.Routes(), OpenAPI: document})
	if err != nil {
		t.Fatal(err)
	}
	w.handlers = append(w.handlers, w.contract.Wrap(t, h))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = queue.Run(ctx) })
	running.Go(func() { _ = in.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait(); client.CloseIdle() })
}

// order has the service read events of an order.
func (w *world) order(id string, events ...event.Event) {
	w.t.Helper()
	created := event.New(context.Background(), event.OrderCreated, id, 1, 1,
		&orderv1.OrderCreated{OrderId: id, Amount: 5990, Currency: "EUR", PaymentMethod: "card", Customer: "customer"})
	err := pg.Do(context.Background(), w.pool, func(ctx context.Context, u *pg.Unit) error {
		return w.in.Events(ctx, u, append([]event.Event{created}, events...))
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func later(t event.Type, id string, m proto.Message) event.Event {
	return event.New(context.Background(), t, id, 1, 2, m)
}

type answer struct {
	*http.Response
	body string
}

func (w *world) do(method, path, token, body string, headers ...string) answer {
	w.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
		} else {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	rec := httptest.NewRecorder()
	w.handlers[int(w.turn.Add(1))%len(w.handlers)].ServeHTTP(rec, r)
	resp := rec.Result()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{resp, string(b)}
}

func (w *world) expect(a answer, status int, slug string) {
	w.t.Helper()
	if a.StatusCode != status {
		w.t.Errorf("%d, want %d: %s", a.StatusCode, status, a.body)
		return
	}
	if slug == "" {
		return
	}
	var p struct{ Type string }
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || p.Type != "urn:problem:"+slug {
		w.t.Errorf("type %q, want %s (%v)", p.Type, slug, err)
	}
}

func (w *world) users() (customer, merchant, operator, stranger, foreign string) {
	return w.issuer.UserToken("customer", 1, "customer"), w.issuer.UserToken("merchant", 1, "merchant"),
		w.issuer.UserToken("operator", 1, "operator"), w.issuer.UserToken("somebody", 1, "customer"),
		w.issuer.UserToken("merchant2", 2, "merchant")
}

const good = `{"order_id":"o-1","amount":59.90,"payment_method":"card"}`

// TestAPI sends every documented answer through the document.
func TestAPI(t *testing.T) {
	w := setup(t)
	customer, merchant, operator, stranger, foreign := w.users()
	nobody := w.issuer.UserToken("nobody", 1)

	t.Run("payments", func(t *testing.T) {
		w.expect(w.do("POST", "/payments", customer, good), 404, "not-found") // order.created was not read yet
		w.order("o-1")
		w.expect(w.do("GET", "/payments/o-1", customer, ""), 404, "not-found") // no payment yet
		w.expect(w.do("POST", "/payments", "", good), 401, "unauthenticated")
		w.expect(w.do("POST", "/payments", nobody, good), 403, "forbidden")
		w.expect(w.do("POST", "/payments", w.issuer.ServiceToken("order", "payment"), good), 403, "forbidden")
		w.expect(w.do("POST", "/payments", stranger, good), 404, "not-found")
		w.expect(w.do("POST", "/payments", foreign, good), 404, "not-found")
		w.expect(w.do("POST", "/payments", customer, strings.Replace(good, "59.90", "59.91", 1)), 422, "amount-mismatch")
		w.expect(w.do("POST", "/payments", customer, strings.Replace(good, `"payment`, `"currency":"USD","payment`, 1)), 422, "amount-mismatch")

		first := w.do("POST", "/payments", customer, good)
		w.expect(first, 202, "")
		if l := first.Header.Get("Location"); l != "/payments/o-1" {
			t.Errorf("Location %q", l)
		}
		if d := cmp.Diff(`{"order_id":"o-1","status":"initiated","amount":59.90,"currency":"EUR","payment_method":"card","attempts":0,"refunded":0.00}`+"\n", first.body); d != "" {
			t.Error(d)
		}
		again := w.do("POST", "/payments", customer, strings.Replace(good, "59.90", "59.9", 1))
		w.expect(again, 202, "")
		if again.body != first.body || again.Header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("replayed %q: %s", again.Header.Get("Idempotent-Replayed"), again.body)
		}
		w.await("o-1", "captured")
		// Another caller, and another key: the first one's outcome.
		second := w.do("POST", "/payments", merchant, good, "Idempotency-Key", "k-1")
		w.expect(second, 202, "")
		if !strings.Contains(second.body, `"status":"captured"`) {
			t.Errorf("the second caller gets %s", second.body)
		}
		w.expect(w.do("POST", "/payments", merchant, strings.Replace(good, "59.90", "1", 1), "Idempotency-Key", "k-1"), 422, "idempotency-key-reused")
		w.expect(w.do("POST", "/payments", customer, good, "Idempotency-Key", `"k-2"`), 202, "")
		w.expect(w.do("POST", "/payments", customer, good, "Idempotency-Key", "a b"), 400, "idempotency-key-invalid")
		if n := w.provider.Calls(providertest.Charge, "o-1"); n != 1 {
			t.Errorf("%d charge calls", n)
		}
		if n := w.events.count(event.PaymentInitiated, "o-1"); n != 1 {
			t.Errorf("initiated %d times", n)
		}

		w.order("o-2", later(event.OrderFailed, "o-2", &orderv1.OrderFailed{OrderId: "o-2", Amount: 5990, Currency: "EUR"}))
		w.expect(w.do("POST", "/payments", customer, strings.Replace(good, "o-1", "o-2", 1)), 409, "order-closed")

		for _, token := range []string{customer, merchant, operator, w.issuer.ServiceToken("order", "payment")} {
			a := w.do("GET", "/payments/o-1", token, "")
			w.expect(a, 200, "")
			if d := cmp.Diff(`{"order_id":"o-1","status":"captured","amount":59.90,"currency":"EUR","payment_method":"card","attempts":1,"refunded":0.00}`+"\n", a.body); d != "" {
				t.Error(d)
			}
		}
		for _, token := range []string{stranger, foreign, nobody, w.issuer.ServiceToken("shipping", "payment")} {
			w.expect(w.do("GET", "/payments/o-1", token, ""), 404, "not-found")
		}
		w.expect(w.do("GET", "/payments/o-1", "", ""), 401, "unauthenticated")
		w.expect(w.do("GET", "/payments/o%201", operator, ""), 400, "invalid-field")
		w.expect(w.do("GET", "/payments/o-1?x=1", operator, ""), 400, "unknown-parameter")
		w.expect(w.do("GET", "/openapi.yaml", "", ""), 200, "")
	})

	t.Run("bad input", func(t *testing.T) {
		w.t = t
		for name, c := range map[string]struct {
			body   string
			status int
			slug   string
		}{
			"empty":                {" ", 400, "malformed-json"},
			"truncated":            {`{"order_id":`, 400, "malformed-json"},
			"array":                {`[]`, 400, "malformed-json"},
			"null":                 {`null`, 400, "malformed-json"},
			"null member":          {`{"order_id":null,"amount":1,"payment_method":"card"}`, 400, "malformed-json"},
			"trailing value":       {good + "{}", 400, "malformed-json"},
			"duplicate name":       {`{"order_id":"o-1","order_id":"o-1","amount":59.90,"payment_method":"card"}`, 400, "malformed-json"},
			"wrong case":           {`{"Order_id":"o-1","amount":59.90,"payment_method":"card"}`, 400, "unknown-field"},
			"unknown member":       {`{"order_id":"o-1","amount":59.90,"payment_method":"card","x":1}`, 400, "unknown-field"},
			"invalid UTF-8":        {"{\"order_id\":\"\xff\",\"amount\":59.90,\"payment_method\":\"card\"}", 400, "malformed-json"},
			"NUL":                  {`{"order_id":"\u0000","amount":59.90,"payment_method":"card"}`, 400, "malformed-json"},
			"amount a string":      {`{"order_id":"o-1","amount":"59.90","payment_method":"card"}`, 400, "invalid-type"},
			"amount a bool":        {`{"order_id":"o-1","amount":true,"payment_method":"card"}`, 400, "invalid-type"},
			"amount an object":     {`{"order_id":"o-1","amount":{},"payment_method":"card"}`, 400, "invalid-type"},
			"amount with exponent": {`{"order_id":"o-1","amount":1e2,"payment_method":"card"}`, 400, "invalid-type"},
			"amount -0":            {`{"order_id":"o-1","amount":-0,"payment_method":"card"}`, 400, "invalid-type"},
			"amount negative":      {`{"order_id":"o-1","amount":-1,"payment_method":"card"}`, 422, "invalid-field"},
			"amount 0":             {`{"order_id":"o-1","amount":0,"payment_method":"card"}`, 422, "invalid-field"},
			"amount too precise":   {`{"order_id":"o-1","amount":59.901,"payment_method":"card"}`, 422, "invalid-field"},
			"amount too large":     {`{"order_id":"o-1","amount":99999999999999999999999999,"payment_method":"card"}`, 422, "invalid-field"},
			"amount missing":       {`{"order_id":"o-1","payment_method":"card"}`, 422, "invalid-field"},
			"order_id a number":    {`{"order_id":1,"amount":59.90,"payment_method":"card"}`, 400, "invalid-type"},
			"order_id empty":       {`{"order_id":"","amount":59.90,"payment_method":"card"}`, 422, "invalid-field"},
			"order_id missing":     {`{"amount":59.90,"payment_method":"card"}`, 422, "invalid-field"},
			"order_id injection":   {`{"order_id":"' OR 1=1","amount":59.90,"payment_method":"card"}`, 422, "invalid-field"},
			"order_id too long":    {`{"order_id":"` + strings.Repeat("a", 65) + `","amount":59.90,"payment_method":"card"}`, 422, "invalid-field"},
			"unknown method":       {`{"order_id":"o-1","amount":59.90,"payment_method":"cash"}`, 422, "invalid-field"},
			"card number":          {`{"order_id":"o-1","amount":59.90,"payment_method":"4111 1111 1111 1111"}`, 422, "pan-not-allowed"},
			"bad currency":         {`{"order_id":"o-1","amount":59.90,"payment_method":"card","currency":"eur"}`, 422, "invalid-field"},
			"too large":            {`{"order_id":"` + strings.Repeat("a", 70_000) + `"}`, 413, "body-too-large"},
		} {
			t.Run(name, func(t *testing.T) {
				w.t = t
				a := w.do("POST", "/payments", customer, c.body)
				w.expect(a, c.status, c.slug)
				if strings.Contains(a.body, "4111") {
					t.Error("the card number is echoed")
				}
			})
		}
		w.t = t
		w.expect(w.do("POST", "/payments", customer, good, "Content-Type", "text/plain"), 415, "unsupported-media-type")
		w.expect(w.do("POST", "/payments", customer, good, "Content-Type", ""), 415, "unsupported-media-type")
		w.expect(w.do("POST", "/payments", customer, good, "Content-Encoding", "gzip"), 415, "unsupported-media-type")
		w.expect(w.do("POST", "/payments?a=1", customer, good), 400, "unknown-parameter")
		w.expect(w.do("DELETE", "/payments", customer, ""), 405, "method-not-allowed")
		w.expect(w.do("GET", "/nothing", customer, ""), 404, "not-found")
	})
	w.t = t

	t.Run("webhooks", func(t *testing.T) {
		w.t = t
		body := func(kind, id string, data string) string {
			return fmt.Sprintf(`{"type":%q,"data":{"key":"%s","order_id":%q%s}}`, kind, payment.ChargeKey(id), id, data)
		}
		captured := body("charge.captured", "o-1", `,"id":"ch_o-1","amount":5990,"currency":"EUR","status":"captured","more":true`)
		now := time.Now()
		w.expect(w.hook("wh-1", now, captured, captured), 200, "")
		w.expect(w.hook("wh-1", now, captured, captured), 200, "")
		unknown := body("charge.captured", "never-heard-of", `,"amount":1,"currency":"EUR"`)
		w.expect(w.hook("wh-2", now, unknown, unknown), 202, "")
		other := `{"type":"account.updated","data":{}}`
		w.expect(w.hook("wh-3", now, other, other), 202, "")
		amount := body("charge.captured", "o-1", `,"amount":1,"currency":"EUR"`)
		w.expect(w.hook("wh-4", now, amount, amount), 202, "")
		w.expect(w.hook("wh-5", now, captured, captured+" "), 401, "invalid-signature")
		w.expect(w.hook("wh-6", now.Add(-6*time.Minute), captured, captured), 401, "stale-webhook")
		w.expect(w.hook("wh-7", now.Add(6*time.Minute), captured, captured), 401, "stale-webhook")
		w.expect(w.do("POST", "/webhooks/payments", "", captured), 401, "invalid-signature")
		w.expect(w.hook("wh-8", now, `{"type":1}`, `{"type":1}`), 400, "malformed-json")
		key := strings.Replace(captured, "o-1:charge", "o-2:charge", 1)
		w.expect(w.hook("wh-9", now, key, key), 422, "invalid-field")
		refund := `{"type":"refund.refunded","data":{"key":"o-1:refund:x","order_id":"o-1"}}`
		w.expect(w.hook("wh-10", now, refund, refund), 422, "invalid-field")
		w.expect(w.do("POST", "/webhooks/payments", "", captured, "Content-Type", "text/plain"), 415, "unsupported-media-type")
		w.expect(w.do("POST", "/webhooks/payments", "", strings.Repeat("a", 70_000)), 413, "body-too-large")
		if d := cmp.Diff([]string{"capture"}, w.provider.Kinds("o-1")); d != "" {
			t.Error(d)
		}
		if n := w.events.count(event.PaymentProcessed, "o-1"); n != 1 {
			t.Errorf("processed %d times", n)
		}
	})

	t.Run("a webhook is faster than the call", func(t *testing.T) {
		w.t = t
		gate := make(chan struct{})
		w.provider.Inject(providertest.Charge, "o-3", providertest.Fault{Gate: gate})
		w.order("o-3", later(event.OrderPaymentRequested, "o-3", &orderv1.OrderPaymentRequested{OrderId: "o-3", Amount: 5990, Currency: "EUR", PaymentMethod: "card"}))
		testkit.Eventually(t, 5*time.Second, func() bool { return w.provider.Calls(providertest.Charge, "o-3") == 1 }, "no call")
		told := `{"type":"charge.captured","data":{"id":"ch_o-3","key":"o-3:charge","order_id":"o-3","amount":5990,"currency":"EUR"}}`
		w.expect(w.hook("wh-20", time.Now(), told, told), 200, "")
		w.await("o-3", "captured")
		close(gate)
		testkit.Eventually(t, 5*time.Second, func() bool { return len(w.provider.Kinds("o-3")) == 1 }, "no charge")
		if a := w.do("GET", "/payments/o-3", operator, ""); !strings.Contains(a.body, `"attempts":1`) {
			t.Errorf("%s", a.body)
		}
		if n := w.events.count(event.PaymentProcessed, "o-3"); n != 1 {
			t.Errorf("processed %d times", n)
		}
	})

	t.Run("interventions", func(t *testing.T) {
		w.t = t
		w.provider.Inject(providertest.Refund, "o-1", providertest.Fault{Refuse: true})
		err := pg.Do(t.Context(), w.pool, func(ctx context.Context, u *pg.Unit) error {
			return w.in.Events(ctx, u, []event.Event{later(event.OrderCancelled, "o-1", &orderv1.OrderCancelled{OrderId: "o-1", Amount: 5990, Currency: "EUR"})})
		})
		if err != nil {
			t.Fatal(err)
		}
		var page struct {
			Items []struct{ ID, Subject, Kind string }
		}
		testkit.Eventually(t, 10*time.Second, func() bool {
			a := w.do("GET", "/interventions?kind=refund_failed", operator, "")
			return json.Unmarshal([]byte(a.body), &page) == nil && len(page.Items) == 1
		}, "nobody is called")
		at := "/interventions/" + page.Items[0].ID
		w.expect(w.do("GET", "/interventions?limit=0", operator, ""), 400, "")
		for _, c := range [][2]string{{"GET", "/interventions"}, {"GET", at}, {"POST", at + "/redrive"}, {"POST", at + "/discard"}} {
			w.expect(w.do(c[0], c[1], "", `{"reason":"x"}`), 401, "unauthenticated")
			w.expect(w.do(c[0], c[1], customer, `{"reason":"x"}`), 403, "forbidden")
		}
		none := "/interventions/" + uuid.NewString()
		for _, c := range [][2]string{{"GET", none}, {"POST", none + "/redrive"}, {"POST", none + "/discard"}} {
			w.expect(w.do(c[0], c[1], operator, `{"reason":"x"}`), 404, "not-found")
		}
		for _, verb := range []string{"/redrive", "/discard"} {
			w.expect(w.do("POST", at+verb, operator, `{`), 400, "malformed-json")
			w.expect(w.do("POST", at+verb, operator, `{"reason":"x"}`, "Content-Type", "text/plain"), 415, "unsupported-media-type")
			w.expect(w.do("POST", at+verb, operator, `{"reason":"`+strings.Repeat("x", 501)+`"}`), 422, "invalid-field")
		}
		for _, many := range []string{"/interventions/redrive", "/interventions/discard"} {
			w.expect(w.do("POST", many, operator, `{`), 400, "malformed-json")
			w.expect(w.do("POST", many, "", `{}`), 401, "unauthenticated")
			w.expect(w.do("POST", many, customer, `{}`), 403, "forbidden")
			w.expect(w.do("POST", many, operator, `{}`, "Content-Type", "text/plain"), 415, "unsupported-media-type")
			w.expect(w.do("POST", many, operator, `{}`), 422, "invalid-field")
			w.expect(w.do("POST", many, operator, `{"kind":"gap","reason":"x"}`), 200, "")
		}
		w.expect(w.do("GET", at, operator, ""), 200, "")
		w.expect(w.do("POST", at+"/redrive", operator, `{"dry_run":true}`), 200, "")
		w.expect(w.do("POST", at+"/redrive", operator, `{"reason":"the bank has opened again"}`), 200, "")
		w.await("o-1", "refunded")
		w.expect(w.do("POST", at+"/discard", operator, `{"reason":"done"}`), 200, "")
		if d := cmp.Diff([]string{"capture", "refund_failed", "refund"}, w.provider.Kinds("o-1")); d != "" {
			t.Error(d)
		}
	})

	t.Run("database does not answer", func(t *testing.T) {
		w.t = t
		lock, err := w.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = lock.Rollback(context.Background()) }()
		if _, err := lock.Exec(t.Context(), `LOCK TABLE payments, known_orders`); err != nil {
			t.Fatal(err)
		}
		voided := `{"type":"charge.voided","data":{"key":"o:charge","order_id":"o"}}`
		for _, do := range []func() answer{
			func() answer { return w.do("GET", "/payments/o-1", operator, "") },
			func() answer { return w.do("POST", "/payments", customer, good) },
			func() answer { return w.hook("wh-99", time.Now(), voided, voided) },
		} {
			t.Run("", func(t *testing.T) {
				a := do()
				w.expect(a, 503, "unavailable")
				if a.Header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
			})
		}
	})
	w.contract.Complete(t)
}

// hook sends a webhook whose signature was made over signed.
func (w *world) hook(id string, at time.Time, signed, sent string) answer {
	w.t.Helper()
	s, err := webhooks.NewWebhook(secret)
	if err != nil {
		w.t.Fatal(err)
	}
	signature, err := s.Sign(id, at, []byte(signed))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.do("POST", "/webhooks/payments", "", sent, "webhook-id", id, "webhook-timestamp", strconv.FormatInt(at.Unix(), 10), "webhook-signature", signature)
}

func (w *world) await(id, status string) {
	w.t.Helper()
	operator := w.issuer.UserToken("operator", 1, "operator")
	testkit.Eventually(w.t, 10*time.Second, func() bool {
		return strings.Contains(w.do("GET", "/payments/"+id, operator, "").body, `"status":"`+status+`"`)
	}, id+" never becomes "+status)
}

// TestConcurrentRequests: many callers at once, one payment, one charge, and each gets an answer.
func TestConcurrentRequests(t *testing.T) {
	w := setup(t)
	customer, merchant, _, _, _ := w.users()
	w.order("o-1")
	var mu sync.Mutex
	bodies := map[string]int{}
	var all sync.WaitGroup
	all.Go(func() { // the order asks as well
		asked := later(event.OrderPaymentRequested, "o-1", &orderv1.OrderPaymentRequested{OrderId: "o-1", Amount: 5990, Currency: "EUR", PaymentMethod: "card"})
		if err := pg.Do(context.Background(), w.pool, func(ctx context.Context, u *pg.Unit) error {
			return w.in.Events(ctx, u, []event.Event{asked})
		}); err != nil {
			t.Error(err)
		}
	})
	for n := range 40 {
		all.Go(func() {
			token, key := customer, "same"
			if n%4 == 0 {
				token, key = merchant, strconv.Itoa(n)
			}
			a := w.do("POST", "/payments", token, good, "Idempotency-Key", key)
			w.expect(a, 202, "")
			if n%4 != 0 {
				mu.Lock()
				bodies[a.body]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	w.await("o-1", "captured")
	if len(bodies) != 1 {
		t.Errorf("the same key has %d answers: %v", len(bodies), bodies)
	}
	if n := w.provider.Calls(providertest.Charge, "o-1"); n != 1 {
		t.Errorf("%d charge calls", n)
	}
	if n := w.events.count(event.PaymentInitiated, "o-1"); n != 1 {
		t.Errorf("initiated %d times", n)
	}
}

func TestNewRefusesABadSecret(t *testing.T) {
	if _, err := httpapi.New(httpapi.Options{WebhookSecret: "not base64!"}); err == nil || bytes.Contains([]byte(err.Error()), []byte("not base64!")) {
		t.Errorf("error %v", err)
	}
}
