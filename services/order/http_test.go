package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/testkit"
)

func overHTTP(t *testing.T, w *world) {
	url, _ := w.start()
	t.Run("bad input", func(t *testing.T) { badInput(t, w, url) })
	t.Run("idempotency", func(t *testing.T) { idempotency(t, w, url) })
	t.Run("concurrent duplicates", func(t *testing.T) { concurrentDuplicates(t, w, url) })
	t.Run("visibility", func(t *testing.T) { visibility(t, w, url) })
	t.Run("lists", func(t *testing.T) { lists(t, w, url) })
	t.Run("payment", func(t *testing.T) { paymentStatus(t, w, url) })
	t.Run("stream", func(t *testing.T) { streams(t, w, url) })
	t.Run("document", func(t *testing.T) {
		if resp, _ := (client{t: t, w: w, url: url, contract: true}).do("GET", "/openapi.yaml", ""); resp.StatusCode != http.StatusOK {
			t.Errorf("openapi.yaml: %d", resp.StatusCode)
		}
	})
}

// badInput is RELIABILITY's table for the endpoints of this service: each row an input and the one answer that it may have.
func badInput(t *testing.T, w *world, url string) {
	anyone := client{t: t, w: w, url: url, contract: true}
	c := w.as(t, url, "customer", "customer")
	op := w.as(t, url, "operator", "operator")
	c.post(`{"order_id":"taken","amount":5,"payment_method":"card"}`)
	c.until("taken", "completed")
	good := body("good", "sku-1", "card", "Berlin")
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %s in the body", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	nested := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	many := strings.Repeat(`{"product_id":"sku-1","quantity":1},`, 100) + `{"product_id":"sku-1","quantity":1}`
	post := "POST /orders"
	for _, row := range []struct {
		name    string
		who     client
		request string
		body    string
		status  int
		slug    string
		pointer string
	}{
		{"unknown path", c, "GET /nothing", "", 404, "not-found", ""},
		{"wrong method", c, "PUT /orders", "", 405, "method-not-allowed", ""},
		{"two slashes", c, "GET //orders", "", 400, "bad-path", ""},
		{"escaped slash", c, "GET /orders/a%2fb", "", 400, "bad-path", ""},
		{"NUL in the path", c, "GET /orders/a%00b", "", 400, "bad-path", ""},
		{"path too long", c, "GET /orders/" + strings.Repeat("a", 3000), "", 414, "uri-too-long", ""},
		{"unknown parameter", c, "GET /orders?state=paid", "", 400, "unknown-parameter", "state"},
		{"parameter twice", c, "GET /orders?status=paid&status=paid", "", 400, "unknown-parameter", "status"},
		{"parameter of another endpoint", c, "GET /orders/taken?limit=1", "", 400, "unknown-parameter", "limit"},
		{"header with an underscore", c.with("X_User", "root"), "GET /orders", "", 400, "bad-header", ""},
		{"only XML is welcome", c.with("Accept", "text/xml"), "GET /orders", "", 406, "not-acceptable", ""},

		{"no token", anyone, "GET /orders", "", 401, "unauthenticated", ""},
		{"no token, and nothing there", anyone, "GET /orders/none", "", 401, "unauthenticated", ""},
		{"bad token", anyone.with("Authorization", "Bearer x.y.z"), post, good, 401, "invalid-token", ""},
		{"token without a role", w.as(t, url, "x"), post, good, 403, "forbidden", ""},
		{"token of a service", anyone.with("Authorization", "Bearer "+w.issuer.ServiceToken("payment", "order")), post, good, 403, "forbidden", ""},
		{"token for another service", anyone.with("Authorization", "Bearer "+w.issuer.ServiceToken("payment", "inventory")), "GET /orders/taken", "", 401, "invalid-token", ""},

		{"no content type", c.with("Content-Type", ""), post, good, 415, "unsupported-media-type", ""},
		{"a form", c.with("Content-Type", "application/x-www-form-urlencoded"), post, good, 415, "unsupported-media-type", ""},
		{"plain text", c.with("Content-Type", "text/plain"), post, good, 415, "unsupported-media-type", ""},
		{"compressed", c.with("Content-Encoding", "gzip"), post, good, 415, "unsupported-media-type", ""},
		{"too large", c, post, `{"email":"` + strings.Repeat("a", 65<<10) + `"}`, 413, "body-too-large", ""},
		{"empty", c.with("Content-Type", "application/json"), post, "", 400, "malformed-json", ""},
		{"white space", c, post, " \n", 400, "malformed-json", ""},
		{"truncated", c, post, good[:40], 400, "malformed-json", ""},
		{"BOM", c, post, "\ufeff" + good, 400, "malformed-json", ""},
		{"second value", c, post, good + "{}", 400, "malformed-json", ""},
		{"null", c, post, "null", 400, "malformed-json", ""},
		{"null member", c, post, replace(`"card"`, "null"), 400, "malformed-json", "/payment_method"},
		{"array", c, post, "[" + good + "]", 400, "malformed-json", ""},
		{"name twice", c, post, replace(`{"order_id"`, `{"order_id":"a","order_id"`), 400, "malformed-json", "/order_id"},
		{"name in another case", c, post, replace(`"amount"`, `"Amount"`), 400, "unknown-field", "/Amount"},
		{"unknown name", c, post, replace(`"amount"`, `"total":1,"amount"`), 400, "unknown-field", "/total"},
		{"invalid UTF-8", c, post, replace("A. Buyer", "\xff\xfe"), 400, "malformed-json", ""},
		{"lone surrogate", c, post, replace("A. Buyer", `\ud800`), 400, "malformed-json", ""},
		{"U+0000", c, post, replace("A. Buyer", `\u0000`), 400, "malformed-json", "/address/name"},
		{"too deep", c, post, nested, 400, "too-deep", ""},

		{"amount as text", c, post, replace("59.90", `"59.90"`), 400, "invalid-type", "/amount"},
		{"amount with exponent", c, post, replace("59.90", "1e2"), 400, "invalid-type", "/amount"},
		{"amount of 2^53+1", c, post, replace("59.90", "9007199254740993"), 400, "invalid-type", "/amount"},
		{"amount true", c, post, replace("59.90", "true"), 400, "invalid-type", "/amount"},
		{"amount NaN", c, post, replace("59.90", "NaN"), 400, "malformed-json", ""},
		{"minus nothing", c, post, replace("59.90", "-0"), 400, "invalid-type", "/amount"},
		{"quantity as text", c, post, replace(`"quantity":2`, `"quantity":"2"`), 400, "invalid-type", "/items/0/quantity"},
		{"half a quantity", c, post, replace(`"quantity":2`, `"quantity":2.5`), 400, "invalid-type", "/items/0/quantity"},
		{"quantity beyond int64", c, post, replace(`"quantity":2`, `"quantity":99999999999999999999`), 400, "invalid-type", "/items/0/quantity"},
		{"id as a number", c, post, replace(`"good"`, "7"), 400, "invalid-type", "/order_id"},

		{"amount of nothing", c, post, replace("59.90", "0"), 422, "invalid-field", "/amount"},
		{"negative amount", c, post, replace("59.90", "-5"), 422, "invalid-field", "/amount"},
		{"three decimals", c, post, replace("59.90", "59.901"), 422, "invalid-field", "/amount"},
		{"amount too large", c, post, replace("59.90", "99999999999.99"), 422, "invalid-field", "/amount"},
		{"no amount", c, post, replace(`"amount":59.90,`, ""), 422, "invalid-field", "/amount"},
		{"unknown currency", c, post, replace(`"amount"`, `"currency":"XXX","amount"`), 422, "invalid-field", "/currency"},
		{"unknown method", c, post, replace(`"card"`, `"cash"`), 422, "invalid-field", "/payment_method"},
		{"id of other characters", c, post, replace(`"good"`, `"g o o d"`), 422, "invalid-field", "/order_id"},
		{"id too long", c, post, replace(`"good"`, `"`+strings.Repeat("g", 65)+`"`), 422, "invalid-field", "/order_id"},
		{"no quantity", c, post, replace(`"quantity":2`, `"quantity":0`), 422, "invalid-field", "/items/0/quantity"},
		{"quantity too large", c, post, replace(`"quantity":2`, `"quantity":10001`), 422, "invalid-field", "/items/0/quantity"},
		{"101 items", c, post, replace(`{"product_id":"sku-1","quantity":2}`, many), 422, "too-many-items", "/items"},
		{"1,001 items", c, post, replace(`{"product_id":"sku-1","quantity":2}`, strings.Repeat(`{},`, 1000)+"{}"), 400, "too-many-items", "/items"},
		{"no address", c, post, `{"order_id":"good","amount":1,"payment_method":"card","items":[{"product_id":"a","quantity":1}]}`, 422, "address-invalid", "/address"},
		{"country unknown", c, post, replace(`"DE"`, `"XX"`), 422, "address-invalid", "/address/country"},
		{"postal code of elsewhere", c, post, replace("10115", "SW1A 1AA"), 422, "address-invalid", "/address/postal_code"},
		{"name turned around", c, post, replace("A. Buyer", `a\u202eb`), 422, "address-invalid", "/address/name"},
		{"name that forges a log line", c, post, replace("A. Buyer", `a\r\nlevel=error`), 422, "address-invalid", "/address/name"},
		{"card number", c, post, replace("A. Buyer", "4111 1111 1111 1111"), 422, "pan-not-allowed", "/address/name"},
		{"card number as method", c, post, replace(`"card"`, `"4242424242424242"`), 422, "pan-not-allowed", "/payment_method"},
		{"neither id nor key", c, post, `{"amount":5,"payment_method":"card"}`, 400, "idempotency-key-missing", ""},
		{"key too long", c.with("Idempotency-Key", strings.Repeat("k", 256)), post, good, 400, "idempotency-key-invalid", ""},
		{"key with a space", c.with("Idempotency-Key", "a b"), post, good, 400, "idempotency-key-invalid", ""},
		{"id taken, other body", c, post, `{"order_id":"taken","amount":6,"payment_method":"card"}`, 409, "order-exists", ""},
		{"id taken, other caller", w.as(t, url, "customer2", "customer"), post, `{"order_id":"taken","amount":5,"payment_method":"card"}`, 409, "order-exists", ""},
		{"parameter to a POST", c, post + "?x=1", good, 400, "unknown-parameter", "x"},

		{"bad id", c, "GET /orders/a:b", "", 400, "invalid-field", "order_id"},
		{"no such order", c, "GET /orders/none", "", 404, "not-found", ""},
		{"events, bad id", c, "GET /orders/a:b/events", "", 400, "invalid-field", "order_id"},
		{"events of no order", c, "GET /orders/none/events", "", 404, "not-found", ""},
		{"events without a token", anyone, "GET /orders/taken/events", "", 401, "unauthenticated", ""},
		{"events without a role", w.as(t, url, "x"), "GET /orders/taken/events", "", 403, "forbidden", ""},
		{"bad Last-Event-ID", c.with("Last-Event-ID", "-1"), "GET /orders/taken/events", "", 400, "invalid-field", "Last-Event-ID"},
		{"payment, bad id", c, "GET /payment/a:b", "", 400, "invalid-field", "order_id"},
		{"payment of no order", c, "GET /payment/none", "", 404, "not-found", ""},
		{"payment without a token", anyone, "GET /payment/taken", "", 401, "unauthenticated", ""},
		{"payment without a role", w.as(t, url, "x"), "GET /payment/taken", "", 403, "forbidden", ""},
		{"order without a role", w.as(t, url, "x"), "GET /orders/taken", "", 403, "forbidden", ""},

		{"list without a role", w.as(t, url, "x"), "GET /orders", "", 403, "forbidden", ""},
		{"limit of nothing", c, "GET /orders?limit=0", "", 400, "invalid-field", "limit"},
		{"limit too large", c, "GET /orders?limit=101", "", 400, "invalid-field", "limit"},
		{"limit of letters", c, "GET /orders?limit=many", "", 400, "invalid-field", "limit"},
		{"unknown status", c, "GET /orders?status=PAID", "", 400, "invalid-field", "status"},
		{"unknown reason", c, "GET /orders?reason=none", "", 400, "invalid-field", "reason"},
		{"bad time", c, "GET /orders?from=yesterday", "", 400, "invalid-field", "from"},
		{"year 0", c, "GET /orders?from=0000-01-01", "", 400, "invalid-field", "from"},
		{"year 9999", c, "GET /orders?to=9999-12-31T23:59:59Z", "", 400, "invalid-field", "to"},
		{"leap second", c, "GET /orders?to=2026-12-31T23:59:60Z", "", 400, "invalid-field", "to"},
		{"times the wrong way round", c, "GET /orders?from=2026-02-01&to=2026-01-01", "", 400, "invalid-field", "to"},
		{"forged cursor", c, "GET /orders?cursor=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "", 400, "invalid-cursor", ""},
		{"mangled cursor", c, "GET /orders?cursor=%21%21", "", 400, "invalid-cursor", ""},

		{"cancel, bad id", c, "POST /orders/a:b/cancel", "", 400, "invalid-field", "order_id"},
		{"cancel of no order", c, "POST /orders/none/cancel", "", 404, "not-found", ""},
		{"cancel by a stranger", w.as(t, url, "customer2", "customer"), "POST /orders/taken/cancel", "", 404, "not-found", ""},
		{"cancel of a completed order", c, "POST /orders/taken/cancel", "", 409, "not-cancellable", ""},
		{"cancel without a token", anyone, "POST /orders/taken/cancel", "", 401, "unauthenticated", ""},
		{"cancel without a role", w.as(t, url, "x"), "POST /orders/taken/cancel", "", 403, "forbidden", ""},
		{"cancel with a body", c, "POST /orders/taken/cancel", `{"why":"x"}`, 400, "unknown-field", "/why"},
		{"cancel with text", c.with("Content-Type", "text/plain"), "POST /orders/taken/cancel", "please", 415, "unsupported-media-type", ""},
		{"cancel with a bad key", c.with("Idempotency-Key", "a b"), "POST /orders/taken/cancel", "", 400, "idempotency-key-invalid", ""},

		{"resolve, bad id", op, "POST /orders/a:b/resolve", `{"action":"refund","reason":"x"}`, 400, "invalid-field", "order_id"},
		{"resolve of no order", op, "POST /orders/none/resolve", `{"action":"refund","reason":"x"}`, 404, "not-found", ""},
		{"resolve by a customer", c, "POST /orders/taken/resolve", `{"action":"refund","reason":"x"}`, 403, "forbidden", ""},
		{"resolve by a merchant", w.as(t, url, "merchant", "merchant"), "POST /orders/taken/resolve", `{"action":"refund","reason":"x"}`, 403, "forbidden", ""},
		{"resolve without a token", anyone, "POST /orders/taken/resolve", `{"action":"refund","reason":"x"}`, 401, "unauthenticated", ""},
		{"nothing to resolve", op, "POST /orders/taken/resolve", `{"action":"refund","reason":"x"}`, 409, "not-resolvable", ""},
		{"unknown action", op, "POST /orders/taken/resolve", `{"action":"forget","reason":"x"}`, 422, "invalid-field", "/action"},
		{"no action", op, "POST /orders/taken/resolve", `{"reason":"x"}`, 422, "invalid-field", "/action"},
		{"no reason", op, "POST /orders/taken/resolve", `{"action":"refund"}`, 422, "invalid-field", "/reason"},
		{"a reason over two lines", op, "POST /orders/taken/resolve", `{"action":"refund","reason":"a\nb"}`, 422, "invalid-field", "/reason"},
		{"card number as a reason", op, "POST /orders/taken/resolve", `{"action":"refund","reason":"4111111111111111"}`, 422, "pan-not-allowed", "/reason"},
		{"unknown goods", op, "POST /orders/taken/resolve", `{"action":"refund","goods":"eaten","reason":"x"}`, 422, "invalid-field", "/goods"},
		{"address to a refund", op, "POST /orders/taken/resolve", `{"action":"refund","reason":"x","address":{"name":"a"}}`, 422, "invalid-field", "/address"},
		{"bad address", op, "POST /orders/taken/resolve", `{"action":"resend","goods":"returned","reason":"x","address":{"name":"a"}}`, 422, "address-invalid", "/address/line1"},
		{"resolve with text", op.with("Content-Type", "text/plain"), "POST /orders/taken/resolve", `{}`, 415, "unsupported-media-type", ""},
		{"resolve, too large", op, "POST /orders/taken/resolve", `{"reason":"` + strings.Repeat("a", 65<<10) + `"}`, 413, "body-too-large", ""},
		{"resolve, unknown member", op, "POST /orders/taken/resolve", `{"force":true}`, 400, "unknown-field", "/force"},

		{"interventions for a customer", c, "GET /interventions", "", 403, "forbidden", ""},
		{"interventions without a token", anyone, "GET /interventions", "", 401, "unauthenticated", ""},
		{"interventions, bad limit", op, "GET /interventions?limit=0", "", 400, "invalid-field", "limit"},
		{"no such intervention", op, "GET /interventions/01997e6c-0000-7000-8000-000000000000", "", 404, "not-found", ""},
		{"intervention for a customer", c, "GET /interventions/01997e6c-0000-7000-8000-000000000000", "", 403, "forbidden", ""},
		{"intervention without a token", anyone, "GET /interventions/01997e6c-0000-7000-8000-000000000000", "", 401, "unauthenticated", ""},
		{"redrive of none", op, "POST /interventions/01997e6c-0000-7000-8000-000000000000/redrive", `{}`, 404, "not-found", ""},
		{"redrive by a customer", c, "POST /interventions/01997e6c-0000-7000-8000-000000000000/redrive", `{}`, 403, "forbidden", ""},
		{"redrive without a token", anyone, "POST /interventions/01997e6c-0000-7000-8000-000000000000/redrive", `{}`, 401, "unauthenticated", ""},
		{"discard of none", op, "POST /interventions/01997e6c-0000-7000-8000-000000000000/discard", `{"reason":"x"}`, 404, "not-found", ""},
		{"discard by a customer", c, "POST /interventions/01997e6c-0000-7000-8000-000000000000/discard", `{"reason":"x"}`, 403, "forbidden", ""},
		{"discard without a token", anyone, "POST /interventions/01997e6c-0000-7000-8000-000000000000/discard", `{"reason":"x"}`, 401, "unauthenticated", ""},
		{"redrive of none, broken", op, "POST /interventions/01997e6c-0000-7000-8000-000000000000/redrive", `{`, 400, "malformed-json", ""},
		{"redrive as text", op.with("Content-Type", "text/plain"), "POST /interventions/01997e6c-0000-7000-8000-000000000000/redrive", `{}`, 415, "unsupported-media-type", ""},
		{"redrive, long reason", op, "POST /interventions/01997e6c-0000-7000-8000-000000000000/redrive", `{"reason":"` + strings.Repeat("a", 501) + `"}`, 422, "invalid-field", "/reason"},
		{"discard, broken", op, "POST /interventions/01997e6c-0000-7000-8000-000000000000/discard", `{`, 400, "malformed-json", ""},
		{"discard as text", op.with("Content-Type", "text/plain"), "POST /interventions/01997e6c-0000-7000-8000-000000000000/discard", `{}`, 415, "unsupported-media-type", ""},
		{"discard without a reason", op, "POST /interventions/01997e6c-0000-7000-8000-000000000000/discard", `{}`, 422, "invalid-field", "/reason"},
		{"redrive of many, broken", op, "POST /interventions/redrive", `{`, 400, "malformed-json", ""},
		{"redrive of many without a token", anyone, "POST /interventions/redrive", `{}`, 401, "unauthenticated", ""},
		{"redrive of many by a customer", c, "POST /interventions/redrive", `{}`, 403, "forbidden", ""},
		{"redrive of many as text", op.with("Content-Type", "text/plain"), "POST /interventions/redrive", `{}`, 415, "unsupported-media-type", ""},
		{"redrive of everything", op, "POST /interventions/redrive", `{"reason":"x"}`, 422, "invalid-field", ""},
		{"discard of many, broken", op, "POST /interventions/discard", `{`, 400, "malformed-json", ""},
		{"discard of many without a token", anyone, "POST /interventions/discard", `{}`, 401, "unauthenticated", ""},
		{"discard of many by a customer", c, "POST /interventions/discard", `{}`, 403, "forbidden", ""},
		{"discard of many as text", op.with("Content-Type", "text/plain"), "POST /interventions/discard", `{}`, 415, "unsupported-media-type", ""},
		{"discard of everything", op, "POST /interventions/discard", `{"reason":"x"}`, 422, "invalid-field", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			method, path, _ := strings.Cut(row.request, " ")
			who := row.who
			who.t = t
			resp, doc := who.do(method, path, row.body)
			if resp.StatusCode != row.status || doc["type"] != "urn:problem:"+row.slug {
				t.Fatalf("%d %v, want %d %s", resp.StatusCode, doc, row.status, row.slug)
			}
			if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("Content-Type %q", got)
			}
			if resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("Cache-Control %q", resp.Header.Get("Cache-Control"))
			}
			if row.status == 401 && resp.Header.Get("WWW-Authenticate") == "" {
				t.Error("401 without WWW-Authenticate")
			}
			if row.status == 405 && resp.Header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
			if row.pointer == "" {
				return
			}
			fields, _ := doc["errors"].([]any)
			for _, f := range fields {
				if f.(map[string]any)["pointer"] == row.pointer {
					return
				}
			}
			t.Errorf("no field %s in %v", row.pointer, fields)
		})
	}
	// None of it left anything.
	var n int
	if err := w.pool.QueryRow(t.Context(), `SELECT count(*) FROM orders`).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d orders are stored, %v", n, err)
	}
	// Odd, and stored as it is.
	odd := `Robert'); DROP TABLE orders;-- <script>{{.}} ${x} 名前`
	c.post(strings.Replace(body("odd", "sku-1", "card", "Berlin"), "A. Buyer", odd, 1))
	_, doc := c.do("GET", "/orders/odd", "")
	if got := doc["address"].(map[string]any)["name"]; got != odd {
		t.Errorf("stored as %q", got)
	}
}

func idempotency(t *testing.T, w *world, url string) {
	c := w.as(t, url, "idem", "customer")
	raw := func(c client, body string) (int, string, http.Header) {
		resp, _ := c.do("POST", "/orders", body)
		b := new(strings.Builder)
		_, _ = bufio.NewReader(resp.Body).WriteTo(b)
		return resp.StatusCode, b.String(), resp.Header
	}
	// The id stands in for the key: the answer is the same, byte by byte, whatever has become of the order.
	first := body("idem-1", "sku-1", "card", "Berlin")
	status, one, h := raw(c, first)
	if status != http.StatusAccepted || h.Get("Location") != "/orders/idem-1" || h.Get("Idempotent-Replayed") != "" {
		t.Fatalf("%d %s %v", status, one, h)
	}
	c.until("idem-1", "completed")
	status, again, h := raw(c, first)
	if status != http.StatusAccepted || again != one || h.Get("Location") != "/orders/idem-1" || h.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%d %s, first %s", status, again, one)
	}
	// The same meaning in other bytes, under a key.
	status, again, _ = raw(c.with("Idempotency-Key", "other"), strings.Replace(first, "59.90", "59.9", 1))
	if status != http.StatusAccepted || again != one {
		t.Errorf("%d %s", status, again)
	}
	// A charge-only order is paying as soon as it is stored.
	only := `{"order_id":"idem-2","amount":5,"payment_method":"card"}`
	_, one, _ = raw(c, only)
	if !strings.Contains(one, `"status":"paying"`) {
		t.Errorf("accepted as %s", one)
	}
	if _, again, _ = raw(c, only); again != one {
		t.Errorf("%s, first %s", again, one)
	}
	// Without an id the key names the order; quoted and bare are the same key.
	anon := `{"amount":7.5,"payment_method":"card"}`
	status, one, h = raw(c.with("Idempotency-Key", "k-7"), anon)
	if status != http.StatusAccepted {
		t.Fatalf("%d %s", status, one)
	}
	location := h.Get("Location")
	if status, again, h = raw(c.with("Idempotency-Key", `"k-7"`), anon); status != http.StatusAccepted || again != one || h.Get("Location") != location {
		t.Errorf("%d %s at %s, first %s at %s", status, again, h.Get("Location"), one, location)
	}
	if status, again, _ = raw(c.with("Idempotency-Key", "k-7"), `{"amount":8,"payment_method":"card"}`); status != http.StatusUnprocessableEntity {
		t.Errorf("a key for two requests: %d %s", status, again)
	}
	// Somebody else's key is another key.
	if status, again, h = raw(w.as(t, url, "idem2", "customer").with("Idempotency-Key", "k-7"), anon); status != http.StatusAccepted || h.Get("Location") == location {
		t.Errorf("%d %s", status, again)
	}
	if got := []event.Type{created, requested, paid, completed}; true {
		testkit.Eventually(t, 20*time.Second, func() bool { return len(w.types("idem-1")) == len(got) }, "events")
		if diff := cmp.Diff(got, w.types("idem-1")); diff != "" {
			t.Errorf("want - got +\n%s", diff)
		}
	}
}

// Many at once under one id and under one key: one order each.
func concurrentDuplicates(t *testing.T, w *world, url string) {
	c := w.as(t, url, "many", "customer")
	var wg sync.WaitGroup
	var mu sync.Mutex
	bodies, others := map[string]int{}, map[int]int{}
	for n := range 24 {
		wg.Go(func() {
			c, b := c, `{"order_id":"many-1","amount":5,"payment_method":"card"}`
			switch n % 3 {
			case 1:
				c, b = c.with("Idempotency-Key", "many"), `{"amount":6,"payment_method":"card"}`
			case 2:
				b = fmt.Sprintf(`{"order_id":"many-1","amount":%d,"payment_method":"card"}`, 100+n)
			}
			resp, doc := c.do("POST", "/orders", b)
			for resp.StatusCode == http.StatusServiceUnavailable { // the row's lock was not to be had within two seconds: ask again
				resp, doc = c.do("POST", "/orders", b)
			}
			mu.Lock()
			defer mu.Unlock()
			if resp.StatusCode == http.StatusAccepted {
				bodies[fmt.Sprint(doc["order_id"], " ", doc["amount"])]++
			} else {
				others[resp.StatusCode]++
			}
		})
	}
	wg.Wait()
	// Either the eight equal ones have won, or one of the eight different ones, and everybody else is told that the id is taken.
	total := 0
	for _, n := range bodies {
		total += n
	}
	if len(bodies) != 2 || total+others[http.StatusConflict] != 24 || len(others) > 1 {
		t.Errorf("accepted %v, refused %v", bodies, others)
	}
	var n int
	if err := w.pool.QueryRow(t.Context(), `SELECT count(*) FROM orders WHERE customer = 'many'`).Scan(&n); err != nil || n != 2 {
		t.Errorf("%d orders, %v", n, err)
	}
}

func visibility(t *testing.T, w *world, url string) {
	owner := w.as(t, url, "owner", "customer")
	owner.post(`{"order_id":"seen","amount":5,"payment_method":"card"}`)
	owner.until("seen", "completed")
	foreign := client{t: t, w: w, url: url, contract: true}
	for _, c := range []struct {
		name string
		client
		want int
	}{
		{"the customer", owner, 200},
		{"another customer", w.as(t, url, "stranger", "customer"), 404},
		{"a merchant of the tenant", w.as(t, url, "merchant", "merchant"), 200},
		{"an operator", w.as(t, url, "operator", "operator"), 200},
		{"an admin", w.as(t, url, "admin", "admin"), 200},
		{"a merchant of another tenant", foreign.with("Authorization", "Bearer "+w.issuer.UserToken("merchant2", 2, "merchant")), 404},
		{"a customer of the same name of another tenant", foreign.with("Authorization", "Bearer "+w.issuer.UserToken("owner", 2, "customer")), 404},
		{"an operator of another tenant", foreign.with("Authorization", "Bearer "+w.issuer.UserToken("operator2", 2, "operator")), 200},
	} {
		for _, path := range []string{"/orders/seen", "/payment/seen"} {
			if resp, _ := c.do("GET", path, ""); resp.StatusCode != c.want {
				t.Errorf("%s gets %d for %s, want %d", c.name, resp.StatusCode, path, c.want)
			}
		}
		_, page := c.do("GET", "/orders?limit=100", "")
		listed := false
		items, _ := page["items"].([]any)
		for _, x := range items {
			listed = listed || x.(map[string]any)["order_id"] == "seen"
		}
		if listed != (c.want == 200) {
			t.Errorf("%s has it in the list: %v", c.name, listed)
		}
	}
	// Inventory asks whether a reservation is still wanted. It learns no address.
	owner.post(body("asked", "sku-1", "card", "Berlin"))
	resp, doc := foreign.with("Authorization", "Bearer "+w.issuer.ServiceToken("inventory", "order")).do("GET", "/orders/asked", "")
	if resp.StatusCode != http.StatusOK || doc["status"] == nil || doc["address"] != nil || doc["email"] != nil {
		t.Errorf("inventory is told %d %v", resp.StatusCode, doc)
	}
}

func lists(t *testing.T, w *world, url string) {
	c := w.as(t, url, "lister", "customer")
	var want []string
	for n := range 7 {
		id := fmt.Sprintf("list-%d", n)
		method := "card"
		if n%2 == 1 {
			method = "card_declined"
		}
		c.post(fmt.Sprintf(`{"order_id":%q,"amount":5,"payment_method":%q}`, id, method))
		want = append([]string{id}, want...)
	}
	for n := range 7 {
		c.until(fmt.Sprintf("list-%d", n), []string{"completed", "cancelled"}[n%2])
	}
	pages := func(query string) (ids []string) {
		cursor := ""
		for {
			q := query
			if cursor != "" {
				q += "&cursor=" + cursor
			}
			resp, doc := c.do("GET", "/orders?"+q, "")
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("%s: %d %v", q, resp.StatusCode, doc)
			}
			for _, x := range doc["items"].([]any) {
				ids = append(ids, x.(map[string]any)["order_id"].(string))
			}
			if doc["next"] == nil {
				return ids
			}
			cursor = doc["next"].(string)
		}
	}
	if diff := cmp.Diff(want, pages("limit=3")); diff != "" {
		t.Errorf("pages of three: want - got +\n%s", diff)
	}
	if diff := cmp.Diff([]string{"list-5", "list-3", "list-1"}, pages("limit=2&status=cancelled&reason=payment_declined")); diff != "" {
		t.Errorf("cancelled: want - got +\n%s", diff)
	}
	if got := pages("to=2020-01-01"); got != nil {
		t.Errorf("before 2020: %v", got)
	}
	if got := pages("from=" + time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)); len(got) != 7 {
		t.Errorf("of the last hour: %v", got)
	}
	// A cursor belongs to its list and to its reader.
	_, doc := c.do("GET", "/orders?limit=3", "")
	cursor := doc["next"].(string)
	if resp, _ := c.do("GET", "/orders?limit=3&status=paid&cursor="+cursor, ""); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("another list's cursor: %d", resp.StatusCode)
	}
	if resp, _ := w.as(t, url, "other", "customer").do("GET", "/orders?limit=3&cursor="+cursor, ""); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("another reader's cursor: %d", resp.StatusCode)
	}
	// Operators see the tenants' lists merged, newest first.
	other := client{t: t, w: w, url: url, contract: true}.with("Authorization", "Bearer "+w.issuer.UserToken("customer2", 2, "customer"))
	if resp, doc := other.do("POST", "/orders", `{"order_id":"globex-1","amount":5,"payment_method":"card"}`); resp.StatusCode != http.StatusAccepted {
		t.Fatal(doc)
	}
	c.post(`{"order_id":"list-7","amount":5,"payment_method":"card"}`)
	_, doc = w.as(t, url, "operator", "operator").do("GET", "/orders?limit=3", "")
	var got []string
	for _, x := range doc["items"].([]any) {
		got = append(got, x.(map[string]any)["order_id"].(string))
	}
	if diff := cmp.Diff([]string{"list-7", "globex-1", "list-6"}, got); diff != "" {
		t.Errorf("an operator's list: want - got +\n%s", diff)
	}
}

func paymentStatus(t *testing.T, w *world, url string) {
	c := w.as(t, url, "payer", "customer")
	for _, id := range []string{"payer-paid", "payer-unpaid", "payer-nobody-home"} {
		c.post(fmt.Sprintf(`{"order_id":%q,"amount":59.90,"payment_method":"card"}`, id))
		c.until(id, "completed")
	}
	if resp, doc := c.do("GET", "/payment/payer-paid", ""); resp.StatusCode != http.StatusOK || doc["status"] != "captured" {
		t.Errorf("%d %v", resp.StatusCode, doc)
	}
	if resp, doc := c.do("GET", "/payment/payer-unpaid", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("no payment: %d %v", resp.StatusCode, doc)
	}
	if resp, doc := c.do("GET", "/payment/payer-nobody-home", ""); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("payment service away: %d %v", resp.StatusCode, doc)
	}
}

// line is one server-sent event.
type line struct{ id, event, data string }

// follow reads a stream until stop says so, or its end.
func follow(t *testing.T, c client, id, last string, stop func(line) bool) (lines []line, resp *http.Response) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", c.url+"/orders/"+id+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err = http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	c.w.contract.Check(t, req, nil, resp)
	var l line
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		key, value, _ := strings.Cut(s.Text(), ": ")
		switch key {
		case "id":
			l.id = value
		case "event":
			l.event = value
		case "data":
			l.data = value
		case "":
			if l.id == "" {
				continue
			}
			lines = append(lines, l)
			if stop(l) {
				return lines, resp
			}
			l = line{}
		}
	}
	return lines, resp
}

func streams(t *testing.T, w *world, url string) {
	c := w.as(t, url, "watcher", "customer")
	c.post(body("watched", "sku-1", "card_slow", "Berlin"))
	// The connection breaks while the order waits for its payment, and is resumed.
	first, resp := follow(t, c, "watched", "", func(l line) bool { return l.event == "payment.initiated" })
	if resp.Header.Get("Content-Type") != "text/event-stream" || len(first) < 3 || first[0].event != "order.created" {
		t.Fatalf("%v %v", resp.Header, first)
	}
	w.release(t, "watched")
	rest, _ := follow(t, c, "watched", first[len(first)-1].id, func(line) bool { return false }) // to its end
	c.until("watched", "completed")
	var got []string
	for _, l := range append(first, rest...) {
		var e struct{ At, Event, Status, Detail string }
		if err := json.Unmarshal([]byte(l.data), &e); err != nil || e.Event != l.event {
			t.Errorf("%+v: %v", l, err)
		}
		got = append(got, e.Event+" "+e.Status)
	}
	_, doc := c.do("GET", "/orders/watched", "")
	if want := timeline(doc); len(got) > len(want) || cmp.Diff(want[:len(got)], got) != "" {
		t.Errorf("streamed %q of %q", got, want)
	}
	if got[len(got)-1] != "shipping.completed completed" && got[len(got)-1] != "inventory.updated completed" {
		t.Errorf("the stream ended with %s", got[len(got)-1])
	}
	// Whoever has seen all of a final order is told to stay away.
	testkit.Eventually(t, 20*time.Second, func() bool {
		_, doc := c.do("GET", "/orders/watched", "")
		return strings.Contains(fmt.Sprint(timeline(doc)), "inventory.updated")
	}, "the last line")
	var id string
	if err := w.pool.QueryRow(t.Context(), `SELECT max(id)::text FROM order_history WHERE order_id = 'watched'`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	if _, resp := follow(t, c, "watched", id, func(line) bool { return true }); resp.StatusCode != http.StatusNoContent {
		t.Errorf("a finished stream: %d", resp.StatusCode)
	}
	// Five streams a user.
	c.post(body("waits", "sku-away", "card", "Berlin"))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for n := range 6 {
		req, _ := http.NewRequestWithContext(ctx, "GET", url+"/orders/waits/events", nil)
		req.Header.Set("Authorization", "Bearer "+c.token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		w.contract.Check(t, req, nil, resp)
		if want := map[bool]int{true: 200, false: 429}[n < 5]; resp.StatusCode != want {
			t.Errorf("stream %d: %d, want %d", n+1, resp.StatusCode, want)
		}
	}
}
