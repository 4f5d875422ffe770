package httpapi_test

import (
	"fmt"
	"strings"
)

// badInput is RELIABILITY 7, as far as a handler answers it: what concerns paths, header blocks and slow clients is
// answered by the server around it.
func (w *world) badInput() {
	m := w.merchant()
	type endpoint struct{ method, path, token, good string }
	endpoints := []endpoint{
		{"POST", "/inventory/reserve", m, reserveOf("x-1", "mug", 1)},
		{"POST", "/inventory/release", m, `{"order_id":"x-1"}`},
		{"POST", "/inventory/restock", m, `{"product_id":"mug","quantity":1,"reason":"delivery"}`},
		{"POST", "/inventory/stocktakes", m, `{"reason":"x","counts":[{"product_id":"cup","counted":1}]}`},
		{"PUT", "/products/cup", m, `{"name":"Cup","price":1}`},
	}
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	key := []string{"Idempotency-Key", "bad-input"}
	for _, e := range endpoints {
		member := strings.SplitN(e.good, `"`, 3)[1]
		for _, row := range []struct {
			status     int
			slug, body string
		}{
			{400, "malformed-json", " "},
			{400, "malformed-json", e.good[:len(e.good)-1]},
			{400, "malformed-json", "\ufeff" + e.good},
			{400, "malformed-json", e.good + `{}`},
			{400, "malformed-json", "null"},
			{400, "malformed-json", "[" + e.good + "]"},
			{400, "malformed-json", `{"` + member + `":null}`},
			{400, "malformed-json", strings.Replace(e.good, "{", `{"`+member+`":"x","`+member+`":"x",`, 1)},
			{400, "unknown-field", strings.Replace(e.good, member, strings.ToUpper(member), 1)},
			{400, "unknown-field", strings.Replace(e.good, "{", `{"admin":true,`, 1)},
			{400, "malformed-json", `{"` + member + "\":\"\xff\"}"},
			{400, "malformed-json", `{"` + member + `":"\ud800"}`},
			{400, "malformed-json", `{"` + member + `":"\u0000"}`},
			{400, "too-deep", deep},
			{400, "invalid-type", `{"` + member + `":7}`},
			{413, "body-too-large", `{"` + member + `":"` + strings.Repeat("x", 70<<10) + `"}`},
		} {
			w.want(row.status, row.slug, e.token, e.method, e.path, row.body, key...)
		}
		w.want(415, "unsupported-media-type", e.token, e.method, e.path, e.good, "Content-Type", "text/plain", "Idempotency-Key", "k")
		w.want(415, "unsupported-media-type", e.token, e.method, e.path, e.good, "Content-Type", "application/x-www-form-urlencoded", "Idempotency-Key", "k")
		w.want(415, "unsupported-media-type", e.token, e.method, e.path, e.good, "Content-Encoding", "gzip", "Idempotency-Key", "k")
		w.want(401, "unauthenticated", "", e.method, e.path, e.good)
		w.want(401, "invalid-token", "not.a.token", e.method, e.path, e.good)
		w.want(403, "forbidden", w.customer(), e.method, e.path, e.good, key...)
		w.want(400, "unknown-parameter", e.token, e.method, e.path+"?force=1", e.good, key...)
		if e.method == "POST" {
			if a := w.want(405, "method-not-allowed", e.token, "DELETE", e.path, ""); a.header.Get("Allow") != "POST" {
				w.t.Errorf("Allow: %q", a.header.Get("Allow"))
			}
		}
	}

	// Ids and quantities.
	long := strings.Repeat("o", 65)
	for _, id := range []string{long, "..", "a b", "ä", "a/b", "../x", "' OR 1=1 --", "${jndi:x}", "\u202eabc", "<script>"} {
		w.want(422, "invalid-field", m, "POST", "/inventory/reserve", reserveOf(id, "mug", 1))
		w.want(422, "invalid-field", m, "POST", "/inventory/release", fmt.Sprintf(`{"order_id":%q}`, id))
		w.want(422, "invalid-field", m, "POST", "/inventory/reserve", reserveOf("x-1", id, 1))
	}
	w.want(400, "idempotency-key-missing", m, "POST", "/inventory/reserve", `{"items":[{"product_id":"mug","quantity":1}]}`)
	w.want(422, "invalid-field", m, "POST", "/inventory/reserve", `{"items":[{"product_id":"mug","quantity":1}]}`, key...)
	w.want(400, "idempotency-key-missing", m, "POST", "/inventory/release", `{}`)
	for _, q := range []string{"0", "-1", "1000000001", "9223372036854775807"} {
		w.want(422, "invalid-field", m, "POST", "/inventory/reserve", reserveOf("x-1", "mug", q))
	}
	for _, q := range []string{`"1"`, "true", "1.0", "1e2", "9223372036854775808", "-0", "[1]", "{}"} {
		w.want(400, "invalid-type", m, "POST", "/inventory/reserve", reserveOf("x-1", "mug", q))
	}
	w.want(400, "malformed-json", m, "POST", "/inventory/reserve", reserveOf("x-1", "mug", "NaN"))
	w.want(422, "invalid-field", m, "POST", "/inventory/reserve", `{"order_id":"x-1","items":[{"product_id":"mug","quantity":1000000000},{"product_id":"mug","quantity":1}]}`)
	w.want(422, "invalid-field", m, "POST", "/inventory/reserve", `{"order_id":"x-1","items":[]}`)
	w.want(422, "invalid-field", m, "POST", "/inventory/reserve", `{"order_id":"x-1"}`)
	lines := func(n int) string {
		return `{"order_id":"x-1","items":[` + strings.TrimSuffix(strings.Repeat(`{"product_id":"mug","quantity":1},`, n), ",") + `]}`
	}
	w.want(422, "too-many-items", m, "POST", "/inventory/reserve", lines(101))
	w.want(400, "too-many-items", m, "POST", "/inventory/reserve", lines(1001))
	w.want(422, "too-many-items", w.order(), "POST", "/inventory/reservations", `{"reservations":[`+strings.Replace(lines(101), "{", `{"tenant":1,"amount":1,"currency":"EUR",`, 1)+`]}`)
	for _, bad := range []string{"", strings.Repeat("k", 256), "a b", "ü", `"open`, `"a"b`} {
		if bad == "" || bad == "ü" {
			continue // net/http does not send them
		}
		w.want(400, "idempotency-key-invalid", m, "POST", "/inventory/reserve", reserveOf("x-1", "mug", 1), "Idempotency-Key", bad)
	}

	// Prices.
	for body, want := range map[string]string{
		`{"name":"Cup","price":1.005}`:                                    "422 invalid-field",
		`{"name":"Cup","price":1.5,"currency":"JPY"}`:                     "422 invalid-field",
		`{"name":"Cup","price":1,"currency":"XXX"}`:                       "422 invalid-field",
		`{"name":"Cup","price":1,"currency":"eur"}`:                       "422 invalid-field",
		`{"name":"Cup","price":-1}`:                                       "422 invalid-field",
		`{"name":"Cup","price":10000000001}`:                              "422 invalid-field",
		`{"name":"Cup"}`:                                                  "422 invalid-field",
		`{"name":" ","price":1}`:                                          "422 invalid-field",
		`{"name":"` + strings.Repeat("n", 201) + `","price":1}`:           "422 invalid-field",
		`{"name":"a\u202eb","price":1}`:                                   "422 invalid-field",
		`{"name":"a\nb","price":1}`:                                       "422 invalid-field",
		`{"name":"Cup","price":"1"}`:                                      "400 invalid-type",
		`{"name":"Cup","price":1e2}`:                                      "400 invalid-type",
		`{"name":"Cup","price":true}`:                                     "400 invalid-type",
		`{"name":"Cup","price":-0}`:                                       "400 invalid-type",
		`{"name":"Cup","price":[1]}`:                                      "400 invalid-type",
		`{"name":"Cup","price":` + strings.Repeat("1", 40) + `}`:          "400 invalid-type",
		`{"name":"Cup","price":NaN}`:                                      "400 malformed-json",
		`{"name":"Cup","price":1,"on_hand":5}`:                            "400 unknown-field",
		`{"name":"Cup","price":1,"currency":"EUR","currency":"EUR"}`:      "400 malformed-json",
		`{"name":"Cup","price":0.1000}`:                                   "422 invalid-field",
		`{"name":"Cup","price":1,"tenant":2}`:                             "400 unknown-field",
		`{"name":"Cup","price":9223372036854775808}`:                      "422 invalid-field",
		`{"name":"` + strings.Repeat("\u00e9", 200) + `","price":4.5}`:    "200 ",
		`{"name":"Cup","price":4.5,"currency":"EUR"}`:                     "200 ",
		`{"name":"Robert'); DROP TABLE products;--","price":4.50}`:        "200 ",
		`{"name":"{{.}} ${x} %s \u0041","price":4.50, "currency": "EUR"}`: "200 ",
	} {
		if a := w.call(m, "PUT", "/products/cup", body); fmt.Sprint(a.status, " ", a.slug()) != want {
			w.t.Errorf("PUT %s: %d %s, want %s: %s", body, a.status, a.slug(), want, a.raw)
		}
	}

	// Lists.
	for _, q := range []string{"limit=0", "limit=101", "limit=-1", "limit=x", "limit=1e1", "limit=%201", "limit=+5", "limit=", "tenant=0", "tenant=x"} {
		w.want(400, "invalid-field", m, "GET", "/products?"+q, "")
		w.want(400, "invalid-field", m, "GET", "/inventory/movements?"+q, "")
	}
	products := w.want(200, "", m, "GET", "/products?limit=1", "").body["next"].(string)
	for _, c := range []string{"x", "!!", "cA", strings.Repeat("A", 200), "bXg"} {
		w.want(400, "invalid-cursor", m, "GET", "/products?cursor="+c, "")
	}
	w.want(400, "invalid-cursor", m, "GET", "/inventory/movements?cursor="+products, "")
	w.want(400, "unknown-parameter", m, "GET", "/products?limit=1&limit=2", "")
	w.want(400, "unknown-parameter", m, "GET", "/products?sort=price", "")
	w.want(400, "invalid-field", m, "GET", "/products/a%20b", "")
	w.want(400, "invalid-field", m, "PUT", "/products/"+long, `{"name":"Cup","price":1}`)
	w.want(401, "unauthenticated", "", "GET", "/products", "")
	w.want(401, "unauthenticated", "", "GET", "/products/mug", "")
	w.want(401, "unauthenticated", "", "GET", "/inventory/movements", "")
	w.want(401, "unauthenticated", "", "POST", "/inventory/reservations", "{}")
	w.want(401, "invalid-token", w.issuer.ServiceToken("order", "payment"), "POST", "/inventory/reservations", pinOf("x-1", "mug", 1, 500))
	w.want(404, "not-found", m, "GET", "/nowhere", "")
	w.want(404, "not-found", m, "GET", "/debug/pprof/", "")
	w.want(404, "not-found", m, "GET", "/metrics", "")
	w.want(404, "not-found", w.merchant(), "GET", "/products?tenant=2", "")
}
