package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// keyed is a request that creates something, or changes it for good.
type keyed struct {
	name    string
	as      actor
	request string // method and path
	// body makes the n-th request of its kind: all are valid, and no two are the same.
	body func(n int) string
	bad  string // a body that is refused before anything is done for it
	// other has another caller send the same, who is refused for what it is, or done for him: never replayed.
	other actor
}

// TestIdempotencyKeys: one table over every creating endpoint. A key is answered once; what comes again under it hears the
// same bytes and is told so; another request under it is refused; a request that was never executed leaves its key free.
func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	mug := shelf(t, 1000)
	done := basket(t, mug, 2)
	place(t, customer, done)
	await(t, customer, done.OrderID)
	also := basket(t, mug, 2)
	place(t, customer, also)
	await(t, customer, also.OrderID)
	lost := func() string {
		o := basket(t, mug, 1)
		o.Address.City = "Lost"
		place(t, customer, o)
		await(t, customer, o.OrderID)
		return o.OrderID
	}()
	to, err := json.Marshal(done.Address)
	if err != nil {
		t.Fatal(err)
	}
	price := get[product](t, admin, "/products/"+mug).Price
	ids := map[string]string{}
	var mu sync.Mutex
	id := func(prefix string, n int) string { // the same for the same n
		mu.Lock()
		defer mu.Unlock()
		at := fmt.Sprint(prefix, n)
		if ids[at] == "" {
			ids[at] = unique(prefix)
		}
		return ids[at]
	}
	for _, row := range []keyed{
		{"orders", customer, "POST /orders", func(n int) string {
			return fmt.Sprintf(`{"order_id":%q,"amount":5,"payment_method":"card"}`, id("ik", n))
		}, `{"order_id":"a b","amount":5,"payment_method":"card"}`, nobody},
		{"orders without an id", customer, "POST /orders", func(n int) string {
			return fmt.Sprintf(`{"amount":%d,"payment_method":"card"}`, 5+n)
		}, `{"amount":0,"payment_method":"card"}`, customer2},
		{"decisions", operator, "POST /orders/" + lost + "/resolve", func(n int) string {
			return fmt.Sprintf(`{"action":"refund","goods":"lost","reason":"told %d"}`, n)
		}, `{"action":"forget"}`, nobody},
		{"payments", customer, "POST /payments", func(n int) string {
			o := []newOrder{done, also}[n%2]
			return fmt.Sprintf(`{"order_id":%q,"amount":%s,"payment_method":"card"}`, o.OrderID, o.Amount)
		}, `{"order_id":"a b","amount":5,"payment_method":"card"}`, customer2},
		{"reservations", merchant, "POST /inventory/reserve", func(n int) string {
			return fmt.Sprintf(`{"order_id":%q,"items":[{"product_id":%q,"quantity":1}]}`, id("ih", n), mug)
		}, `{"order_id":"a b","items":[]}`, nobody},
		{"releases", merchant, "POST /inventory/release", func(n int) string {
			return fmt.Sprintf(`{"order_id":%q}`, id("ir", n))
		}, `{"order_id":"a b"}`, nobody},
		{"restocks", merchant, "POST /inventory/restock", func(n int) string {
			return fmt.Sprintf(`{"product_id":%q,"quantity":%d,"reason":"delivery"}`, mug, 1+n)
		}, `{"product_id":"","quantity":0}`, merchant2},
		{"stock-takes", merchant, "POST /inventory/stocktakes", func(n int) string {
			return fmt.Sprintf(`{"reason":"count %d","counts":[{"product_id":%q,"counted":0}]}`, n, id("none", 0))
		}, `{"reason":"","counts":[]}`, nobody},
		{"products", merchant, "PUT /products/" + unique("p"), func(n int) string {
			return fmt.Sprintf(`{"name":"Cup %d","price":5}`, n)
		}, `{"name":""}`, merchant2},
		{"shipments", operator, "POST /shipping", func(n int) string {
			o := []newOrder{done, also}[n%2]
			return fmt.Sprintf(`{"order_id":%q,"address":%s,"items":[{"product_id":%q,"quantity":2}]}`, o.OrderID, to, mug)
		}, `{"order_id":"a b"}`, nobody},
		{"events", merchant, "POST /events", func(n int) string {
			return fmt.Sprintf(`{"events":[{"payload":{"n":%d}}]}`, n)
		}, `{"events":[]}`, merchant2},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if row.name == "stock-takes" { // of a product that nobody sells
				p := id("none", 0)
				if r := merchant.do(t, http.MethodPut, "/products/"+p, map[string]any{"name": "None", "price": 1}); r.status != http.StatusCreated {
					t.Fatalf("%d %s", r.status, r.body)
				}
			}
			method, path, _ := strings.Cut(row.request, " ")
			send := func(who actor, key, body string) reply {
				t.Helper()
				r, err := who.try(t.Context(), method, path, http.Header{"Idempotency-Key": {key}}, body)
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			key := unique("key")

			// What is refused for itself was not executed: the key stays free.
			if r := send(row.as, key, row.bad); r.status/100 != 4 || r.header.Get("Idempotent-Replayed") != "" {
				t.Errorf("a bad request: %d %s", r.status, r.body)
			}
			if r := send(row.as, "a b", row.body(0)); r.status != http.StatusBadRequest || r.slug() != "idempotency-key-invalid" {
				t.Errorf("a bad key: %d %s", r.status, r.body)
			}

			// Eight at once: one is executed, all hear the same.
			answers := make([]reply, 8)
			var wg sync.WaitGroup
			for i := range answers {
				wg.Go(func() {
					r, err := row.as.try(t.Context(), method, path, http.Header{"Idempotency-Key": {key}}, row.body(0))
					if err != nil {
						t.Error(err)
					}
					answers[i] = r
				})
			}
			wg.Wait()
			first := 0
			for _, r := range answers {
				if r.status/100 != 2 || string(r.body) != string(answers[0].body) || r.header.Get("Location") != answers[0].header.Get("Location") {
					t.Errorf("at once: %d %s, another heard %d %s", r.status, r.body, answers[0].status, answers[0].body)
				}
				if r.header.Get("Idempotent-Replayed") != "true" {
					first++
				}
			}
			if first != 1 {
				t.Errorf("%d of 8 at once were executed", first)
			}

			// Later, and with the key written as a structured field.
			if r := send(row.as, `"`+key+`"`, row.body(0)); r.status != answers[0].status || string(r.body) != string(answers[0].body) || r.header.Get("Idempotent-Replayed") != "true" {
				t.Errorf("again: %d %s %v, first %d %s", r.status, r.body, r.header, answers[0].status, answers[0].body)
			}
			if r := send(row.as, key, row.body(1)); r.status != http.StatusUnprocessableEntity || r.slug() != "idempotency-key-reused" {
				t.Errorf("another request under the key: %d %s", r.status, r.body)
			}
			// Another caller's same key is another key.
			if row.other != nobody {
				if r := send(row.other, key, row.body(0)); r.header.Get("Idempotent-Replayed") != "" {
					t.Errorf("another caller heard %d %s", r.status, r.body)
				}
			}
		})
	}

	// Cancelling has no body: the order is what the key is for.
	t.Run("cancellations", func(t *testing.T) {
		t.Parallel()
		key := http.Header{"Idempotency-Key": {unique("key")}}
		slow := newOrder{OrderID: unique("slow"), Amount: times(price, 1), Currency: "EUR", PaymentMethod: "card_slow", Items: []item{{mug, 1}}, Address: berlin()}
		place(t, customer, slow)
		cancel := func(id string) reply {
			r, err := customer.try(t.Context(), http.MethodPost, "/orders/"+id+"/cancel", key, nil)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		first, again := cancel(slow.OrderID), cancel(slow.OrderID)
		if first.status/100 != 2 || again.status != first.status || string(again.body) != string(first.body) || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%d %s, then %d %s", first.status, first.body, again.status, again.body)
		}
		if r := cancel(done.OrderID); r.status != http.StatusUnprocessableEntity || r.slug() != "idempotency-key-reused" {
			t.Errorf("another order under the key: %d %s", r.status, r.body)
		}
		await(t, customer, slow.OrderID)
	})
}
