package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/scripts/sandbox/internal/carrier"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/fault"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/httpapi"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/ledger"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/mailbox"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/provider"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// hook is a webhook as the receiver sees it.
type hook struct {
	id   string
	Type string
	Data struct {
		Key, Status, Reason, Tracking string
		OrderID                       string `json:"order_id"`
	}
}

// sandbox is one that runs; stop and start make it run again on the same data.
type sandbox struct {
	t      *testing.T
	dir    string
	pace   time.Duration
	server *httptest.Server
	stop   func()

	receiver *httptest.Server
	mu       sync.Mutex
	hooks    []hook
}

func setup(t *testing.T, pace time.Duration) *sandbox {
	t.Helper()
	b := &sandbox{t: t, dir: t.TempDir(), pace: pace}
	verify, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	b.receiver = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := verify.Verify(body, r.Header); err != nil {
			t.Errorf("a webhook is not signed: %v", err)
		}
		h := hook{id: r.Header.Get("webhook-id")}
		if err := json.Unmarshal(body, &h); err != nil {
			t.Errorf("read a webhook: %v", err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.hooks = append(b.hooks, h)
	}))
	t.Cleanup(b.receiver.Close)
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *sandbox) start() {
	b.t.Helper()
	faults := &fault.Set{}
	registry := prometheus.NewRegistry()
	sender := func(name string) *webhook.Sender {
		s, err := webhook.New(webhook.Options{Name: name, URL: b.receiver.URL, Secret: secret, Faults: faults, Log: zap.NewNop(), Registry: registry})
		if err != nil {
			b.t.Fatal(err)
		}
		return s
	}
	api := &httpapi.API{Payments: sender("payment"), Shipping: sender("shipping"), Faults: faults, Provider: provider.New()}
	api.Carrier = carrier.New(b.pace, api.ReportParcel)
	var err, mailErr error
	api.Ledger, err = ledger.Open(b.dir, func(e ledger.Entry) { api.Provider.Replay(e); api.Carrier.Replay(e) })
	api.Mailbox, mailErr = mailbox.Open(b.dir)
	if err := errors.Join(err, mailErr); err != nil {
		b.t.Fatal(err)
	}
	api.Provider.Use(api.Ledger)
	api.Carrier.Use(api.Ledger)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{api.Payments.Run, api.Shipping.Run, api.Carrier.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				b.t.Error(err)
			}
		})
	}
	b.server = httptest.NewServer(api.Routes())
	b.stop = func() {
		b.server.CloseClientConnections()
		b.server.Close()
		cancel()
		running.Wait()
		_ = api.Ledger.Close()
		_ = api.Mailbox.Close()
		b.stop = func() {}
	}
}

// call sends a request with a patience of its own; status 0 means that no answer came.
func (b *sandbox) call(patience time.Duration, method, path string, body any) (int, map[string]any) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	raw, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(ctx, method, b.server.URL+path, bytes.NewReader(raw))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		if !errors.Is(err, context.DeadlineExceeded) {
			b.t.Fatal(err)
		}
		return 0, nil
	}
	defer resp.Body.Close()
	var out map[string]any
	if resp.StatusCode != http.StatusNoContent {
		if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
			b.t.Fatalf("%s %s: status %d: %v", method, path, resp.StatusCode, err)
		}
	}
	return resp.StatusCode, out
}

func (b *sandbox) charge(patience time.Duration, order, method string) (int, map[string]any) {
	b.t.Helper()
	return b.call(patience, "POST", "/provider/charges",
		map[string]any{"key": order + ":charge", "order_id": order, "amount": 5990, "currency": "EUR", "method": method})
}

func (b *sandbox) ship(patience time.Duration, order, city string) (int, map[string]any) {
	b.t.Helper()
	return b.call(patience, "POST", "/carrier/shipments", map[string]any{
		"key": order + ":ship:1", "order_id": order, "attempt": 1, "address": map[string]string{"city": city},
		"items": []any{map[string]any{"product_id": "sku-0001", "quantity": 2}},
	})
}

func (b *sandbox) facts(order string) []string {
	b.t.Helper()
	_, out := b.call(patient, "GET", "/ledger?limit=10000", nil)
	kinds := []string{}
	for _, x := range out["items"].([]any) {
		if e := x.(map[string]any); e["order_id"] == order {
			kinds = append(kinds, e["kind"].(string))
		}
	}
	return kinds
}

func (b *sandbox) hooked(order, typ string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.hooks, func(h hook) bool { return h.Data.OrderID == order && h.Type == typ })
}

func (b *sandbox) eventually(what string, cond func() bool) {
	b.t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			b.t.Fatalf("not within 10 s: %s", what)
		case <-tick.C:
		}
	}
}

const (
	patient   = 10 * time.Second
	impatient = 100 * time.Millisecond
)

func TestChargeTestValues(t *testing.T) {
	b := setup(t, 0)
	tests := []struct {
		method   string
		patience time.Duration
		answers  []int  // to one charge after the other
		status   string // of the last answer, or of asking where that was none
		facts    []string
	}{
		{"card", patient, []int{200, 200}, "captured", []string{"capture"}},
		{"card_declined", patient, []int{200, 200}, "declined", []string{"decline"}},
		{"card_flaky", patient, []int{503, 503, 200, 200}, "captured", []string{"capture"}},
		{"card_down", patient, []int{503, 503, 503, 503}, "", nil},
		{"card_timeout", impatient, []int{0}, "captured", []string{"capture"}},
		{"card_slow", impatient, []int{0, 200}, "captured", []string{"capture"}},
		{"gold", patient, []int{200}, "declined", []string{"decline"}},
	}
	for _, tt := range tests {
		t.Run(tt.method, func(t *testing.T) {
			order := "o-" + tt.method
			for i, want := range tt.answers {
				if got, _ := b.charge(tt.patience, order, tt.method); got != want {
					t.Fatalf("charge %d answers %d, want %d", i+1, got, want)
				}
			}
			code, out := b.call(patient, "GET", "/provider/charges/"+url.PathEscape(order+":charge"), nil)
			if tt.status == "" {
				if code != 404 {
					t.Errorf("asking answers %d, want 404: nothing was charged", code)
				}
			} else if out["status"] != tt.status {
				t.Errorf("asking answers %d %v, want %s", code, out, tt.status)
			}
			if got := b.facts(order); !slices.Equal(got, tt.facts) {
				t.Errorf("the ledger has %v, want %v", got, tt.facts)
			}
			if slices.Contains(tt.answers, 0) {
				b.eventually("the webhook tells what the answer did not", func() bool { return b.hooked(order, "charge.captured") })
			}
		})
	}
}

func TestVoidIsATombstone(t *testing.T) {
	b := setup(t, 0)
	if code, out := b.call(patient, "POST", "/provider/charges/o-1:charge/void", nil); code != 200 || out["status"] != "voided" {
		t.Fatalf("voiding an unseen key: %d %v", code, out)
	}
	if code, out := b.charge(patient, "o-1", "card"); code != 200 || out["status"] != "voided" {
		t.Errorf("a charge after the void: %d %v, want voided", code, out)
	}
	b.charge(patient, "o-2", "card")
	if _, out := b.call(patient, "POST", "/provider/charges/o-2:charge/void", nil); out["status"] != "captured" {
		t.Errorf("voiding a capture answers %v, want captured", out)
	}
	if got := b.facts("o-1"); !slices.Equal(got, []string{"void"}) {
		t.Errorf("the ledger has %v", got)
	}
}

func TestRefunds(t *testing.T) {
	b := setup(t, 0)
	b.charge(patient, "o-1", "card")
	b.charge(patient, "o-2", "card_declined")
	refund := func(key, order string, amount int) string {
		t.Helper()
		_, out := b.call(patient, "POST", "/provider/refunds",
			map[string]any{"key": key, "charge_key": order + ":charge", "order_id": order, "amount": amount, "currency": "EUR"})
		return out["status"].(string)
	}
	b.call(patient, "POST", "/faults", map[string]any{"target": "provider.refund", "outcome": "failed", "count": 1})
	for _, tt := range []struct {
		key, order string
		amount     int
		want       string
	}{
		{"o-1:refund:1", "o-1", 5990, "failed"}, // by the fault
		{"o-1:refund:1", "o-1", 5990, "failed"}, // the same key answers the same
		{"o-1:refund:2", "o-1", 5990, "refunded"},
		{"o-1:refund:2", "o-1", 5990, "refunded"},
		{"o-1:refund:3", "o-1", 1, "failed"}, // nothing is left
		{"o-2:refund:1", "o-2", 5990, "failed"},
	} {
		if got := refund(tt.key, tt.order, tt.amount); got != tt.want {
			t.Errorf("%s of %d: %s, want %s", tt.key, tt.amount, got, tt.want)
		}
	}
	if got, want := b.facts("o-1"), []string{"capture", "refund_failed", "refund", "refund_failed"}; !slices.Equal(got, want) {
		t.Errorf("the ledger has %v, want %v", got, want)
	}
	if code, _ := b.call(patient, "GET", "/provider/refunds/o-1:refund:9", nil); code != 404 {
		t.Errorf("asking for an unseen refund answers %d", code)
	}
}

func TestShipmentTestValues(t *testing.T) {
	b := setup(t, 5*time.Millisecond)
	tests := []struct {
		city    string
		answers []int
		final   string
		facts   []string
		hooks   []string
	}{
		{"Berlin", []int{202, 202}, "delivered", []string{"ship", "deliver"}, []string{"shipment.in_transit", "shipment.delivered"}},
		{"Nowhere", []int{422, 422}, "failed", nil, nil},
		{"Delayed", []int{503, 503, 202}, "delivered", []string{"ship", "deliver"}, []string{"shipment.delivered"}},
		{"Lost", []int{202}, "failed", []string{"ship", "ship_failed"}, []string{"shipment.failed"}},
	}
	for _, tt := range tests {
		t.Run(tt.city, func(t *testing.T) {
			order := "o-" + tt.city
			for i, want := range tt.answers {
				if got, out := b.ship(patient, order, tt.city); got != want {
					t.Fatalf("request %d answers %d %v, want %d", i+1, got, out, want)
				}
			}
			b.eventually("the parcel is "+tt.final, func() bool {
				_, out := b.call(patient, "GET", "/carrier/shipments/"+order+":ship:1", nil)
				return out["status"] == tt.final
			})
			if got := b.facts(order); !slices.Equal(got, tt.facts) {
				t.Errorf("the ledger has %v, want %v", got, tt.facts)
			}
			for _, typ := range tt.hooks {
				b.eventually("webhook "+typ, func() bool { return b.hooked(order, typ) })
			}
		})
	}
}

func TestDidHappenCallerToldOtherwise(t *testing.T) {
	b := setup(t, time.Hour)
	for _, rule := range []map[string]any{
		{"target": "provider.charge", "match": "o-1", "timeout": true, "after_effect": true, "count": 1},
		{"target": "carrier.create", "match": "o-2", "status": 500, "after_effect": true, "count": 1},
		{"target": "carrier.create", "match": "o-3", "status": 500, "count": 1},
	} {
		if code, out := b.call(patient, "POST", "/faults", rule); code != 201 {
			t.Fatalf("add a rule: %d %v", code, out)
		}
	}
	if code, _ := b.charge(impatient, "o-1", "card"); code != 0 {
		t.Errorf("the charge answers %d, want silence", code)
	}
	if code, _ := b.ship(patient, "o-2", "Berlin"); code != 500 {
		t.Errorf("the shipment answers %d, want 500", code)
	}
	if code, _ := b.ship(patient, "o-3", "Berlin"); code != 500 {
		t.Errorf("the shipment answers %d, want 500", code)
	}
	for order, want := range map[string][]string{"o-1": {"capture"}, "o-2": {"ship"}, "o-3": {}} {
		if got := b.facts(order); !slices.Equal(got, want) {
			t.Errorf("%s: the ledger has %v, want %v", order, got, want)
		}
	}
	b.eventually("the webhooks tell", func() bool { return b.hooked("o-1", "charge.captured") && b.hooked("o-2", "shipment.accepted") })
	if code, out := b.charge(patient, "o-1", "card"); code != 200 || out["status"] != "captured" {
		t.Errorf("the same key again: %d %v", code, out)
	}
}

func TestStateSurvivesARestart(t *testing.T) {
	b := setup(t, 20*time.Millisecond)
	b.charge(patient, "o-1", "card")
	b.charge(patient, "o-2", "card_flaky")
	b.call(patient, "POST", "/provider/charges/o-3:charge/void", nil)
	b.ship(patient, "o-1", "Lost")
	b.stop()
	b.start()
	if code, out := b.charge(patient, "o-1", "card_declined"); code != 200 || out["status"] != "captured" {
		t.Errorf("the key of before: %d %v", code, out)
	}
	if code, _ := b.charge(patient, "o-2", "card_flaky"); code != 503 {
		t.Errorf("the second charge of card_flaky answers %d, want 503", code)
	}
	if code, _ := b.charge(patient, "o-2", "card_flaky"); code != 200 {
		t.Errorf("the third charge of card_flaky answers %d, want 200", code)
	}
	if _, out := b.charge(patient, "o-3", "card"); out["status"] != "voided" {
		t.Errorf("a charge after the void of before: %v", out)
	}
	b.eventually("the parcel goes on and is lost", func() bool {
		_, out := b.call(patient, "GET", "/carrier/shipments/o-1:ship:1", nil)
		return out["status"] == "failed" && out["reason"] == "parcel_lost"
	})
}

func TestWebhooksComeTwiceUnderOneID(t *testing.T) {
	b := setup(t, 0)
	b.call(patient, "POST", "/faults", map[string]any{"target": "webhook", "match": "o-1", "outcome": "twice"})
	b.call(patient, "POST", "/faults", map[string]any{"target": "webhook", "match": "o-2", "outcome": "drop"})
	b.ship(patient, "o-2", "Berlin")
	b.ship(patient, "o-1", "Berlin")
	b.eventually("two of one id", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.hooks) == 2 && b.hooks[0].id == b.hooks[1].id
	})
	if b.hooked("o-2", "shipment.delivered") {
		t.Error("a dropped webhook came")
	}
}

func TestBadInput(t *testing.T) {
	b := setup(t, 0)
	b.charge(patient, "o-1", "card")
	for _, tt := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/provider/charges", `{"key":"k"}`, 422},
		{"POST", "/provider/charges", `{"key":"k","amount":"1"}`, 400},
		{"POST", "/provider/charges", `{"key":"o-1:charge","order_id":"o-1","amount":1,"currency":"EUR","method":"card"}`, 409},
		{"POST", "/provider/refunds", `{}`, 422},
		{"POST", "/carrier/shipments", `{"key":"k","order_id":"o","attempt":1,"address":{"city":"X"},"items":[]}`, 422},
		{"GET", "/provider/charges/k", ``, 404},
		{"GET", "/ledger?after=x", ``, 400},
		{"GET", "/ledger?upto=1", ``, 400},
		{"GET", "/mailbox?limit=0", ``, 400},
		{"PUT", "/faults", `{"rules":[{"target":"moon","status":500}]}`, 422},
		{"PUT", "/faults", `{"rules":[{"target":"smtp"}]}`, 422},
		{"POST", "/faults", `{"target":"smtp","status":200}`, 422},
		{"POST", "/faults", `{"target":"smtp","outcome":"lost"}`, 422},
		{"POST", "/faults", `{"target":"smtp","delay":"1"}`, 422},
		{"DELETE", "/faults/77", ``, 404},
		{"GET", "/nothing", ``, 404},
		{"DELETE", "/ledger", ``, 405},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tt.method, b.server.URL+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.want || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s %s: %d %s, want %d as a problem", tt.method, tt.path, tt.body, resp.StatusCode, resp.Header.Get("Content-Type"), tt.want)
		}
	}
}
