package main

import (
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/testkit"
	inventoryv1 "github.com/waybill-dev/waybill/proto/gen/waybill/inventory/v1"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	paymentv1 "github.com/waybill-dev/waybill/proto/gen/waybill/payment/v1"
)

// body is an order of one product.
func body(id, product, method, city string) string {
	return fmt.Sprintf(`{"order_id":%q,"amount":59.90,"payment_method":%q,"email":"a@example.com","items":[{"product_id":%q,"quantity":2}],
		"address":{"name":"A. Buyer","line1":"1 Main St","city":%q,"postal_code":"10115","country":"DE"}}`, id, method, product, city)
}

// path is a story: an order, where it ends, and what was published about it on the way.
type path struct {
	id, body       string
	status, reason string
	sent           []event.Type
}

var (
	created   = event.OrderCreated
	requested = event.OrderPaymentRequested
	paid      = event.OrderPaymentProcessed
	completed = event.OrderCompleted
	cancelled = event.OrderCancelled
	failed    = event.OrderFailed
	attention = event.OrderAttention
	refund    = event.OrderRefundRequested
	resend    = event.OrderShippingRequested
)

// TestService runs the program as main starts it, in a world of its own per story, and holds every answer that is given on
// the way against openapi.yaml. In the end each documented answer must have been given.
func TestService(t *testing.T) {
	contract := testkit.OpenAPI(t, "openapi.yaml")
	t.Run("stories", func(t *testing.T) {
		for name, story := range map[string]func(*testing.T, *world){
			"paths": paths, "cancel": cancel, "deadline": deadline, "person decides": personDecides, "http": overHTTP,
			"database away": databaseAway, "impossible": impossible,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, contract)
				story(t, w)
				w.balanced(t)
			})
		}
	})
	if f := flag.Lookup("test.run"); f.Value.String() == "" { // a part cannot show everything
		contract.Complete(t)
	}
}

// Every path of the saga that needs no person, through two replicas of the service, every foreign event told three times.
func paths(t *testing.T, w *world) {
	url, _ := w.start()
	other, _ := w.start()
	c := w.as(t, url, "customer", "customer")
	stories := []path{
		{"happy", body("happy", "sku-1", "card", "Berlin"), "completed", "", []event.Type{created, requested, paid, completed}},
		{"charge-only", `{"order_id":"charge-only","amount":5,"payment_method":"card"}`, "completed", "", []event.Type{created, requested, paid, completed}},
		{"charge-declined", `{"order_id":"charge-declined","amount":5,"payment_method":"card_declined"}`, "cancelled", "payment_declined", []event.Type{created, requested, cancelled}},
		{"out", body("out", "sku-out", "card", "Berlin"), "failed", "out_of_stock", []event.Type{created, failed}},
		{"none", body("none", "sku-none", "card", "Berlin"), "failed", "unknown_product", []event.Type{created, failed}},
		{"price", body("price", "sku-price", "card", "Berlin"), "failed", "amount_mismatch", []event.Type{created, failed}},
		{"closed", body("closed", "sku-closed", "card", "Berlin"), "failed", "reservation_expired", []event.Type{created, failed}},
		{"declined", body("declined", "sku-1", "card_declined", "Berlin"), "cancelled", "payment_declined", []event.Type{created, requested, cancelled}},
		{"down", body("down", "sku-1", "card_down", "Berlin"), "cancelled", "payment_failed", []event.Type{created, requested, cancelled}},
		{"nowhere", body("nowhere", "sku-1", "card", "Nowhere"), "attention", "shipping_failed", []event.Type{created, requested, paid, attention}},
		// It did happen, and the caller was told time-out: asked again under the same id, or told by the event.
		{"lost", body("lost", "sku-lost", "card", "Berlin"), "completed", "", []event.Type{created, requested, paid, completed}},
		{"told", body("told", "sku-told", "card", "Berlin"), "completed", "", []event.Type{created, requested, paid, completed}},
	}
	for n, p := range stories {
		if n%2 == 1 {
			c.url = other
		} else {
			c.url = url
		}
		c.post(p.body)
	}
	for _, p := range stories {
		doc := c.until(p.id, p.status)
		if doc["reason"] != p.reason {
			t.Errorf("%s: reason %v, want %s", p.id, doc["reason"], p.reason)
		}
		testkit.Eventually(t, 20*time.Second, func() bool { return len(w.types(p.id)) >= len(p.sent) }, "events of "+p.id)
		if diff := cmp.Diff(p.sent, w.types(p.id)); diff != "" {
			t.Errorf("%s: published, want - got +\n%s", p.id, diff)
		}
	}
	// Topics have no order between them: stock may be known by inventory's answer or first by its event, and its booking may
	// come before, between or after what shipping tells.
	var got []string
	wants := []string{"order.created pending", "payment.initiated paying", "payment.processed paid", "shipping.requested shipping",
		"shipping.progress shipping", "shipping.progress shipping", "shipping.completed completed"}
	testkit.Eventually(t, 20*time.Second, func() bool {
		_, doc := c.do("GET", "/orders/happy", "")
		got = timeline(doc)
		return slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, "inventory.updated ") })
	}, "inventory.updated")
	if !slices.Contains(got, "stock.reserved paying") && !slices.Contains(got, "inventory.reserved paying") {
		t.Errorf("stock is not in the timeline: %q", got)
	}
	story := slices.DeleteFunc(slices.Clone(got), func(l string) bool { return !slices.Contains(wants, l) })
	if diff := cmp.Diff(wants, story); diff != "" {
		t.Errorf("timeline %q, want - got +\n%s", got, diff)
	}
	var m orderv1.OrderPaymentProcessed
	w.event(t, "happy", paid, &m)
	if m.Amount != 5990 || m.Currency != "EUR" || m.Email != "a@example.com" || m.Address.GetCity() != "Berlin" || len(m.Items) != 1 || m.Items[0].Quantity != 2 {
		t.Errorf("order.payment_processed says %v", &m)
	}
}

// balanced checks what must be true of the database whatever has happened.
func (w *world) balanced(t testing.TB) {
	t.Helper()
	for what, sql := range map[string]string{
		"parked keys":        `SELECT count(*) FROM parked_keys WHERE closed_at IS NULL`,
		"dead letters":       `SELECT count(*) FROM dead_letters`,
		"tickets too many":   `SELECT count(*) FROM raised_interventions r WHERE closed_at IS NULL AND NOT EXISTS (SELECT FROM orders o WHERE o.order_id = r.subject AND o.status = 'attention')`,
		"tickets too few":    `SELECT count(*) FROM orders o WHERE status = 'attention' AND NOT EXISTS (SELECT FROM raised_interventions r WHERE r.subject = o.order_id AND closed_at IS NULL)`,
		"timelines that lie": `SELECT count(*) FROM orders o WHERE status <> (SELECT status FROM order_history h WHERE h.order_id = o.order_id ORDER BY id DESC LIMIT 1)`,
	} {
		var n int
		if err := w.pool.QueryRow(t.Context(), sql).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d %s, %v", n, what, err)
		}
	}
}

func cancel(t *testing.T, w *world) {
	url, _ := w.start()
	c := w.as(t, url, "customer", "customer")

	// While stock is not answered: at once, and the tombstone is inventory's matter.
	c.post(body("pending", "sku-away", "card", "Berlin"))
	resp, doc := c.do("POST", "/orders/pending/cancel", "")
	if resp.StatusCode != http.StatusOK || doc["status"] != "cancelled" || doc["reason"] != "customer_request" {
		t.Errorf("cancel of a pending order: %d %v", resp.StatusCode, doc)
	}
	if resp, doc = c.do("POST", "/orders/pending/cancel", "{}"); resp.StatusCode != http.StatusOK || doc["status"] != "cancelled" {
		t.Errorf("second cancel: %d %v", resp.StatusCode, doc)
	}

	// While the payment is under way: its outcome is awaited, then refunded.
	c.post(body("paying", "sku-1", "card_slow", "Berlin"))
	c.until("paying", "paying")
	if resp, doc = c.with("Idempotency-Key", "k-1").do("POST", "/orders/paying/cancel", ""); resp.StatusCode != http.StatusAccepted || doc["status"] != "cancelling" {
		t.Errorf("cancel of a paying order: %d %v", resp.StatusCode, doc)
	}
	if resp, doc = c.do("POST", "/orders/paying/cancel", ""); resp.StatusCode != http.StatusOK || doc["status"] != "cancelling" {
		t.Errorf("second cancel: %d %v", resp.StatusCode, doc)
	}
	w.release(t, "paying")
	doc = c.until("paying", "cancelled")
	if doc["reason"] != "customer_request" {
		t.Errorf("cancelled for %v", doc["reason"])
	}
	testkit.Eventually(t, 20*time.Second, func() bool { return len(w.types("paying")) == 4 }, "four events")
	if diff := cmp.Diff([]event.Type{created, requested, refund, cancelled}, w.types("paying")); diff != "" {
		t.Errorf("want - got +\n%s", diff)
	}
	// The key repeats its answer, though the order has moved on.
	if resp, doc = c.with("Idempotency-Key", "k-1").do("POST", "/orders/paying/cancel", ""); resp.StatusCode != http.StatusAccepted || doc["status"] != "cancelling" ||
		resp.Header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("cancel with a used key: %d %v", resp.StatusCode, doc)
	}
	if resp, doc = c.with("Idempotency-Key", "k-1").do("POST", "/orders/pending/cancel", ""); resp.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("another cancel with a used key: %d %v", resp.StatusCode, doc)
	}

	// Once it is paid: too late.
	c.post(body("happy", "sku-1", "card", "Berlin"))
	c.until("happy", "completed")
	if resp, doc = c.do("POST", "/orders/happy/cancel", ""); resp.StatusCode != http.StatusConflict || doc["type"] != "urn:problem:not-cancellable" {
		t.Errorf("cancel of a completed order: %d %v", resp.StatusCode, doc)
	}
}

func deadline(t *testing.T, w *world) {
	w.env["ORDER_DEADLINE"] = "1500ms"
	url, _ := w.start()
	w.start() // two sweepers
	c := w.as(t, url, "customer", "customer")
	c.post(body("pending", "sku-away", "card", "Berlin"))
	c.post(body("paying", "sku-1", "card_slow", "Berlin"))
	if doc := c.until("pending", "cancelled"); doc["reason"] != "expired" {
		t.Errorf("cancelled for %v", doc["reason"])
	}
	c.until("paying", "cancelling")
	w.release(t, "paying")
	if doc := c.until("paying", "cancelled"); doc["reason"] != "expired" {
		t.Errorf("cancelled for %v", doc["reason"])
	}
	for id, want := range map[string][]event.Type{"pending": {created, cancelled}, "paying": {created, requested, refund, cancelled}} {
		testkit.Eventually(t, 20*time.Second, func() bool { return len(w.types(id)) >= len(want) }, "events of "+id)
		if diff := cmp.Diff(want, w.types(id)); diff != "" {
			t.Errorf("%s: want - got +\n%s", id, diff)
		}
	}
	// Settled orders are not watched any longer.
	testkit.Eventually(t, 20*time.Second, func() bool {
		var n int
		return w.pool.QueryRow(t.Context(), `SELECT count(*) FROM order_watch`).Scan(&n) == nil && n == 0
	}, "orders are still watched")
}

func personDecides(t *testing.T, w *world) {
	url, _ := w.start()
	c := w.as(t, url, "customer", "customer")
	op := w.as(t, url, "operator", "operator")
	decide := func(id, body string) (int, map[string]any) {
		resp, doc := op.do("POST", "/orders/"+id+"/resolve", body)
		return resp.StatusCode, doc
	}
	_, first := c.do("POST", "/orders", body("resend", "sku-1", "card", "Nowhere"))
	for _, id := range []string{"refund", "write-off", "norefund"} {
		c.post(body(id, "sku-1", "card", "Nowhere"))
	}
	for _, id := range []string{"resend", "refund", "write-off", "norefund"} {
		c.until(id, "attention")
	}
	w.balanced(t)

	// What does not fit.
	if status, doc := decide("resend", `{"action":"resend","goods":"lost","reason":"x"}`); status != http.StatusConflict || doc["type"] != "urn:problem:not-resendable" {
		t.Errorf("resend of lost goods: %d %v", status, doc)
	}
	if status, doc := decide("refund", `{"action":"refund","reason":"x"}`); status != http.StatusUnprocessableEntity {
		t.Errorf("refund without goods: %d %v", status, doc)
	}
	if resp, doc := c.do("POST", "/orders/refund/resolve", `{"action":"refund","goods":"lost","reason":"x"}`); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a customer decides: %d %v", resp.StatusCode, doc)
	}

	if status, doc := decide("resend", `{"action":"resend","goods":"returned","reason":"wrong city",
		"address":{"name":"A. Buyer","line1":"1 Main St","city":"Berlin","postal_code":"10115","country":"DE"}}`); status != http.StatusAccepted || doc["status"] != "paid" {
		t.Errorf("resend: %d %v", status, doc)
	}
	c.until("resend", "completed")
	var again orderv1.OrderShippingRequested
	w.event(t, "resend", resend, &again)
	if again.Attempt != 2 || again.Address.GetCity() != "Berlin" || len(again.Items) != 1 {
		t.Errorf("order.shipping_requested says %v", &again)
	}
	// Who sends the order again hears what he heard first, whatever a person has corrected since.
	if _, doc := c.do("POST", "/orders", body("resend", "sku-1", "card", "Nowhere")); !cmp.Equal(first, doc) {
		t.Errorf("replayed after a correction: want - got +\n%s", cmp.Diff(first, doc))
	}

	if status, doc := decide("refund", `{"action":"refund","goods":"returned","reason":"came back"}`); status != http.StatusAccepted || doc["status"] != "cancelling" {
		t.Errorf("refund: %d %v", status, doc)
	}
	if doc := c.until("refund", "cancelled"); doc["reason"] != "shipping_failed" {
		t.Errorf("cancelled for %v", doc["reason"])
	}
	if status, doc := decide("refund", `{"action":"refund","goods":"returned","reason":"once more"}`); status != http.StatusConflict || doc["type"] != "urn:problem:not-resolvable" {
		t.Errorf("second refund: %d %v", status, doc)
	}

	if status, doc := decide("write-off", `{"action":"write_off","goods":"lost","reason":"paid by bank"}`); status != http.StatusAccepted || doc["status"] != "cancelled" {
		t.Errorf("write-off: %d %v", status, doc)
	}
	testkit.Eventually(t, 20*time.Second, func() bool { return slices.Contains(w.types("write-off"), cancelled) }, "order.cancelled")
	var off orderv1.OrderCancelled
	w.event(t, "write-off", cancelled, &off)
	if !off.WrittenOff || off.Goods != "lost" || off.Reason != "shipping_failed" {
		t.Errorf("order.cancelled says %v", &off)
	}

	// A refund that fails for good is a ticket of its own; driven again it is the second attempt.
	if status, doc := decide("norefund", `{"action":"refund","goods":"returned","reason":"came back"}`); status != http.StatusAccepted {
		t.Errorf("refund: %d %v", status, doc)
	}
	if doc := c.until("norefund", "attention"); doc["reason"] != "refund_failed" {
		t.Errorf("attention for %v", doc["reason"])
	}
	w.balanced(t)
	_, page := op.do("GET", "/interventions?kind=refund_failed&status=open", "")
	tickets, _ := page["items"].([]any)
	if len(tickets) != 1 {
		t.Fatalf("tickets: %v", page)
	}
	ticket := tickets[0].(map[string]any)["id"].(string)
	if resp, doc := op.do("GET", "/interventions/"+ticket, ""); resp.StatusCode != http.StatusOK {
		t.Errorf("inspect: %d %v", resp.StatusCode, doc)
	}
	if resp, doc := op.do("POST", "/interventions/"+ticket+"/redrive", `{"reason":"account reopened"}`); resp.StatusCode != http.StatusOK || doc["status"] != "redriven" {
		t.Errorf("redrive: %d %v", resp.StatusCode, doc)
	}
	if doc := c.until("norefund", "cancelled"); doc["reason"] != "shipping_failed" {
		t.Errorf("cancelled for %v", doc["reason"])
	}
	testkit.Eventually(t, 20*time.Second, func() bool { return slices.Contains(w.types("norefund"), cancelled) }, "order.cancelled")
	if diff := cmp.Diff([]event.Type{created, requested, paid, attention, refund, attention, refund, cancelled}, w.types("norefund")); diff != "" {
		t.Errorf("want - got +\n%s", diff)
	}
}

// An event that cannot happen parks its key, and nothing else: here a refund that nobody asked for.
func impossible(t *testing.T, w *world) {
	url, _ := w.start()
	c := w.as(t, url, "customer", "customer")
	op := w.as(t, url, "operator", "operator")
	c.post(`{"order_id":"done","amount":5,"payment_method":"card"}`)
	c.until("done", "completed")
	w.tell(sourcePayment, event.PaymentRefunded, "done", &paymentv1.PaymentRefunded{OrderId: "done", Amount: 500, Currency: "EUR", Attempt: 1})
	// What is about no order of the tenant is counted and hurts nobody.
	w.tell(sourceInventory, event.InventoryUpdated, "stock:1:sku-1", &inventoryv1.InventoryUpdated{Reason: "restocked"})
	w.tell(sourceInventory, event.InventoryReserved, "not-yet-ordered", &inventoryv1.InventoryReserved{OrderId: "not-yet-ordered", State: "held"})
	w.tell(sourceInventory, event.InventoryReserved, "globex-done", &inventoryv1.InventoryReserved{OrderId: "globex-done", State: "held"})
	c.post(`{"order_id":"globex-done","amount":5,"payment_method":"card_slow"}`) // of tenant 1; the world tells of it as tenant 2
	c.post(`{"order_id":"after","amount":5,"payment_method":"card"}`)
	c.until("after", "completed")
	var items []any
	testkit.Eventually(t, 20*time.Second, func() bool {
		_, page := op.do("GET", "/interventions?status=open", "")
		items, _ = page["items"].([]any)
		return len(items) > 0
	}, "nothing is parked")
	parked := items[0].(map[string]any)
	if len(items) != 1 || parked["subject"] != "done" || parked["kind"] != "poison" {
		t.Fatalf("parked: %v", items)
	}
	_, doc := c.do("GET", "/orders/done", "")
	if doc["status"] != "completed" {
		t.Errorf("the order is %v", doc["status"])
	}
	// Nothing heals it: each try is told why, and after five the sixth is refused.
	at := "/interventions/" + parked["id"].(string)
	if resp, doc := op.do("POST", "/interventions/redrive", `{"kind":"poison","subject":"done"}`); resp.StatusCode != http.StatusOK || len(doc["items"].([]any)) != 1 || doc["items"].([]any)[0].(map[string]any)["error"] == nil {
		t.Errorf("redrive of a key: %d %v", resp.StatusCode, doc)
	}
	for range 4 {
		if resp, doc := op.do("POST", at+"/redrive", `{}`); resp.StatusCode != http.StatusOK || doc["status"] != "open" {
			t.Errorf("redrive: %d %v", resp.StatusCode, doc)
		}
	}
	if resp, doc := op.do("POST", at+"/redrive", `{}`); resp.StatusCode != http.StatusConflict || doc["type"] != "urn:problem:redrive-limit" {
		t.Errorf("a sixth redrive: %d %v", resp.StatusCode, doc)
	}
	if resp, doc := op.do("POST", at+"/discard", `{"reason":"x","seq":99}`); resp.StatusCode != http.StatusConflict || doc["type"] != "urn:problem:out-of-order" {
		t.Errorf("discard of another sequence: %d %v", resp.StatusCode, doc)
	}
	if resp, doc := op.do("POST", "/interventions/discard", `{"kind":"gap","reason":"x"}`); resp.StatusCode != http.StatusOK || len(doc["items"].([]any)) != 0 {
		t.Errorf("discard of what there is none of: %d %v", resp.StatusCode, doc)
	}
	if resp, doc := op.do("POST", "/interventions/"+parked["id"].(string)+"/discard", `{"reason":"the provider was wrong"}`); resp.StatusCode != http.StatusOK {
		t.Errorf("discard: %d %v", resp.StatusCode, doc)
	}
	if _, doc = c.do("GET", "/orders/globex-done", ""); doc["status"] != "paying" || len(timeline(doc)) != 2 {
		t.Errorf("another tenant's events have touched the order: %v", timeline(doc))
	}
}

// While the database is away requests wait for it, then they are told to come again, and nothing is half-written.
func databaseAway(t *testing.T, w *world) {
	link := testkit.NewLink(t, w.env["DATABASE_URL"])
	w.env["DATABASE_URL"] = link.URL
	url, _ := w.start()
	c := w.as(t, url, "customer", "customer")
	op := w.as(t, url, "operator", "operator")
	c.post(body("before", "sku-1", "card_slow", "Berlin"))
	c.until("before", "paying")

	// A short absence is waited for.
	link.Cut()
	time.AfterFunc(100*time.Millisecond, link.Mend) // of the 2 s that a request waits
	c.post(body("short", "sku-1", "card", "Berlin"))

	link.Cut()
	var wg sync.WaitGroup
	for _, request := range []string{"POST /orders", "GET /orders", "GET /orders/before", "POST /orders/before/cancel", "POST /orders/before/resolve",
		"GET /orders/before/events", "GET /payment/before"} {
		wg.Go(func() {
			method, path, _ := strings.Cut(request, " ")
			who, b := op, ""
			switch {
			case path == "/orders" && method == "POST":
				who, b = c, body("during", "sku-1", "card", "Berlin")
			case strings.HasSuffix(path, "resolve"):
				b = `{"action":"refund","reason":"x"}`
			}
			start := time.Now()
			resp, doc := who.do(method, path, b)
			took := time.Since(start)
			if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
				t.Errorf("%s: %d %v", request, resp.StatusCode, doc)
			}
			// 2 s in all, and room for a busy machine.
			if took < 500*time.Millisecond || took > 6*time.Second {
				t.Errorf("%s was answered after %v", request, took)
			}
		})
	}
	wg.Wait()
	link.Mend()
	var n int
	if err := w.pool.QueryRow(t.Context(), `SELECT count(*) FROM orders WHERE order_id = 'during'`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d orders of the absence are stored, %v", n, err)
	}
	testkit.Eventually(t, 20*time.Second, func() bool {
		resp, _ := c.do("POST", "/orders", body("during", "sku-1", "card", "Berlin"))
		return resp.StatusCode == http.StatusAccepted
	}, "the service does not come back")
	w.release(t, "before")
	for _, id := range []string{"before", "short", "during"} {
		c.until(id, "completed")
	}
}
