package e2e_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const nowhere = "0199a000-0000-7000-8000-000000000000" // the id of no intervention

func times3k(s string) string { return strings.Repeat(s, 3<<10/len(s)) }

// everywhere is what is refused before anybody looks at what was asked for.
func everywhere() (rows []row) {
	many := "x=1"
	for n := range 100 {
		many += fmt.Sprintf("&p%d=1", n)
	}
	rows = append(rows, []row{
		{name: "unknown path", as: customer, request: "GET /nothing/here", status: 404, slug: "not-found"},
		{name: "unknown path, no token", request: "GET /nothing/here", status: 404, slug: "not-found"},
		{name: "profiles are not public", as: admin, request: "GET /debug/pprof/", status: 404, slug: "not-found"},
		{name: "profiles, by name", as: admin, request: "GET /debug/pprof/goroutine?debug=2", status: 404, slug: "not-found"},
		{name: "an internal endpoint", as: admin, request: "POST /inventory/reservations", body: `{"reservations":[]}`, status: 404, slug: "not-found"},
		{name: "two slashes", as: customer, request: "GET //orders", status: 400, slug: "bad-path"},
		{name: "two slashes inside", as: customer, request: "GET /orders//x", status: 400, slug: "bad-path"},
		{name: "dot", as: customer, request: "GET /./orders", status: 400, slug: "bad-path"},
		{name: "dot dot", as: customer, request: "GET /products/../orders", status: 400, slug: "bad-path"},
		{name: "dot dot at the end", as: customer, request: "GET /orders/..", status: 400, slug: "bad-path"},
		{name: "escaped dots", as: customer, request: "GET /products/%2e%2e/orders", status: 400, slug: "bad-path"},
		{name: "dots escaped twice", as: customer, request: "GET /products/%252e%252e/orders", status: 400, slug: "bad-path"},
		{name: "escaped slash", as: customer, request: "GET /orders/a%2fb", status: 400, slug: "bad-path"},
		{name: "escaped backslash", as: customer, request: "GET /orders/a%5Cb", status: 400, slug: "bad-path"},
		{name: "NUL", as: customer, request: "GET /orders/a%00b", status: 400, slug: "bad-path"},
		{name: "line break", as: customer, request: "GET /orders/a%0d%0ab", status: 400, slug: "bad-path"},
		{name: "no UTF-8", as: customer, request: "GET /orders/%ff%fe", status: 400, slug: "bad-path"},
		{name: "overlong UTF-8", as: customer, request: "GET /orders/%c0%ae", status: 400, slug: "bad-path"},
		{name: "long path", as: customer, request: "GET /orders/" + times3k("a"), status: 414, slug: "uri-too-long"},
		{name: "long query", as: customer, request: "GET /orders?status=" + times3k("a") + times3k("b"), status: 414, slug: "uri-too-long"},
		{name: "101 parameters", as: customer, request: "GET /orders?" + many, status: 400, slug: "too-many-params"},
		{name: "header with an underscore", as: customer, request: "GET /orders", header: []string{"X_User", "root"}, status: 400, slug: "bad-header"},
		{name: "identity headers", as: customer, request: "GET /interventions/order", status: 403, slug: "forbidden",
			header: []string{"X-User-Id", "admin", "X-User-Roles", "admin", "X-Internal-Service", "order", "X-Tenant-Id", "2"},
			note:   "they are dropped: whoever sends them is who the token says"},
		{name: "identity headers without a token", request: "GET /orders", header: []string{"X-User-Id", "admin", "X-Internal-Service", "order"}, status: 401, slug: "unauthenticated"},
		{name: "a token that Connection names", as: customer, request: "GET /orders", status: 401, slug: "unauthenticated",
			header: []string{"Connection", "Authorization, X-User-Id", "X-User-Id", "admin"},
			note:   "it ends at the gateway, as Connection asks, and nothing else is taken for it"},
		{name: "a rewritten path", as: customer, request: "GET /orders/none-such", header: []string{"X-Original-Url", "/interventions", "X-Rewrite-Url", "/interventions"}, status: 404, slug: "not-found"},
		{name: "another method by header", as: customer, request: "GET /orders/none-such", header: []string{"X-Http-Method-Override", "DELETE"}, status: 404, slug: "not-found"},
		{name: "only XML is welcome", as: customer, request: "GET /orders", header: []string{"Accept", "text/xml"}, status: 406, slug: "not-acceptable"},
		{name: "only a picture is welcome", request: "GET /health", header: []string{"Accept", "audio/mpeg"}, status: 406, slug: "not-acceptable"},
		{name: "trace", as: customer, request: "TRACE /orders", status: 405, slug: "method-not-allowed"},
		{name: "invented method", as: customer, request: "BREW /orders", status: 405, slug: "method-not-allowed"},
		{name: "method in small letters", as: customer, request: "gateway get /orders", status: 405, slug: "method-not-allowed"},
	}...)
	return rows
}

// endpoint is one that takes a body.
type endpoint struct {
	request string
	as, not actor // who may use it, and who may not
	good    string
	member  string // its first member: a string
	key     bool   // needs an Idempotency-Key
}

func endpoints(w *world) []endpoint {
	line := fmt.Sprintf(`{"product_id":%q,"quantity":1}`, w.shelf)
	home := `{"name":"A. Buyer","line1":"1 Main St","city":"Berlin","postal_code":"10115","country":"DE"}`
	return []endpoint{
		{"POST /orders", customer, nobody, `{"order_id":"$id","amount":12.50,"payment_method":"card","email":"$id@example.com","items":[` + line + `],"address":` + home + `}`, "order_id", false},
		{"POST /orders/" + w.done + "/resolve", operator, merchant, `{"action":"refund","reason":"x"}`, "action", false},
		{"POST /payments", customer, nobody, `{"order_id":"` + w.done + `","amount":25,"payment_method":"card"}`, "order_id", false},
		{"POST /inventory/reserve", merchant, customer, `{"order_id":"$id","items":[` + line + `]}`, "order_id", false},
		{"POST /inventory/release", merchant, customer, `{"order_id":"$id"}`, "order_id", false},
		{"POST /inventory/restock", merchant, customer, `{"product_id":"` + w.shelf + `","quantity":1,"reason":"delivery"}`, "product_id", true},
		{"POST /inventory/stocktakes", merchant, customer, `{"reason":"count","counts":[{"product_id":"` + w.shelf + `","counted":1}]}`, "reason", true},
		{"PUT /products/" + w.shelf, merchant, customer, `{"name":"Other","price":1}`, "name", false},
		{"POST /shipping", merchant, customer, `{"order_id":"` + w.done + `","address":` + home + `,"items":[{"product_id":"` + w.shelf + `","quantity":2}]}`, "order_id", false},
		{"POST /auth/login", nobody, nobody, `{"username":"` + w.done + `","password":"` + typed + `"}`, "username", false},
		{"POST /auth/refresh", nobody, nobody, `{"refresh_token":"x"}`, "refresh_token", false},
	}
}

// bodies is what no endpoint reads.
func bodies(w *world) (rows []row) {
	for _, e := range endpoints(w) {
		first := `"` + e.member + `"`
		add := func(name, body string, status int, slug, pointer string, header ...string) {
			if e.key {
				header = append(header, "Idempotency-Key", "bad-input")
			}
			rows = append(rows, row{name: e.request[:strings.LastIndex(e.request, "/")+1] + e.member + " " + name, as: e.as, request: e.request, body: body,
				header: header, status: status, slug: slug, pointer: pointer})
		}
		bad := func(name, body, slug, pointer string) { add(name, body, 400, slug, pointer) }
		bad("white space", " \n", "malformed-json", "")
		add("empty", "", 400, "malformed-json", "", "Content-Type", "application/json")
		bad("truncated", e.good[:len(e.good)-1], "malformed-json", "")
		bad("byte order mark", "\ufeff"+e.good, "malformed-json", "")
		bad("second value", e.good+"{}", "malformed-json", "")
		bad("null", "null", "malformed-json", "")
		bad("array", "["+e.good+"]", "malformed-json", "")
		bad("null member", "{"+first+":null}", "malformed-json", "/"+e.member)
		bad("name twice", strings.Replace(e.good, "{", "{"+first+`:"x",`, 1), "malformed-json", "/"+e.member)
		bad("name in another case", strings.Replace(e.good, first, strings.ToUpper(first), 1), "unknown-field", "/"+strings.ToUpper(e.member))
		bad("unknown name", strings.Replace(e.good, "{", `{"tenant_admin":true,`, 1), "unknown-field", "/tenant_admin")
		bad("no UTF-8", "{"+first+":\"\xff\"}", "malformed-json", "/"+e.member)
		bad("lone surrogate", "{"+first+`:"\ud800"}`, "malformed-json", "/"+e.member)
		bad("U+0000", "{"+first+`:"\u0000"}`, "malformed-json", "/"+e.member)
		bad("too deep", strings.Repeat(`{"a":`, 40)+"1"+strings.Repeat("}", 40), "too-deep", "")
		bad("number for text", "{"+first+":7}", "invalid-type", "/"+e.member)
		bad("object for text", "{"+first+":{}}", "invalid-type", "/"+e.member)
		add("too large", "{"+first+`:"`+strings.Repeat("x", 70<<10)+`"}`, 413, "body-too-large", "")
		add("form", "a=b", 415, "unsupported-media-type", "", "Content-Type", "application/x-www-form-urlencoded")
		add("no type", e.good, 415, "unsupported-media-type", "", "Content-Type", "")
		add("two types", e.good, 415, "unsupported-media-type", "", "Content-Type", "text/plain", "Content-Type", "application/json")
		add("other charset", e.good, 415, "unsupported-media-type", "", "Content-Type", "application/json; charset=utf-16")
		add("compressed", e.good, 415, "unsupported-media-type", "", "Content-Encoding", "gzip")
	}
	return rows
}

// access is who may ask: at the gateway, and of the service without it.
func access(w *world) (rows []row) {
	type may struct {
		service, method, path string
		not                   actor // nobody: every user may ask
		post                  string
	}
	all := []may{
		{"order", "GET", "/orders", nobody, ""},
		{"order", "GET", "/orders/" + w.done, nobody, ""},
		{"order", "GET", "/orders/" + w.done + "/events", nobody, ""},
		{"order", "POST", "/orders/" + w.done + "/cancel", nobody, ""},
		{"order", "GET", "/payment/" + w.done, nobody, ""},
		{"payment", "GET", "/payments/" + w.done, nobody, ""},
		{"inventory", "GET", "/products", nobody, ""},
		{"inventory", "GET", "/products/" + w.shelf, nobody, ""},
		{"inventory", "GET", "/inventory/movements", customer, ""},
		{"shipping", "GET", "/shipping/" + w.done, nobody, ""},
		{"notification", "GET", "/notifications?order_id=" + w.done, customer, ""},
		{"analytics", "GET", "/reports/enterprise", merchant, ""},
		{"analytics", "GET", "/stats/2026-11-22", customer, ""},
		{"analytics", "POST", "/events", customer, `{"events":[]}`},
	}
	for _, e := range endpoints(w) {
		method, path, _ := strings.Cut(e.request, " ")
		service := map[string]string{"orders": "order", "payments": "payment", "inventory": "inventory", "products": "inventory", "shipping": "shipping"}[strings.Split(path, "/")[1]]
		if service != "" {
			all = append(all, may{service, method, path, e.not, e.good})
		}
	}
	for _, e := range all {
		request := e.method + " " + e.path
		add := func(name string, r row) {
			r.name, r.body = name+" "+request, e.post
			rows = append(rows, r)
		}
		add("no token", row{request: request, status: 401, slug: "unauthenticated"})
		add("no token, without the gateway,", row{request: e.service + " " + request, status: 401, slug: "unauthenticated"})
		add("bad token, without the gateway,", row{request: e.service + " " + request, header: []string{"Authorization", "Bearer a.b.c"}, status: 401, slug: "invalid-token"})
		if e.not != nobody {
			add("role", row{as: e.not, request: request, status: 403, slug: "forbidden"})
			add("role, without the gateway,", row{as: e.not, request: e.service + " " + request, status: 403, slug: "forbidden"})
		}
		path, _, _ := strings.Cut(e.path, "?")
		rows = append(rows,
			row{name: "wrong method for " + request, as: admin, request: "PATCH " + path, status: 405, slug: "method-not-allowed"},
			row{name: "unknown parameter for " + request, as: admin, request: e.method + " " + path + "?debug=1", body: e.post, status: 400, slug: "unknown-parameter", pointer: "debug"})
	}
	return append(rows,
		row{name: "an internal endpoint by a user", as: admin, request: "inventory POST /inventory/reservations", body: `{"reservations":[]}`, status: 403, slug: "forbidden"},
		row{name: "service metrics are not public", as: admin, request: "order GET /metrics", status: 404, slug: "not-found"},
		row{name: "service profiles are not public", as: admin, request: "payment GET /debug/pprof/", status: 404, slug: "not-found"},
	)
}

func gatewayRows() []row {
	login := func(user, password string) string {
		return fmt.Sprintf(`{"username":%q,"password":%q}`, user, password)
	}
	return []row{
		{name: "user that is SQL", request: "POST /auth/login", body: login("' OR 1=1 --", typed), status: 401, slug: "invalid-credentials"},
		{name: "no user", request: "POST /auth/login", body: `{"password":"` + typed + `"}`, status: 400, slug: "missing-field", pointer: "/username"},
		{name: "no password", request: "POST /auth/login", body: `{"username":"admin"}`, status: 400, slug: "missing-field", pointer: "/password"},
		{name: "long password", request: "POST /auth/login", body: login("admin", strings.Repeat(typed, 8)), status: 422, slug: "invalid-field", pointer: "/password"},
		{name: "long user", request: "POST /auth/login", body: login(strings.Repeat("a", 129), typed), status: 422, slug: "invalid-field", pointer: "/username"},
		{name: "login is a POST", request: "GET /auth/login", status: 405, slug: "method-not-allowed"},
		{name: "login with a parameter", request: "POST /auth/login?user=admin", body: login("admin", typed), status: 400, slug: "unknown-parameter", pointer: "user"},

		{name: "refresh, unknown", request: "POST /auth/refresh", body: `{"refresh_token":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`, status: 401, slug: "invalid-grant"},
		{name: "refresh, malformed", request: "POST /auth/refresh", body: `{"refresh_token":"` + typed + `"}`, status: 401, slug: "invalid-grant"},
		{name: "refresh without a token", request: "POST /auth/refresh", body: `{}`, status: 400, slug: "missing-field", pointer: "/refresh_token"},
		{name: "refresh is a POST", request: "GET /auth/refresh", status: 405, slug: "method-not-allowed"},

		{name: "logout without a token", request: "POST /auth/logout", status: 401, slug: "unauthenticated"},
		{name: "logout with a bad token", request: "POST /auth/logout", header: []string{"Authorization", "Bearer x.y.z"}, status: 401, slug: "invalid-token"},
		{name: "logout of rubbish", as: customer2, request: "POST /auth/logout", body: `{"refresh_token":""}`, status: 400, slug: "missing-field", pointer: "/refresh_token"},
		{name: "logout with text", as: customer2, request: "POST /auth/logout", body: "bye", header: []string{"Content-Type", "text/plain"}, status: 415, slug: "unsupported-media-type"},

		{name: "protected without a token", request: "GET /protected", status: 401, slug: "unauthenticated"},
		{name: "protected is a GET", as: customer2, request: "POST /protected", status: 405, slug: "method-not-allowed"},

		{name: "health", request: "GET /health?verbose=1&debug=true", status: 200, note: "any query is welcome: probes add their own"},
		{name: "health is a GET", request: "DELETE /health", status: 405, slug: "method-not-allowed"},
		{name: "live", request: "GET /health/live?x", status: 200},
		{name: "ready", request: "GET /health/ready?x", status: 200},
		{name: "metrics is a GET", request: "POST /metrics", status: 405, slug: "method-not-allowed"},
		{name: "keys are not to be written", as: admin, request: "PUT /.well-known/jwks.json", body: "{}", status: 405, slug: "method-not-allowed"},
	}
}

func orderRows(w *world) []row {
	line := fmt.Sprintf(`{"product_id":%q,"quantity":2}`, w.shelf)
	good := `{"order_id":"$id","amount":25.00,"payment_method":"card","email":"$id@example.com","items":[` + line + `],` +
		`"address":{"name":"A. Buyer","line1":"1 Main St","city":"Berlin","postal_code":"10115","country":"DE"}}`
	var rows []row
	post := func(name, old, new string, status int, slug, pointer string, header ...string) {
		if !strings.Contains(good, old) {
			panic("no " + old + " in the order")
		}
		rows = append(rows, row{name: name, as: customer, request: "POST /orders", body: strings.Replace(good, old, new, 1), header: header, status: status, slug: slug, pointer: pointer})
	}
	for _, c := range [][3]string{ // /amount
		{"text", `"25.00"`, "400 invalid-type"}, {"true", "true", "400 invalid-type"}, {"exponent", "1e2", "400 invalid-type"},
		{"minus nothing", "-0", "400 invalid-type"}, {"beyond 2^53", "9007199254740993", "400 invalid-type"}, {"beyond int64", "99999999999999999999", "400 invalid-type"},
		{"list", "[1]", "400 invalid-type"}, {"NaN", "NaN", "400 malformed-json"}, {"infinite", "Infinity", "400 malformed-json"}, {"leading zero", "025", "400 malformed-json"}, {"hex", "0x19", "400 malformed-json"},
		{"nothing", "0", "422 invalid-field"}, {"negative", "-25", "422 invalid-field"}, {"three decimals", "25.001", "422 invalid-field"}, {"too large", "10000000001", "422 invalid-field"},
	} {
		status, slug, _ := strings.Cut(c[2], " ")
		n, _ := strconv.Atoi(status)
		pointer := "/amount"
		if slug == "malformed-json" {
			pointer = "" // it is no value that could be named
		}
		post("amount "+c[0], "25.00", c[1], n, slug, pointer)
	}
	post("no amount", `"amount":25.00,`, "", 422, "invalid-field", "/amount")
	post("yen with decimals", `"amount":25.00`, `"amount":25.50,"currency":"JPY"`, 422, "invalid-field", "/amount")
	post("unknown currency", `"amount"`, `"currency":"XXX","amount"`, 422, "invalid-field", "/currency")
	post("currency in small letters", `"amount"`, `"currency":"eur","amount"`, 422, "invalid-field", "/currency")
	post("unknown method", `"card"`, `"cash"`, 422, "invalid-field", "/payment_method")
	post("no method", `"payment_method":"card",`, "", 422, "invalid-field", "/payment_method")

	for _, c := range [][2]string{{"quantity text", `"2"`}, {"quantity half", "2.5"}, {"quantity with a point", "2.0"}, {"quantity exponent", "1e2"}, {"quantity true", "true"}, {"quantity minus nothing", "-0"},
		{"quantity beyond int64", "9223372036854775808"}} {
		post(c[0], `"quantity":2`, `"quantity":`+c[1], 400, "invalid-type", "/items/0/quantity")
	}
	for _, c := range [][2]string{{"quantity nothing", "0"}, {"quantity negative", "-1"}, {"quantity too large", "10001"}} {
		post(c[0], `"quantity":2`, `"quantity":`+c[1], 422, "invalid-field", "/items/0/quantity")
	}
	post("101 items", line, strings.Repeat(line+",", 100)+line, 422, "too-many-items", "/items")
	post("1,001 items", line, strings.Repeat("{},", 1000)+"{}", 400, "too-many-items", "/items")
	post("product that is SQL", w.shelf, `x' OR 1=1 --`, 422, "invalid-field", "/items/0/product_id")
	post("product unnamed", `"product_id":"`+w.shelf+`",`, "", 422, "invalid-field", "/items/0/product_id")

	for _, c := range [][2]string{{"space", "a b"}, {"too long", strings.Repeat("a", 65)}, {"slash", "a/b"}, {"SQL", "'; DROP TABLE orders;--"}, {"template", "{{.}}"}, {"markup", "<script>"},
		{"lookup", "${jndi:ldap://x}"}, {"letters of elsewhere", "заказ"}, {"turned around", `\u202eabc`}, {"line break", `a\nb`}} {
		post("id "+c[0], `"$id"`, `"`+c[1]+`"`, 422, "invalid-field", "/order_id")
	}

	address := func(name, old, new, pointer string) { post("address "+name, old, new, 422, "address-invalid", pointer) }
	address("none", `,"address":{"name":"A. Buyer","line1":"1 Main St","city":"Berlin","postal_code":"10115","country":"DE"}`, "", "/address")
	address("country unknown", `"DE"`, `"XX"`, "/address/country")
	address("country in small letters", `"DE"`, `"de"`, "/address/country")
	address("postal code of elsewhere", `"10115"`, `"SW1A 1AA"`, "/address/postal_code")
	address("without a city", `"Berlin"`, `""`, "/address/city")
	address("without a name", `"name":"A. Buyer",`, "", "/address/name")
	address("name turned around", "A. Buyer", `a\u202eb`, "/address/name")
	address("name with an escape", "A. Buyer", `a\u001b[2Jb`, "/address/name")
	address("name that forges a log line", "A. Buyer", `a\r\nlevel=error`, "/address/name")
	address("name too long", "A. Buyer", strings.Repeat("n", 1000), "/address/name")
	post("e-mail without a place", `"$id@example.com"`, `"nobody"`, 422, "invalid-field", "/email")
	post("e-mail that adds a header", `"$id@example.com"`, `"a@example.com\r\nBcc: b@example.com"`, 422, "invalid-field", "/email")
	post("e-mail to two", `"$id@example.com"`, `"a@example.com,b@example.com"`, 422, "invalid-field", "/email")

	post("card number as a name", "A. Buyer", panSpace, 422, "pan-not-allowed", "/address/name")
	post("card number as a method", `"card"`, `"`+pan+`"`, 422, "pan-not-allowed", "/payment_method")
	post("card number as an id", `"$id"`, `"`+pan+`"`, 422, "pan-not-allowed", "/order_id")
	post("card number in an e-mail", `"$id@example.com"`, `"`+pan+`@example.com"`, 422, "pan-not-allowed", "/email")

	post("key too long", "{", "{", 400, "idempotency-key-invalid", "", "Idempotency-Key", strings.Repeat("k", 256))
	post("key with a space", "{", "{", 400, "idempotency-key-invalid", "", "Idempotency-Key", "a b")
	post("key half quoted", "{", "{", 400, "idempotency-key-invalid", "", "Idempotency-Key", `"open`)
	post("two keys", "{", "{", 400, "idempotency-key-invalid", "", "Idempotency-Key", "a", "Idempotency-Key", "b")
	taken := `{"order_id":"` + w.cancelled + `","amount":%s,"payment_method":"%s"}`
	o := "/orders/"
	return append(rows, []row{
		{name: "neither id nor key", as: customer, request: "POST /orders", body: `{"amount":5,"payment_method":"card"}`, status: 400, slug: "idempotency-key-missing"},
		{name: "id taken, same body", as: customer, request: "POST /orders", body: fmt.Sprintf(taken, "5", "card_declined"), status: 202},
		{name: "id taken, same body, some key", as: customer, request: "POST /orders", body: fmt.Sprintf(taken, "5.00", "card_declined"), header: []string{"Idempotency-Key", unique("k")}, status: 202},
		{name: "id taken, other amount", as: customer, request: "POST /orders", body: fmt.Sprintf(taken, "6", "card_declined"), status: 409, slug: "order-exists"},
		{name: "id taken, other method", as: customer, request: "POST /orders", body: fmt.Sprintf(taken, "5", "card"), status: 409, slug: "order-exists"},
		{name: "id taken, other caller", as: merchant, request: "POST /orders", body: fmt.Sprintf(taken, "5", "card_declined"), status: 409, slug: "order-exists"},
		{name: "id taken by another tenant", as: customer, request: "POST /orders", body: `{"order_id":"` + w.foreign + `","amount":5,"payment_method":"card"}`, status: 409, slug: "order-exists"},

		{name: "bad id", as: customer, request: "GET /orders/a:b", status: 400, slug: "invalid-field", pointer: "order_id"},
		{name: "long id", as: customer, request: "GET /orders/" + strings.Repeat("a", 65), status: 400, slug: "invalid-field", pointer: "order_id"},
		{name: "id that is SQL", as: customer, request: "GET /orders/'%20OR%201=1", status: 400, slug: "invalid-field", pointer: "order_id"},
		{name: "no such order", as: customer, request: "GET /orders/$id", status: 404, slug: "not-found"},
		{name: "order of another tenant", as: customer, request: "GET " + o + w.foreign, status: 404, slug: "not-found"},
		{name: "order of another tenant, for a merchant", as: merchant, request: "GET " + o + w.foreign, status: 404, slug: "not-found"},
		{name: "order of another customer", as: customer2, request: "GET " + o + w.done, status: 404, slug: "not-found"},
		{name: "payment, bad id", as: customer, request: "GET /payment/a:b", status: 400, slug: "invalid-field", pointer: "order_id"},
		{name: "payment of no order", as: customer, request: "GET /payment/$id", status: 404, slug: "not-found"},
		{name: "payment of another tenant", as: customer, request: "GET /payment/" + w.foreign, status: 404, slug: "not-found"},

		{name: "limit nothing", as: customer, request: "GET /orders?limit=0", status: 400, slug: "invalid-field", pointer: "limit"},
		{name: "limit negative", as: customer, request: "GET /orders?limit=-1", status: 400, slug: "invalid-field", pointer: "limit"},
		{name: "limit too large", as: customer, request: "GET /orders?limit=101", status: 400, slug: "invalid-field", pointer: "limit"},
		{name: "limit of letters", as: customer, request: "GET /orders?limit=all", status: 400, slug: "invalid-field", pointer: "limit"},
		{name: "limit empty", as: customer, request: "GET /orders?limit=", status: 400, slug: "invalid-field", pointer: "limit"},
		{name: "limit twice", as: customer, request: "GET /orders?limit=1&limit=2", status: 400, slug: "unknown-parameter", pointer: "limit"},
		{name: "unknown status", as: customer, request: "GET /orders?status=COMPLETED", status: 400, slug: "invalid-field", pointer: "status"},
		{name: "unknown reason", as: customer, request: "GET /orders?reason=none", status: 400, slug: "invalid-field", pointer: "reason"},
		{name: "time in words", as: customer, request: "GET /orders?from=yesterday", status: 400, slug: "invalid-field", pointer: "from"},
		{name: "year 0", as: customer, request: "GET /orders?from=0000-01-01", status: 400, slug: "invalid-field", pointer: "from"},
		{name: "year 9999", as: customer, request: "GET /orders?to=9999-12-31T23:59:59Z", status: 400, slug: "invalid-field", pointer: "to"},
		{name: "leap second", as: customer, request: "GET /orders?to=2026-12-31T23:59:60Z", status: 400, slug: "invalid-field", pointer: "to"},
		{name: "times the wrong way round", as: customer, request: "GET /orders?from=2026-02-01&to=2026-01-01", status: 400, slug: "invalid-field", pointer: "to"},
		{name: "forged cursor", as: customer, request: "GET /orders?cursor=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", status: 400, slug: "invalid-cursor"},
		{name: "cursor that is SQL", as: customer, request: "GET /orders?cursor=%27%3B--", status: 400, slug: "invalid-cursor"},

		{name: "cancel, bad id", as: customer, request: "POST /orders/a:b/cancel", status: 400, slug: "invalid-field", pointer: "order_id"},
		{name: "cancel of no order", as: customer, request: "POST /orders/$id/cancel", status: 404, slug: "not-found"},
		{name: "cancel of another tenant's", as: customer, request: "POST " + o + w.foreign + "/cancel", status: 404, slug: "not-found"},
		{name: "cancel of what is completed", as: customer, request: "POST " + o + w.done + "/cancel", status: 409, slug: "not-cancellable"},
		{name: "cancel of what is cancelled", as: customer, request: "POST " + o + w.cancelled + "/cancel", status: 200},
		{name: "cancel with a body", as: customer, request: "POST " + o + w.done + "/cancel", body: `{"why":"x"}`, status: 400, slug: "unknown-field", pointer: "/why"},
		{name: "cancel with text", as: customer, request: "POST " + o + w.done + "/cancel", body: "please", header: []string{"Content-Type", "text/plain"}, status: 415, slug: "unsupported-media-type"},
		{name: "cancel with a bad key", as: customer, request: "POST " + o + w.done + "/cancel", header: []string{"Idempotency-Key", "a b"}, status: 400, slug: "idempotency-key-invalid"},

		{name: "nothing to resolve", as: operator, request: "POST " + o + w.done + "/resolve", body: `{"action":"refund","reason":"x"}`, status: 409, slug: "not-resolvable"},
		{name: "resolve of no order", as: operator, request: "POST /orders/$id/resolve", body: `{"action":"refund","reason":"x"}`, status: 404, slug: "not-found"},
		{name: "resolve, unknown action", as: operator, request: "POST " + o + w.done + "/resolve", body: `{"action":"forget","reason":"x"}`, status: 422, slug: "invalid-field", pointer: "/action"},
		{name: "resolve without a reason", as: operator, request: "POST " + o + w.done + "/resolve", body: `{"action":"refund"}`, status: 422, slug: "invalid-field", pointer: "/reason"},
		{name: "resolve with a card number", as: operator, request: "POST " + o + w.done + "/resolve", body: `{"action":"refund","reason":"` + pan + `"}`, status: 422, slug: "pan-not-allowed", pointer: "/reason"},
		{name: "resolve, unknown goods", as: operator, request: "POST " + o + w.done + "/resolve", body: `{"action":"refund","goods":"eaten","reason":"x"}`, status: 422, slug: "invalid-field", pointer: "/goods"},

		{name: "events of no order", as: customer, request: "GET /orders/$id/events", status: 404, slug: "not-found"},
		{name: "events of another tenant's", as: customer, request: "GET " + o + w.foreign + "/events", status: 404, slug: "not-found"},
		{name: "events, bad id", as: customer, request: "GET /orders/a:b/events", status: 400, slug: "invalid-field", pointer: "order_id"},
		{name: "events after letters", as: customer, request: "GET " + o + w.done + "/events", header: []string{"Last-Event-ID", "x"}, status: 400, slug: "invalid-field", pointer: "Last-Event-ID"},
		{name: "events after a negative one", as: customer, request: "GET " + o + w.done + "/events", header: []string{"Last-Event-ID", "-1"}, status: 400, slug: "invalid-field", pointer: "Last-Event-ID"},
		{name: "events after too many", as: customer, request: "GET " + o + w.done + "/events", header: []string{"Last-Event-ID", "99999999999999999999"}, status: 400, slug: "invalid-field", pointer: "Last-Event-ID"},
	}...)
}

func paymentRows(w *world) []row {
	body := func(id, amount, rest string) string {
		return fmt.Sprintf(`{"order_id":%q,"amount":%s,"payment_method":"card"%s}`, id, amount, rest)
	}
	var rows []row
	post := func(name string, a actor, body string, status int, slug, pointer string, header ...string) {
		rows = append(rows, row{name: name, as: a, request: "POST /payments", body: body, header: header, status: status, slug: slug, pointer: pointer})
	}
	post("order unknown", customer, body("$id", "5", ""), 404, "not-found", "")
	post("order of another tenant", customer, body(w.foreign, "5", ""), 404, "not-found", "")
	post("order of another tenant, for a merchant", merchant, body(w.foreign, "5", ""), 404, "not-found", "")
	post("order of another customer", customer2, body(w.done, "25", ""), 404, "not-found", "")
	post("other amount", customer, body(w.done, "25.01", ""), 422, "amount-mismatch", "/amount")
	post("other currency", customer, body(w.done, "25", `,"currency":"USD"`), 422, "amount-mismatch", "")
	post("order failed", customer, body(w.failed, "5", ""), 409, "order-closed", "")
	// The order is cancelled because of its payment: who asks for it again is told what became of that.
	post("order cancelled", customer, body(w.cancelled, "5", ""), 202, "", "")
	// The second caller gets what became of the first one's: the platform paid this order itself.
	post("paid already, by some key", customer, body(w.done, "25", ""), 202, "", "", "Idempotency-Key", unique("k"))
	post("paid already, by another", customer, body(w.done, "25", ""), 202, "", "", "Idempotency-Key", unique("k"))
	post("bad key", customer, body(w.done, "25", ""), 400, "idempotency-key-invalid", "", "Idempotency-Key", "a b")
	for _, c := range [][3]string{{"text", `"25"`, "400"}, {"true", "true", "400"}, {"exponent", "1e2", "400"}, {"minus nothing", "-0", "400"}, {"negative", "-1", "422"}, {"nothing", "0", "422"}, {"three decimals", "25.001", "422"}} {
		status, slug := 400, "invalid-type"
		if c[2] == "422" {
			status, slug = 422, "invalid-field"
		}
		post("amount "+c[0], customer, body(w.done, c[1], ""), status, slug, "/amount")
	}
	post("no amount", customer, `{"order_id":"$id","payment_method":"card"}`, 422, "invalid-field", "/amount")
	post("no order", customer, `{"amount":5,"payment_method":"card"}`, 422, "invalid-field", "/order_id")
	post("id that is SQL", customer, body("' OR 1=1", "5", ""), 422, "invalid-field", "/order_id")
	post("unknown method", customer, `{"order_id":"$id","amount":5,"payment_method":"cash"}`, 422, "invalid-field", "/payment_method")
	post("card number", customer, `{"order_id":"$id","amount":5,"payment_method":"`+panSpace+`"}`, 422, "pan-not-allowed", "/payment_method")
	post("currency in small letters", customer, body("$id", "5", `,"currency":"eur"`), 422, "invalid-field", "/currency")
	return append(rows,
		row{name: "bad id", as: customer, request: "GET /payments/a:b", status: 400, slug: "invalid-field", pointer: "order_id"},
		row{name: "unknown", as: customer, request: "GET /payments/$id", status: 404, slug: "not-found"},
		row{name: "of another tenant", as: customer, request: "GET /payments/" + w.foreign, status: 404, slug: "not-found"},
		row{name: "of another customer", as: customer2, request: "GET /payments/" + w.done, status: 404, slug: "not-found"},
		row{name: "of an order without any", as: customer, request: "GET /payments/" + w.held, status: 404, slug: "not-found"},
		row{name: "there is no refund over the API", as: admin, request: "POST /payments/" + w.done + "/refund", body: `{"amount":1}`, status: 404, slug: "not-found", note: "refunds are decided at the order: POST /orders/{order_id}/resolve"},
	)
}

func inventoryRows(w *world) []row {
	var rows []row
	post := func(name string, a actor, path, body string, status int, slug, pointer string, header ...string) {
		rows = append(rows, row{name: name, as: a, request: "POST /inventory/" + path, body: body, header: header, status: status, slug: slug, pointer: pointer})
	}
	reserve := func(id, quantity string) string {
		return fmt.Sprintf(`{"order_id":%q,"items":[{"product_id":%q,"quantity":%s}]}`, id, w.shelf, quantity)
	}
	post("not enough", merchant, "reserve", reserve("$id", "8"), 409, "insufficient-stock", "/items/0")
	post("unknown product", merchant, "reserve", `{"order_id":"$id","items":[{"product_id":"no-such-thing","quantity":1}]}`, 422, "unknown-product", "/items/0/product_id")
	post("another tenant's product", merchant2, "reserve", reserve("$id", "1"), 422, "unknown-product", "/items/0/product_id")
	post("same order, same items", merchant, "reserve", reserve(w.held, "3"), 200, "", "")
	post("same order, other items", merchant, "reserve", reserve(w.held, "2"), 409, "reservation-mismatch", "")
	post("order that is cancelled", merchant, "reserve", reserve(w.cancelled, "1"), 409, "reservation-closed", "")
	for _, q := range []string{`"1"`, "true", "1.0", "1e2", "9223372036854775808", "-0"} {
		post("quantity "+q, merchant, "reserve", reserve("$id", q), 400, "invalid-type", "/items/0/quantity")
	}
	for _, q := range []string{"0", "-1", "1000000001", "9223372036854775807"} {
		post("quantity "+q, merchant, "reserve", reserve("$id", q), 422, "invalid-field", "/items/0/quantity")
	}
	line := fmt.Sprintf(`{"product_id":%q,"quantity":1000000000}`, w.shelf)
	post("sum too large", merchant, "reserve", `{"order_id":"$id","items":[`+line+","+line+`]}`, 422, "invalid-field", "")
	post("no items", merchant, "reserve", `{"order_id":"$id","items":[]}`, 422, "invalid-field", "/items")
	post("101 items", merchant, "reserve", `{"order_id":"$id","items":[`+strings.Repeat(line+",", 100)+line+`]}`, 422, "too-many-items", "/items")
	post("id that is SQL", merchant, "reserve", reserve("' OR 1=1 --", "1"), 422, "invalid-field", "/order_id")
	post("neither id nor key", merchant, "reserve", `{"items":[`+line+`]}`, 400, "idempotency-key-missing", "")

	post("release of what is paid", merchant, "release", fmt.Sprintf(`{"order_id":%q}`, w.done), 409, "reservation-in-use", "")
	post("release by another tenant", merchant2, "release", fmt.Sprintf(`{"order_id":%q}`, w.held), 404, "not-found", "")
	gone := unique("gone")
	post("release of nothing", merchant, "release", fmt.Sprintf(`{"order_id":%q}`, gone), 200, "", "")
	post("release of nothing, again", merchant, "release", fmt.Sprintf(`{"order_id":%q}`, gone), 200, "", "")
	post("reserve after the release", merchant, "reserve", reserve(gone, "1"), 409, "reservation-closed", "")
	post("release, bad id", merchant, "release", `{"order_id":"a b"}`, 422, "invalid-field", "/order_id")

	key := func() (string, string) { return "Idempotency-Key", unique("k") }
	stock := func(quantity, reason string) string {
		return fmt.Sprintf(`{"product_id":%q,"quantity":%s%s}`, w.shelf, quantity, reason)
	}
	for _, c := range []struct {
		name, body string
		status     int
		slug       string
		pointer    string
	}{
		{"below what is reserved", stock("-8", `,"reason":"loss"`), 409, "below-reserved", ""},
		{"below nothing", stock("-1000000000", `,"reason":"loss"`), 409, "below-reserved", ""},
		{"nothing", stock("0", `,"reason":"loss"`), 422, "invalid-field", "/quantity"},
		{"too much", stock("1000000001", `,"reason":"loss"`), 422, "invalid-field", "/quantity"},
		{"more than a number holds", stock("9223372036854775808", `,"reason":"loss"`), 400, "invalid-type", "/quantity"},
		{"without a reason", stock("1", ""), 422, "invalid-field", "/reason"},
		{"with a reason over two lines", stock("1", `,"reason":"a\nb"`), 422, "invalid-field", "/reason"},
		{"of an unknown product", `{"product_id":"no-such-thing","quantity":1,"reason":"x"}`, 422, "unknown-product", "/product_id"},
	} {
		k, v := key()
		post("restock "+c.name, merchant, "restock", c.body, c.status, c.slug, c.pointer, k, v)
	}
	k, v := key()
	post("restock for another tenant", merchant, "restock?tenant=2", stock("1", `,"reason":"x"`), 404, "not-found", "", k, v)
	post("restock without a key", merchant, "restock", stock("1", `,"reason":"x"`), 400, "idempotency-key-missing", "")
	k, v = key()
	post("count of nothing", merchant, "stocktakes", `{"reason":"x","counts":[]}`, 422, "invalid-field", "/counts", k, v)
	k, v = key()
	post("count below nothing", merchant, "stocktakes", fmt.Sprintf(`{"reason":"x","counts":[{"product_id":%q,"counted":-1}]}`, w.shelf), 422, "invalid-field", "/counts/0/counted", k, v)
	k, v = key()
	post("count of tomorrow", merchant, "stocktakes", fmt.Sprintf(`{"reason":"x","counted_at":"2999-01-01T00:00:00Z","counts":[{"product_id":%q,"counted":1}]}`, w.shelf), 422, "invalid-field", "/counted_at", k, v)

	put := func(name, body string, status int, slug, pointer string) {
		rows = append(rows, row{name: "product " + name, as: merchant, request: "PUT /products/" + w.shelf, body: body, status: status, slug: slug, pointer: pointer})
	}
	put("price with three decimals", `{"name":"Cup","price":1.005}`, 422, "invalid-field", "/price")
	put("price below nothing", `{"name":"Cup","price":-1}`, 422, "invalid-field", "/price")
	put("price as text", `{"name":"Cup","price":"1"}`, 400, "invalid-type", "/price")
	put("without a price", `{"name":"Cup"}`, 422, "invalid-field", "/price")
	put("without a name", `{"price":1}`, 422, "invalid-field", "/name")
	put("name turned around", `{"name":"a\u202eb","price":1}`, 422, "invalid-field", "/name")
	put("stock by the way", `{"name":"Cup","price":1,"on_hand":5}`, 400, "unknown-field", "/on_hand")
	put("currency unknown", `{"name":"Cup","price":1,"currency":"XXX"}`, 422, "invalid-field", "/currency")
	return append(rows,
		row{name: "product of another tenant", as: merchant2, request: "GET /products/" + w.shelf, status: 404, slug: "not-found"},
		row{name: "products of another tenant", as: merchant, request: "GET /products?tenant=2", status: 404, slug: "not-found"},
		row{name: "products of tenant x", as: operator, request: "GET /products?tenant=x", status: 400, slug: "invalid-field", pointer: "tenant"},
		row{name: "unknown product", as: customer, request: "GET /products/no-such-thing", status: 404, slug: "not-found"},
		row{name: "bad product id", as: customer, request: "GET /products/a%20b", status: 400, slug: "invalid-field"},
		row{name: "products, limit", as: customer, request: "GET /products?limit=101", status: 400, slug: "invalid-field", pointer: "limit"},
		row{name: "products, cursor", as: customer, request: "GET /products?cursor=!!", status: 400, slug: "invalid-cursor"},
		row{name: "movements, limit", as: merchant, request: "GET /inventory/movements?limit=0", status: 400, slug: "invalid-field", pointer: "limit"},
		row{name: "movements, cursor", as: merchant, request: "GET /inventory/movements?cursor=AAAA", status: 400, slug: "invalid-cursor"},
	)
}

func shippingRows(w *world) []row {
	good := fmt.Sprintf(`{"order_id":%q,"address":{"name":"A. Buyer","line1":"1 Main St","city":"Berlin","postal_code":"10115","country":"DE"},"items":[{"product_id":%q,"quantity":2}]}`, w.done, w.shelf)
	var rows []row
	post := func(name string, a actor, old, new string, status int, slug, pointer string, header ...string) {
		rows = append(rows, row{name: name, as: a, request: "POST /shipping", body: strings.Replace(good, old, new, 1), header: header, status: status, slug: slug, pointer: pointer})
	}
	post("not paid", merchant, w.done, w.cancelled, 409, "order-not-paid", "")
	post("unknown order", merchant, w.done, "$id", 409, "order-not-paid", "")
	post("another tenant's order", merchant2, "{", "{", 404, "not-found", "")
	post("other items", merchant, `"quantity":2`, `"quantity":3`, 422, "invalid-field", "/items")
	post("other address", merchant, "Berlin", "Bonn", 202, "", "") // the second caller gets what became of the first one's
	post("no city", merchant, "Berlin", "", 422, "invalid-field", "/address/city")
	// The form is checked; whether there is such a country was, when the order was created.
	post("country in small letters", merchant, `"DE"`, `"de"`, 422, "invalid-field", "/address/country")
	post("id of other characters", merchant, w.done, "a b", 422, "invalid-field", "/order_id")
	post("bad key", merchant, "{", "{", 400, "idempotency-key-invalid", "", "Idempotency-Key", "a b")
	post("quantity as text", merchant, `"quantity":2`, `"quantity":"2"`, 400, "invalid-type", "/items/0/quantity")
	return append(rows,
		row{name: "bad id", as: customer, request: "GET /shipping/a:b", status: 400, slug: "invalid-field", pointer: "order_id"},
		row{name: "unknown", as: customer, request: "GET /shipping/$id", status: 404, slug: "not-found"},
		row{name: "of another tenant", as: customer2, request: "GET /shipping/" + w.done, status: 404, slug: "not-found"},
		row{name: "of an order that is not shipped", as: customer, request: "GET /shipping/" + w.cancelled, status: 404, slug: "not-found"},
	)
}

// sign signs as provider or carrier do (standardwebhooks.com), where their secrets can be read.
func sign(whose, body string, at time.Time) (header []string, ok bool) {
	text, err := os.ReadFile(filepath.Join(platform.data, "secrets.json"))
	var of map[string]string
	if platform.data == "" || err != nil || json.Unmarshal(text, &of) != nil {
		return nil, false
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(of[whose], "whsec_"))
	if err != nil || len(key) == 0 {
		return nil, false
	}
	id, stamp := unique("msg"), strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + stamp + "." + body))
	return []string{"webhook-id", id, "webhook-timestamp", stamp, "webhook-signature", "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))}, true
}

func webhookRows(w *world) (rows []row) {
	forged := []string{"webhook-id", "msg_1", "webhook-timestamp", strconv.FormatInt(time.Now().Unix(), 10), "webhook-signature", "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}
	for _, hook := range []struct{ path, whose, body, bad string }{
		// Done was paid and delivered long ago: neither may be undone by a webhook.
		{"/webhooks/payments", "provider", `{"type":"charge.captured","data":{"key":"$key:charge","order_id":"$key","id":"ch_1","amount":2500,"currency":"EUR","status":"captured"}}`,
			`{"type":"charge.captured","data":{"key":"other:charge","order_id":"` + w.done + `","amount":2500,"currency":"EUR","status":"captured"}}`},
		{"/webhooks/shipping", "carrier", `{"type":"shipment.failed","data":{"key":"$key:ship:1","order_id":"$key","attempt":1,"tracking":"WB1","status":"failed","reason":"x"}}`,
			`{"type":"shipment.failed","data":{"key":"` + w.done + `:ship:1","order_id":"` + w.done + `","attempt":1,"tracking":"WB1","status":"eaten","reason":"x"}}`},
	} {
		known, unknown := strings.ReplaceAll(hook.body, "$key", w.done), strings.ReplaceAll(hook.body, "$key", "never-heard-of")
		add := func(name, body string, header []string, status int, slug string) {
			rows = append(rows, row{name: hook.path + " " + name, request: "POST " + hook.path, body: body, header: header, status: status, slug: slug})
		}
		add("unsigned", known, nil, 401, "invalid-signature")
		add("forged", known, forged, 401, "invalid-signature")
		add("unsigned, with a user's token", known, []string{"Authorization", "Bearer a.b.c"}, 401, "invalid-signature")
		add("as text", known, append([]string{"Content-Type", "text/plain"}, forged...), 415, "unsupported-media-type")
		add("too large", strings.Repeat(" ", 70<<10), forged, 413, "body-too-large")
		rows = append(rows, row{name: hook.path + " is a POST", request: "GET " + hook.path, status: 405, slug: "method-not-allowed"})
		signed := func(name, body string, at time.Time, sent string, status int, slug string) {
			if header, ok := sign(hook.whose, body, at); ok {
				add(name, sent, header, status, slug)
			}
		}
		now := time.Now()
		signed("old", known, now.Add(-6*time.Minute), known, 401, "stale-webhook")
		signed("of tomorrow", known, now.Add(24*time.Hour), known, 401, "stale-webhook")
		signed("changed on its way", known, now, known+" ", 401, "invalid-signature")
		if header, ok := sign(hook.whose, known, now); ok {
			add("compressed", known, append([]string{"Content-Encoding", "gzip"}, header...), 415, "unsupported-media-type")
		}
		signed("about nothing we know", unknown, now, unknown, 202, "")
		signed("broken", `{"data":`, now, `{"data":`, 400, "malformed-json")
		signed("senseless", hook.bad, now, hook.bad, 422, "invalid-field")
		if header, ok := sign(map[string]string{"provider": "carrier", "carrier": "provider"}[hook.whose], known, now); ok {
			add("signed by the other one", known, header, 401, "invalid-signature")
		}
	}
	return rows
}

// readerRows are of those that read only: notification, analytics.
func readerRows(w *world) []row {
	var rows []row
	for _, c := range [][3]string{
		{"without an order", "", "invalid-field"}, {"bad id", "?order_id=a%20b", "invalid-field"}, {"limit", "?order_id=x&limit=101", "invalid-field"},
		{"cursor", "?order_id=x&cursor=-1", "invalid-cursor"}, {"twice", "?order_id=x&order_id=y", "unknown-parameter"},
	} {
		rows = append(rows, row{name: "notifications, " + c[0], as: operator, request: "GET /notifications" + c[1], status: 400, slug: c[2]})
	}
	for _, q := range []string{"0", "367", "x", "-1", "1e1"} {
		rows = append(rows, row{name: "report of days " + q, as: admin, request: "GET /reports/enterprise?days=" + q, status: 400, slug: "invalid-field", pointer: "days"})
	}
	for _, d := range []string{"yesterday", "2026-02-30", "0000-01-01", "9999-12-31", "2026-1-1", "2026-11-22T00:00:00Z"} {
		rows = append(rows, row{name: "stats of " + d, as: merchant, request: "GET /stats/" + d, status: 400, slug: "invalid-field"})
	}
	for _, c := range []struct {
		name, body string
		status     int
		slug       string
	}{
		{"none", `{"events":[]}`, 422, "invalid-field"},
		{"bad id", `{"events":[{"event_id":"x"}]}`, 422, "invalid-field"},
		{"of last century", `{"events":[{"created_at":"1999-01-01T00:00:00Z"}]}`, 422, "invalid-field"},
		{"of the next", `{"events":[{"created_at":"2999-01-01T00:00:00Z"}]}`, 422, "invalid-field"},
		{"negative time", `{"events":[{"processing_time":-1}]}`, 422, "invalid-field"},
		{"list as payload", `{"events":[{"payload":[]}]}`, 422, "invalid-field"},
		{"null", `{"events":null}`, 400, "malformed-json"},
		{"time as text", `{"events":[{"processing_time":"1"}]}`, 400, "invalid-type"},
		{"time that is no number", `{"events":[{"processing_time":NaN}]}`, 400, "malformed-json"},
		{"time beyond a float", `{"events":[{"processing_time":1e999}]}`, 400, "invalid-type"},
		{"1,001", `{"events":[` + strings.Repeat("{},", 1000) + `{}]}`, 400, "too-many-items"},
		{"for another tenant", `{"events":[{"tenant_id":2}]}`, 400, "unknown-field"},
		{"too large", `{"events":[{"payload":{"a":"` + strings.Repeat("a", 70_000) + `"}}]}`, 413, "body-too-large"},
	} {
		rows = append(rows, row{name: "events " + c.name, as: merchant, request: "POST /events", body: c.body, header: []string{"Idempotency-Key", unique("k")}, status: c.status, slug: c.slug})
	}
	return append(rows,
		row{name: "events with neither ids nor key", as: merchant, request: "POST /events", body: `{"events":[{"processing_time":1}]}`, status: 400, slug: "idempotency-key-missing"},
		row{name: "events as text", as: merchant, request: "POST /events", body: `{}`, header: []string{"Content-Type", "text/plain"}, status: 415, slug: "unsupported-media-type"},
	)
}

// interventionRows are the same at every service that keeps interventions.
func interventionRows() (rows []row) {
	for _, service := range []string{"order", "payment", "inventory", "shipping", "notification", "analytics"} {
		base := "/interventions/" + service
		add := func(name string, a actor, request, body string, status int, slug, pointer string) {
			rows = append(rows, row{name: service + " " + name, as: a, request: request, body: body, status: status, slug: slug, pointer: pointer})
		}
		add("list, no token", nobody, "GET "+base, "", 401, "unauthenticated", "")
		add("list, for a customer", customer, "GET "+base, "", 403, "forbidden", "")
		add("list, for a merchant", merchant, "GET "+base, "", 403, "forbidden", "")
		add("list, without the gateway", nobody, service+" GET /interventions", "", 401, "unauthenticated", "")
		add("list, limit", operator, "GET "+base+"?limit=0", "", 400, "invalid-field", "limit")
		add("list, parameter", operator, "GET "+base+"?x=1", "", 400, "unknown-parameter", "x")
		add("none", operator, "GET "+base+"/"+nowhere, "", 404, "not-found", "")
		for _, verb := range []string{"redrive", "discard"} {
			path := "POST " + base + "/" + nowhere + "/" + verb
			add(verb+" of none", operator, path, `{"reason":"x"}`, 404, "not-found", "")
			add(verb+" by a merchant", merchant, path, `{"reason":"x"}`, 403, "forbidden", "")
			add(verb+" without a token", nobody, path, `{"reason":"x"}`, 401, "unauthenticated", "")
		}
		add("bad id", operator, "GET "+base+"/x", "", 404, "not-found", "")
	}
	return append(rows, row{name: "of no service", as: operator, request: "GET /interventions/nobody", status: 404, slug: "not-found"})
}
