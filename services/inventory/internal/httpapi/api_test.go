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
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/outbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/testkit"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	"github.com/waybill-dev/waybill/services/inventory/internal/httpapi"
	"github.com/waybill-dev/waybill/services/inventory/internal/intake"
	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"), goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"))
}

// silent is an outbox that nobody reads: what is published is tested beside the store.
type silent struct{}

func (silent) Add(*pg.Unit, ...event.Event) {}

// world is the interface on a real database, with every answer checked against openapi.yaml.
type world struct {
	t        *testing.T
	server   *httptest.Server
	store    *postgres.Store
	inbox    *inbox.Inbox
	pool     *pgxpool.Pool
	issuer   *testkit.Issuer
	contract *testkit.Contract
}

var terms = stock.Terms{Hold: 15 * time.Minute, Lapse: time.Minute, Pin: 45 * time.Minute}

func open(t *testing.T) *world {
	t.Helper()
	pool, _ := testkit.Postgres(t, outbox.Migrations, inbox.Migrations, postgres.Migrations)
	w := &world{t: t, pool: pool, issuer: testkit.Identity(t), contract: testkit.OpenAPI(t, "../../openapi.yaml")}
	w.serve(pool, w.issuer.Verifier("inventory"), nil)
	products := []stock.Product{
		{Key: stock.Key{Tenant: 1, Product: "mug"}, Name: "Mug", Price: 500, Currency: "EUR", OnHand: 100},
		{Key: stock.Key{Tenant: 1, Product: "lamp"}, Name: "Lamp", Price: 2000, Currency: "EUR", OnHand: 5},
		{Key: stock.Key{Tenant: 1, Product: "yen"}, Name: "Yen", Price: 700, Currency: "JPY", OnHand: 5},
		{Key: stock.Key{Tenant: 2, Product: "mug"}, Name: "Other mug", Price: 900, Currency: "EUR", OnHand: 7},
	}
	if err := w.store.Seed(t.Context(), products); err != nil {
		t.Fatal(err)
	}
	return w
}

// serve starts the handler over a pool; reserve nil is the store's own.
func (w *world) serve(pool *pgxpool.Pool, v *auth.Verifier, reserve intake.Reserve) {
	w.t.Helper()
	w.store = postgres.New(pool, silent{}, terms, prometheus.NewRegistry())
	w.inbox = inbox.New(inbox.Options{
		Group: "inventory-service", Pool: pool, Wants: postgres.Wants, Registry: prometheus.NewRegistry(),
		Handler: func(ctx context.Context, u *pg.Unit, batch []event.Event) error {
			return w.store.Follow(ctx, u, batch, w.inbox)
		},
		Redrive: map[string]func(context.Context, *pg.Unit, uuid.UUID, string) error{postgres.KindShort: w.store.Confirm},
	})
	if reserve == nil {
		reserve = w.store.Reserve
	}
	queue := intake.New(reserve, prometheus.NewRegistry())
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = queue.Run(ctx) }()
	document, err := os.ReadFile("../../openapi.yaml")
	if err != nil {
		w.t.Fatal(err)
	}
	h := httpapi.New(httpapi.Options{Store: w.store, Intake: queue, Interventions: w.inbox, Authenticate: v.Middleware, OpenAPI: document})
	w.server = httptest.NewServer(w.contract.Wrap(w.t, h))
	w.t.Cleanup(func() { w.server.Close(); stop(); <-ended })
}

func (w *world) customer() string { return w.issuer.UserToken("customer", 1, "customer") }
func (w *world) merchant() string { return w.issuer.UserToken("merchant", 1, "merchant") }
func (w *world) operator() string { return w.issuer.UserToken("operator", 1, "operator") }
func (w *world) merchant2() string {
	return w.issuer.UserToken("merchant2", 2, "merchant", "customer")
}
func (w *world) order() string { return w.issuer.ServiceToken("order", "inventory") }

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
}

func (a answer) slug() string {
	s, _ := a.body["type"].(string)
	return strings.TrimPrefix(s, "urn:problem:")
}

// call sends a body as it is. Headers come in pairs; Content-Type is JSON unless one of them is another.
func (w *world) call(token, method, path, body string, headers ...string) answer {
	w.t.Helper()
	req, err := http.NewRequest(method, w.server.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := w.server.Client().Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, raw: string(raw)}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	_ = d.Decode(&a.body)
	return a
}

// want calls and compares status and problem slug.
func (w *world) want(status int, slug, token, method, path, body string, headers ...string) answer {
	w.t.Helper()
	a := w.call(token, method, path, body, headers...)
	if a.status != status || a.slug() != slug {
		w.t.Errorf("%s %s %s: %d %q, want %d %q: %s", method, path, body, a.status, a.slug(), status, slug, a.raw)
	}
	if a.status >= 400 && a.header.Get("Cache-Control") != "no-store" {
		w.t.Errorf("%s %s: a problem may be cached: %v", method, path, a.header)
	}
	return a
}

func reserveOf(id, product string, quantity any) string {
	return fmt.Sprintf(`{"order_id":%q,"items":[{"product_id":%q,"quantity":%v}]}`, id, product, quantity)
}

func pinOf(id, product string, quantity, amount int) string {
	return fmt.Sprintf(`{"reservations":[{"order_id":%q,"tenant":1,"currency":"EUR","amount":%d,"items":[{"product_id":%q,"quantity":%d}],"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}]}`, id, amount, product, quantity)
}

// TestContract sends every documented answer through the document, and its end fails for those that were not seen.
func TestContract(t *testing.T) {
	w := open(t)
	w.reserveAndRelease()
	w.batch()
	w.catalogue()
	w.shelf()
	w.interventions()
	w.badInput()
	if a := w.call("", "GET", "/openapi.yaml", ""); a.status != 200 || !strings.HasPrefix(a.raw, "openapi: 3.1") {
		t.Errorf("document: %d %.40s", a.status, a.raw)
	}
	w.unavailable()
	w.contract.Complete(t)
}

func (w *world) reserveAndRelease() {
	m := w.merchant()
	a := w.want(200, "", m, "POST", "/inventory/reserve", `{"order_id":"r-1","items":[{"product_id":"mug","quantity":1},{"product_id":"lamp","quantity":1},{"product_id":"mug","quantity":2}]}`)
	if a.body["state"] != "held" || fmt.Sprint(a.body["total"]) != "35.00" || a.body["currency"] != "EUR" || a.body["expires_at"] == nil {
		w.t.Errorf("reserve: %s", a.raw)
	}
	if got := fmt.Sprint(a.body["items"]); got != "[map[product_id:lamp quantity:1] map[product_id:mug quantity:3]]" {
		w.t.Errorf("equal products are summed: %s", got)
	}
	again := w.want(200, "", m, "POST", "/inventory/reserve", `{"order_id":"r-1","items":[{"product_id":"lamp","quantity":1},{"product_id":"mug","quantity":3}]}`)
	if again.raw != a.raw {
		w.t.Errorf("again: %s, first %s", again.raw, a.raw)
	}
	w.want(409, "reservation-mismatch", m, "POST", "/inventory/reserve", reserveOf("r-1", "mug", 1))
	w.want(409, "reservation-closed", w.merchant2(), "POST", "/inventory/reserve", reserveOf("r-1", "mug", 1))
	short := w.want(409, "insufficient-stock", m, "POST", "/inventory/reserve", `{"order_id":"r-2","items":[{"product_id":"mug","quantity":1},{"product_id":"lamp","quantity":50}]}`)
	if got := fmt.Sprint(short.body["errors"]); got != "[map[detail:lamp: 50 requested, 4 available pointer:/items/1]]" {
		w.t.Errorf("per item: %s", got)
	}
	w.want(422, "unknown-product", m, "POST", "/inventory/reserve", reserveOf("r-2", "car", 1))
	w.want(422, "unknown-product", w.merchant2(), "POST", "/inventory/reserve", reserveOf("r-2", "lamp", 1))
	w.want(422, "invalid-field", m, "POST", "/inventory/reserve", `{"order_id":"r-2","items":[{"product_id":"mug","quantity":1},{"product_id":"yen","quantity":1}]}`)

	w.want(404, "not-found", w.merchant2(), "POST", "/inventory/release", `{"order_id":"r-1"}`)
	for range 2 {
		if a := w.want(200, "", m, "POST", "/inventory/release", `{"order_id":"r-1"}`); a.body["state"] != "released" {
			w.t.Errorf("release: %s", a.raw)
		}
	}
	w.want(409, "reservation-closed", m, "POST", "/inventory/reserve", `{"order_id":"r-1","items":[{"product_id":"lamp","quantity":1},{"product_id":"mug","quantity":3}]}`)
	w.want(200, "", m, "POST", "/inventory/release", `{"order_id":"r-never"}`)
	w.want(409, "reservation-closed", m, "POST", "/inventory/reserve", reserveOf("r-never", "mug", 1))
	w.want(200, "", w.merchant2(), "POST", "/inventory/reserve", reserveOf("r-2nd", "mug", 1))
	w.want(200, "", w.operator(), "POST", "/inventory/release", `{"order_id":"r-2nd"}`)

	// An explicit key replays what was answered, even where the state has moved on.
	key := []string{"Idempotency-Key", `"k-1"`}
	first := w.want(200, "", m, "POST", "/inventory/reserve", reserveOf("r-3", "mug", 1), key...)
	w.want(200, "", m, "POST", "/inventory/release", `{"order_id":"r-3"}`, key...) // the same key on another route is another key
	replay := w.want(200, "", m, "POST", "/inventory/reserve", reserveOf("r-3", "mug", 1), key...)
	if replay.raw != first.raw || replay.header.Get("Idempotent-Replayed") != "true" || first.header.Get("Idempotent-Replayed") != "" {
		w.t.Errorf("replay %v %s, first %v %s", replay.header, replay.raw, first.header, first.raw)
	}
	w.want(422, "idempotency-key-reused", m, "POST", "/inventory/reserve", reserveOf("r-3", "mug", 2), key...)
	w.want(422, "unknown-product", m, "POST", "/inventory/reserve", reserveOf("r-4", "car", 1), "Idempotency-Key", "k-2")
	w.want(200, "", m, "POST", "/inventory/reserve", reserveOf("r-4", "mug", 1), "Idempotency-Key", "k-2") // 422 was not kept
	w.want(409, "insufficient-stock", m, "POST", "/inventory/reserve", reserveOf("r-5", "lamp", 50), "Idempotency-Key", "k-3")
	if a := w.want(409, "insufficient-stock", m, "POST", "/inventory/reserve", reserveOf("r-5", "lamp", 50), "Idempotency-Key", "k-3"); a.header.Get("Idempotent-Replayed") != "true" {
		w.t.Error("a refusal is an outcome and is replayed")
	}
}

func (w *world) batch() {
	o := w.order()
	result := func(a answer) string {
		results, _ := a.body["results"].([]any)
		var out []string
		for _, r := range results {
			m, _ := r.(map[string]any)
			out = append(out, fmt.Sprint(m["order_id"], " ", m["outcome"], " ", m["reason"], " ", m["total"], " ", m["currency"]))
		}
		return strings.Join(out, "; ")
	}
	for range 2 {
		if got := result(w.want(200, "", o, "POST", "/inventory/reservations", pinOf("b-1", "mug", 2, 1000))); got != "b-1 pinned <nil> 1000 EUR" {
			w.t.Errorf("pinned: %s", got)
		}
	}
	for body, want := range map[string]string{
		pinOf("b-2", "mug", 2, 999):     "b-2 mismatch amount_mismatch 1000 EUR",
		pinOf("b-3", "lamp", 50, 1e5):   "b-3 refused out_of_stock 100000 EUR",
		pinOf("b-4", "car", 1, 1):       "b-4 refused unknown_product 0 <nil>",
		pinOf("r-never", "mug", 1, 500): "r-never closed reservation_expired 0 <nil>",
		`{"reservations":[{"order_id":"b-5","tenant":1,"currency":"EUR","amount":500,"items":[{"product_id":"mug","quantity":1}]},{"order_id":"b-6","tenant":2,"currency":"EUR","amount":900,"items":[{"product_id":"mug","quantity":1}]}]}`: "b-5 pinned <nil> 500 EUR; b-6 pinned <nil> 900 EUR",
	} {
		if got := result(w.want(200, "", o, "POST", "/inventory/reservations", body)); got != want {
			w.t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	w.want(409, "reservation-in-use", w.merchant(), "POST", "/inventory/release", `{"order_id":"b-1"}`)
	w.want(403, "forbidden", w.operator(), "POST", "/inventory/reservations", pinOf("b-7", "mug", 1, 500))
	w.want(403, "forbidden", w.issuer.ServiceToken("payment", "inventory"), "POST", "/inventory/reservations", pinOf("b-7", "mug", 1, 500))
	w.want(403, "forbidden", o, "POST", "/inventory/reserve", reserveOf("b-7", "mug", 1))
	w.want(422, "invalid-field", o, "POST", "/inventory/reservations", `{"reservations":[]}`)
	w.want(422, "invalid-field", o, "POST", "/inventory/reservations", pinOf("", "mug", 0, 500))
	w.want(400, "malformed-json", o, "POST", "/inventory/reservations", `{"reservations":[`)
	w.want(415, "unsupported-media-type", o, "POST", "/inventory/reservations", pinOf("b-7", "mug", 1, 500), "Content-Type", "text/plain")
	w.want(413, "body-too-large", o, "POST", "/inventory/reservations", `{"reservations":[{"order_id":"`+strings.Repeat("x", 5<<20)+`"}]}`)

	// The largest batch that there can be.
	var many []string
	for i := range 256 {
		many = append(many, fmt.Sprintf(`{"order_id":"%s-%03d","tenant":1,"currency":"EUR","amount":1,"items":[%s]}`, strings.Repeat("m", 60), i,
			strings.TrimSuffix(strings.Repeat(`{"product_id":"`+strings.Repeat("p", 64)+`","quantity":1000000},`, 100), ",")))
	}
	if a := w.call(o, "POST", "/inventory/reservations", `{"reservations":[`+strings.Join(many, ",")+`]}`); a.status != 200 || strings.Count(a.raw, "unknown_product") != 256 {
		w.t.Errorf("256 orders of 100 items: %d %.200s", a.status, a.raw)
	}
}

func (w *world) catalogue() {
	m, c := w.merchant(), w.customer()
	if a := w.want(200, "", c, "GET", "/products/lamp", ""); a.raw != `{"product_id":"lamp","name":"Lamp","price":20.00,"currency":"EUR","on_hand":5,"reserved":0,"available":5}`+"\n" {
		w.t.Errorf("product: %s", a.raw)
	}
	if a := w.want(200, "", c, "GET", "/products/yen", ""); fmt.Sprint(a.body["price"]) != "700" {
		w.t.Errorf("a currency without decimal places: %s", a.raw)
	}
	w.want(404, "not-found", c, "GET", "/products/car", "")
	w.want(404, "not-found", w.merchant2(), "GET", "/products/lamp", "")
	w.want(404, "not-found", c, "GET", "/products/mug?tenant=2", "")
	if a := w.want(200, "", w.operator(), "GET", "/products/mug?tenant=2", ""); a.body["name"] != "Other mug" {
		w.t.Errorf("an operator asks for another tenant's: %s", a.raw)
	}

	var ids []string
	path := "/products?limit=2"
	for range 5 {
		a := w.want(200, "", c, "GET", path, "")
		for _, p := range a.body["items"].([]any) {
			ids = append(ids, p.(map[string]any)["product_id"].(string))
		}
		next, more := a.body["next"].(string)
		if !more {
			break
		}
		path = "/products?limit=2&cursor=" + next
	}
	if got := strings.Join(ids, " "); got != "lamp mug yen" {
		w.t.Errorf("pages: %s", got)
	}
	if a := w.want(200, "", w.issuer.UserToken("x", 3, "customer"), "GET", "/products", ""); a.raw != `{"items":[]}`+"\n" {
		w.t.Errorf("no products: %s", a.raw)
	}

	a := w.want(201, "", m, "PUT", "/products/cup", `{"name":"Cup \"<b>é\" ; DROP TABLE products","price":4}`)
	if a.header.Get("Location") != "/products/cup" || a.body["name"] != `Cup "<b>é" ; DROP TABLE products` || fmt.Sprint(a.body["price"]) != "4.00" {
		w.t.Errorf("made: %v %s", a.header, a.raw)
	}
	w.want(200, "", m, "PUT", "/products/cup", `{"name":"Cup","price":4.5,"currency":"EUR"}`)
	w.want(200, "", m, "PUT", "/products/cup", `{"name":"Cup","price":4.50}`)
	if a := w.want(200, "", c, "GET", "/products/cup", ""); fmt.Sprint(a.body["price"], a.body["name"]) != "4.50Cup" {
		w.t.Errorf("changed: %s", a.raw)
	}
	w.want(403, "forbidden", c, "PUT", "/products/cup", `{"name":"Cup","price":0}`)
	w.want(404, "not-found", m, "PUT", "/products/cup?tenant=2", `{"name":"Cup","price":1}`)
	w.want(201, "", w.operator(), "PUT", "/products/cup?tenant=2", `{"name":"Cup","price":1}`)
}

func (w *world) shelf() {
	m := w.merchant()
	restock := func(product string, quantity any, reason string) string {
		return fmt.Sprintf(`{"product_id":%q,"quantity":%v,"reason":%q}`, product, quantity, reason)
	}
	n := 0
	key := func() []string { n++; return []string{"Idempotency-Key", fmt.Sprint("shelf-", n)} }
	same := key()
	first := w.want(200, "", m, "POST", "/inventory/restock", restock("cup", 10, "delivery"), same...)
	again := w.want(200, "", m, "POST", "/inventory/restock", restock("cup", 10, "delivery"), same...)
	if fmt.Sprint(first.body["on_hand"]) != "10" || again.raw != first.raw || again.header.Get("Idempotent-Replayed") != "true" {
		w.t.Errorf("restock %s, again %s", first.raw, again.raw)
	}
	if a := w.want(200, "", m, "POST", "/inventory/restock", restock("cup", -2, "broken"), key()...); fmt.Sprint(a.body["on_hand"]) != "8" {
		w.t.Errorf("broken: %s", a.raw)
	}
	w.want(200, "", m, "POST", "/inventory/reserve", reserveOf("s-1", "cup", 5))
	w.want(409, "below-reserved", m, "POST", "/inventory/restock", restock("cup", -4, "broken"), key()...)
	w.want(422, "unknown-product", m, "POST", "/inventory/restock", restock("car", 1, "delivery"), key()...)
	w.want(404, "not-found", m, "POST", "/inventory/restock?tenant=2", restock("mug", 1, "delivery"), key()...)
	w.want(200, "", w.operator(), "POST", "/inventory/restock?tenant=2", restock("mug", 1, "delivery"), key()...)
	w.want(400, "idempotency-key-missing", m, "POST", "/inventory/restock", restock("cup", 1, "delivery"))
	w.want(400, "idempotency-key-invalid", m, "POST", "/inventory/restock", restock("cup", 1, "delivery"), "Idempotency-Key", strings.Repeat("k", 256))
	for _, body := range []string{restock("cup", 0, "x"), restock("cup", 1, ""), restock("cup", 1, "a\u202eb"), restock("", 1, "x"), restock("cup", int64(1e10), "x"), restock("cup", int64(-1e10), "x"), `{"product_id":"cup","quantity":1}`} {
		w.want(422, "invalid-field", m, "POST", "/inventory/restock", body, key()...)
	}
	w.want(400, "invalid-type", m, "POST", "/inventory/restock", restock("cup", "9223372036854775808", "x"), key()...)
	w.want(403, "forbidden", w.customer(), "POST", "/inventory/restock", restock("cup", 1, "delivery"), key()...)

	count := func(counts string) string { return `{"reason":"year's end","counts":[` + counts + `]}` }
	a := w.want(200, "", m, "POST", "/inventory/stocktakes", count(`{"product_id":"lamp","counted":5},{"product_id":"cup","counted":7},{"product_id":"mug","counted":0}`), key()...)
	var lines []string
	for _, l := range a.body["items"].([]any) {
		m := l.(map[string]any)
		lines = append(lines, fmt.Sprint(m["product_id"], " ", m["outcome"], " ", m["difference"]))
	}
	if got := strings.Join(lines, ", "); got != "cup booked -1, lamp equal 0, mug below_reserved -100" {
		w.t.Errorf("stock-take: %s", got)
	}
	w.want(422, "unknown-product", m, "POST", "/inventory/stocktakes", count(`{"product_id":"cup","counted":3},{"product_id":"car","counted":3}`), key()...)
	w.want(422, "invalid-field", m, "POST", "/inventory/stocktakes", count(`{"product_id":"cup","counted":3},{"product_id":"cup","counted":3}`), key()...)
	w.want(422, "invalid-field", m, "POST", "/inventory/stocktakes", count(`{"product_id":"cup","counted":-1}`), key()...)
	w.want(422, "invalid-field", m, "POST", "/inventory/stocktakes", count(`{"product_id":"cup"}`), key()...)
	w.want(422, "invalid-field", m, "POST", "/inventory/stocktakes", `{"reason":"x","counts":[],"counted_at":"yesterday"}`, key()...)
	w.want(404, "not-found", m, "POST", "/inventory/stocktakes?tenant=2", count(`{"product_id":"mug","counted":8}`), key()...)
	w.want(403, "forbidden", w.customer(), "POST", "/inventory/stocktakes", count(`{"product_id":"cup","counted":7}`), key()...)

	a = w.want(200, "", m, "GET", "/inventory/movements?product_id=cup&limit=2", "")
	if got := len(a.body["items"].([]any)); got != 2 {
		w.t.Errorf("%d movements on a page of two", got)
	}
	a = w.want(200, "", m, "GET", "/inventory/movements?product_id=cup&limit=2&cursor="+a.body["next"].(string), "")
	if got := len(a.body["items"].([]any)); got != 1 || a.body["next"] != nil {
		w.t.Errorf("second page: %s", a.raw)
	}
	if l := a.body["items"].([]any)[0].(map[string]any); fmt.Sprint(l["op"], l["delta"], l["on_hand"], l["reason"], l["actor"]) != "restocked1010deliverymerchant" {
		w.t.Errorf("movement: %v", l)
	}
	w.want(200, "", m, "GET", "/inventory/movements?order_id=o-none", "")
	w.want(400, "invalid-field", m, "GET", "/inventory/movements?order_id=%20", "")
	w.want(404, "not-found", m, "GET", "/inventory/movements?tenant=2", "")
	w.want(403, "forbidden", w.customer(), "GET", "/inventory/movements", "")
}

func (w *world) interventions() {
	o := w.operator()
	// An order that was paid after its hold was released, with too little left.
	short := func(id string) string {
		e := event.New(w.t.Context(), event.OrderPaymentProcessed, id, 1, 1, &orderv1.OrderPaymentProcessed{OrderId: id, Items: []*orderv1.Item{{ProductId: "lamp", Quantity: 6}}})
		err := pg.Do(w.t.Context(), w.pool, func(ctx context.Context, u *pg.Unit) error { return w.store.Follow(ctx, u, []event.Event{e}, w.inbox) })
		if err != nil {
			w.t.Fatal(err)
		}
		a := w.want(200, "", o, "GET", "/interventions?kind=stock_short&status=open", "")
		return a.body["items"].([]any)[0].(map[string]any)["id"].(string)
	}
	id := short("i-1")
	a := w.want(200, "", o, "GET", "/interventions/"+id, "")
	if got := fmt.Sprint(a.body["detail"]); got != "map[missing:[map[available:5 product_id:lamp requested:6]] order_id:i-1]" {
		w.t.Errorf("detail: %s", got)
	}
	w.call(w.merchant(), "POST", "/inventory/restock", `{"product_id":"lamp","quantity":1,"reason":"delivery"}`, "Idempotency-Key", "for-i-1")
	if a := w.want(200, "", o, "POST", "/interventions/"+id+"/redrive", ""); a.body["status"] != "redriven" {
		w.t.Errorf("redrive: %s", a.raw)
	}
	if a := w.want(200, "", w.merchant(), "GET", "/inventory/movements?order_id=i-1", ""); len(a.body["items"].([]any)) != 1 {
		w.t.Errorf("redriven: %s", a.raw)
	}
	w.want(409, "reservation-in-use", w.merchant(), "POST", "/inventory/release", `{"order_id":"i-1"}`)
	if a := w.want(200, "", w.merchant(), "POST", "/inventory/reserve", reserveOf("i-1", "lamp", 6)); a.body["state"] != "confirmed" {
		w.t.Errorf("hold of a paid order: %s", a.raw)
	}
	id = short("i-2")
	for path, status := range map[string]int{"": 405, "/redrive": 422, "/discard": 422} {
		slug := "invalid-field"
		if status == 405 {
			slug = "method-not-allowed"
		}
		w.want(status, slug, o, "POST", "/interventions/"+id+path, `{"reason":"`+strings.Repeat("x", 501)+`"}`)
	}
	for _, end := range []string{"/redrive", "/discard"} {
		w.want(415, "unsupported-media-type", o, "POST", "/interventions/"+id+end, "x", "Content-Type", "text/plain")
		w.want(400, "malformed-json", o, "POST", "/interventions/"+id+end, "{")
		w.want(404, "not-found", o, "POST", "/interventions/"+uuid.NewString()+end, `{"reason":"x"}`)
		w.want(403, "forbidden", w.merchant(), "POST", "/interventions/"+id+end, `{"reason":"x"}`)
		w.want(401, "unauthenticated", "", "POST", "/interventions/"+id+end, `{"reason":"x"}`)
	}
	for _, many := range []string{"/interventions/redrive", "/interventions/discard"} {
		w.want(400, "malformed-json", o, "POST", many, "{")
		w.want(401, "unauthenticated", "", "POST", many, "{}")
		w.want(403, "forbidden", w.merchant(), "POST", many, "{}")
		w.want(415, "unsupported-media-type", o, "POST", many, "x", "Content-Type", "text/plain")
		w.want(422, "invalid-field", o, "POST", many, "{}")
	}
	// Still short: it is tried, stays, and says why.
	if a := w.want(200, "", o, "POST", "/interventions/redrive", `{"kind":"stock_short","subject":"i-2"}`); !strings.Contains(string(a.raw), `"status":"open"`) || !strings.Contains(string(a.raw), "short") {
		w.t.Errorf("redrive of a filter: %s", a.raw)
	}
	if a := w.want(200, "", o, "POST", "/interventions/discard", `{"kind":"stock_short","reason":"sent by hand"}`); !strings.Contains(string(a.raw), `"status":"discarded"`) {
		w.t.Errorf("discard of a filter: %s", a.raw)
	}
	w.want(200, "", o, "POST", "/interventions/"+id+"/discard", `{"reason":"sent by hand"}`)
	w.want(404, "not-found", o, "GET", "/interventions/"+uuid.NewString(), "")
	w.want(403, "forbidden", w.merchant(), "GET", "/interventions/"+id, "")
	w.want(401, "unauthenticated", "", "GET", "/interventions/"+id, "")
	w.want(400, "invalid-field", o, "GET", "/interventions?limit=0", "")
	w.want(403, "forbidden", w.merchant(), "GET", "/interventions", "")
	w.want(401, "unauthenticated", "", "GET", "/interventions", "")
}

// unavailable asks everything of a service whose database is away.
func (w *world) unavailable() {
	dead, err := pgxpool.New(w.t.Context(), "postgres://nobody@127.0.0.1:1/none?connect_timeout=1")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(dead.Close)
	m, key := w.merchant(), []string{"Idempotency-Key", "k"}
	w.serve(dead, w.issuer.Verifier("inventory"), nil)
	for _, r := range []struct{ token, method, path, body string }{
		{m, "GET", "/products", ""},
		{m, "GET", "/products/mug", ""},
		{m, "PUT", "/products/mug", `{"name":"Mug","price":1}`},
		{m, "POST", "/inventory/reserve", reserveOf("u-1", "mug", 1)},
		{m, "POST", "/inventory/release", `{"order_id":"u-1"}`},
		{w.order(), "POST", "/inventory/reservations", pinOf("u-1", "mug", 1, 500)},
		{m, "POST", "/inventory/restock", `{"product_id":"mug","quantity":1,"reason":"delivery"}`},
		{m, "POST", "/inventory/stocktakes", `{"reason":"x","counts":[{"product_id":"mug","counted":1}]}`},
		{m, "GET", "/inventory/movements", ""},
	} {
		if a := w.want(503, "unavailable", r.token, r.method, r.path, r.body, key...); a.header.Get("Retry-After") == "" || strings.Contains(a.raw, "127.0.0.1") {
			w.t.Errorf("%s %s: %v %s", r.method, r.path, a.header, a.raw)
		}
	}
}
