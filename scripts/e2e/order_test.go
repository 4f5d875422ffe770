package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The session that the documentation promises, but for its pauses.
func TestPromisedSession(t *testing.T) {
	if r := nobody.do(t, http.MethodGet, "/health", nil); r.status != http.StatusOK {
		t.Errorf("/health: %d", r.status)
	}
	r := nobody.do(t, http.MethodPost, "/auth/login", map[string]string{"username": "admin", "password": "password"})
	var login struct {
		AccessToken string `json:"access_token"`
	}
	if err := r.into(http.StatusOK, &login); err != nil {
		t.Fatal(err)
	}
	if r := nobody.do(t, http.MethodGet, "/protected", nil); r.status != http.StatusUnauthorized || r.header.Get("WWW-Authenticate") == "" {
		t.Errorf("/protected without a token: %d %v", r.status, r.header)
	}
	seen := map[int]int{}
	for range 20 {
		r, err := admin.send(t.Context(), login.AccessToken, http.MethodGet, "/protected", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		seen[r.status]++
		if r.status == http.StatusTooManyRequests && r.header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
	}
	// A burst of 10 and 2 a second.
	if seen[http.StatusOK] < 10 || seen[http.StatusTooManyRequests] < 5 || len(seen) != 2 {
		t.Errorf("20 requests at once: %v", seen)
	}
	metrics := nobody.do(t, http.MethodGet, "/metrics", nil)
	if metrics.status != http.StatusOK || !strings.Contains(string(metrics.body), "# TYPE") {
		t.Errorf("/metrics: %d", metrics.status)
	}
}

func TestOrderIsPaidAndDelivered(t *testing.T) {
	t.Parallel()
	shelf := shelf(t, 10)
	o := basket(t, shelf, 2)
	place(t, customer, o)
	end := await(t, customer, o.OrderID)

	if end.Status != "completed" || end.Reason != "" || end.Amount != o.Amount && minor(end.Amount) != minor(o.Amount) {
		t.Errorf("it ended %s %q with %s", end.Status, end.Reason, end.Amount)
	}
	if diff := cmp.Diff(o.Items, end.Items); diff != "" {
		t.Error(diff)
	}
	// The story in its order; other lines may stand between.
	inOrder(t, end.events(), "order.created", "payment.initiated", "payment.processed", "shipping.requested", "shipping.completed")
	for i, m := range end.Timeline[1:] {
		if m.At.Before(end.Timeline[i].At) {
			t.Errorf("the timeline goes back in time at %s", m.Event)
		}
	}

	p := get[payment](t, customer, "/payments/"+o.OrderID)
	if p.Status != "captured" || p.Attempts != 1 || minor(p.Amount) != minor(o.Amount) || minor(p.Refunded) != 0 {
		t.Errorf("payment %+v", p)
	}
	if same := get[payment](t, customer, "/payment/"+o.OrderID); same != p {
		t.Errorf("/payment says %+v, /payments %+v", same, p)
	}
	shipment := get[struct{ Status string }](t, customer, "/shipping/"+o.OrderID)
	if shipment.Status != "delivered" {
		t.Errorf("shipment %+v", shipment)
	}
	if left := get[product](t, customer, "/products/"+shelf); left.OnHand != 8 || left.Reserved != 0 || left.Available != 8 {
		t.Errorf("stock %+v", left)
	}
	lines := ledger(t)[o.OrderID]
	checkMoney(t, end, lines)
	if count(lines, "ship") != 1 || count(lines, "deliver") != 1 {
		t.Errorf("carrier: %+v", lines)
	}
	for _, m := range told(t, o.Email, 1) {
		if !slices.Contains(m.To, o.Email) || !strings.Contains(m.Subject+m.Text, o.OrderID) {
			t.Errorf("mail %+v", m)
		}
	}
}

// inOrder checks that want is a subsequence of got.
func inOrder(t testing.TB, got []string, want ...string) {
	t.Helper()
	rest := want
	for _, g := range got {
		if len(rest) > 0 && g == rest[0] {
			rest = rest[1:]
		}
	}
	if len(rest) > 0 {
		t.Errorf("the timeline has no %s where it belongs: %v", rest[0], got)
	}
}

func TestMinimalOrderIsChargedOnly(t *testing.T) {
	t.Parallel()
	id := unique("o")
	place(t, customer, newOrder{OrderID: id, Amount: "19.90", PaymentMethod: "card"})
	end := await(t, customer, id)
	if end.Status != "completed" || end.Currency != "EUR" {
		t.Errorf("%+v", end)
	}
	lines := ledger(t)[id]
	checkMoney(t, end, lines)
	if count(lines, "ship") != 0 {
		t.Errorf("a charge-only order was shipped: %+v", lines)
	}
}

// Every test value of provider and carrier, and every refusal.
func TestPaths(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		change   func(*newOrder)
		status   string
		reason   string
		payment  string // "": none
		attempts int
		left     int // of 10 on the shelf, 2 ordered
		events   []string
	}{
		{"card_flaky", func(o *newOrder) { o.PaymentMethod = "card_flaky" }, "completed", "", "captured", 3, 8, nil},
		{"card_timeout", func(o *newOrder) { o.PaymentMethod = "card_timeout" }, "completed", "", "captured", 1, 8, nil},
		{"card_slow", func(o *newOrder) { o.PaymentMethod = "card_slow" }, "completed", "", "captured", 1, 8, nil},
		{"card_declined", func(o *newOrder) { o.PaymentMethod = "card_declined" }, "cancelled", "payment_declined", "declined", 1, 10, []string{"payment.failed"}},
		// The first call and three retries.
		{"card_down", func(o *newOrder) { o.PaymentMethod = "card_down" }, "cancelled", "payment_failed", "failed", 4, 10, []string{"payment.failed"}},
		{"carrier delayed", func(o *newOrder) { o.Address.City = "Delayed" }, "completed", "", "captured", 1, 8, nil},
		{"carrier refuses", func(o *newOrder) { o.Address.City = "Nowhere" }, "attention", "shipping_failed", "captured", 1, 8, []string{"shipping.failed"}},
		{"parcel lost", func(o *newOrder) { o.Address.City = "Lost" }, "attention", "shipping_failed", "captured", 1, 8, []string{"shipping.failed"}},
		{"out of stock", func(o *newOrder) { o.Items[0].Quantity = 11; o.Amount = "137.50" }, "failed", "out_of_stock", "", 0, 10, nil},
		{"unknown product", func(o *newOrder) { o.Items[0].ProductID = "no-such-thing" }, "failed", "unknown_product", "", 0, 10, nil},
		{"other amount", func(o *newOrder) { o.Amount = "25.01" }, "failed", "amount_mismatch", "", 0, 10, nil},
		{"other currency", func(o *newOrder) { o.Currency = "USD" }, "failed", "amount_mismatch", "", 0, 10, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			shelf := shelf(t, 10)
			o := basket(t, shelf, 2)
			c.change(&o)
			place(t, customer, o)
			end := await(t, customer, o.OrderID)
			if end.Status != c.status || end.Reason != c.reason {
				t.Errorf("it ended %s %q, want %s %q: %v", end.Status, end.Reason, c.status, c.reason, end.events())
			}
			inOrder(t, end.events(), append([]string{"order.created"}, c.events...)...)
			checkPayment(t, o, c.payment, c.attempts)
			eventually(t, endWithin, func(context.Context) error {
				if p := get[product](t, admin, "/products/"+shelf); p.OnHand != c.left || p.Reserved != 0 {
					return fmt.Errorf("stock %+v, want %d on hand and none reserved", p, c.left)
				}
				return nil
			})
			checkMoney(t, end, ledger(t)[o.OrderID])
			told(t, o.Email, 1)
		})
	}
}

func checkPayment(t testing.TB, o newOrder, status string, attempts int) {
	t.Helper()
	r := customer.do(t, http.MethodGet, "/payments/"+o.OrderID, nil)
	if status == "" {
		if r.status != http.StatusNotFound {
			t.Errorf("there is a payment: %s", r.body)
		}
		return
	}
	var p payment
	if err := r.into(http.StatusOK, &p); err != nil {
		t.Error(err)
	}
	if p.Status != status || p.Attempts != attempts {
		t.Errorf("payment is %s after %d attempts, want %s after %d", p.Status, p.Attempts, status, attempts)
	}
}

// Ten customers want the last five.
func TestStockIsNotSoldTwice(t *testing.T) {
	t.Parallel()
	shelf := shelf(t, 5)
	var wg sync.WaitGroup
	ids := make([]string, 10)
	for i := range ids {
		o := basket(t, shelf, 1)
		ids[i] = o.OrderID
		wg.Go(func() { _, _ = customer.try(t.Context(), http.MethodPost, "/orders", nil, o) })
	}
	wg.Wait()
	got := map[string]int{}
	for _, id := range ids {
		end := await(t, customer, id)
		got[strings.TrimSpace(end.Status+" "+end.Reason)]++
	}
	if diff := cmp.Diff(map[string]int{"completed": 5, "failed out_of_stock": 5}, got); diff != "" {
		t.Error(diff)
	}
	if p := get[product](t, admin, "/products/"+shelf); p.OnHand != 0 || p.Reserved != 0 {
		t.Errorf("stock %+v", p)
	}
}

func TestSameRequestTwice(t *testing.T) {
	t.Parallel()
	o := basket(t, shelf(t, 10), 2)
	first := customer.do(t, http.MethodPost, "/orders", o)
	again := customer.do(t, http.MethodPost, "/orders", o)
	if first.status != http.StatusAccepted || again.status != http.StatusAccepted {
		t.Fatalf("%d, then %d %s", first.status, again.status, again.body)
	}
	if a, b := orderID(t, first), orderID(t, again); a != o.OrderID || b != o.OrderID {
		t.Errorf("orders %s and %s", a, b)
	}
	other := o
	other.Amount = "1.00"
	if r := customer.do(t, http.MethodPost, "/orders", other); r.status != http.StatusConflict || r.slug() != "order-exists" {
		t.Errorf("another body under the id: %d %s", r.status, r.body)
	}
	if r := customer2.do(t, http.MethodPost, "/orders", o); r.status != http.StatusConflict || r.slug() != "order-exists" {
		t.Errorf("another customer under the id: %d %s", r.status, r.body)
	}
	end := await(t, customer, o.OrderID)
	after := customer.do(t, http.MethodPost, "/orders", o)
	if after.status != http.StatusAccepted {
		t.Errorf("again after the end: %d %s", after.status, after.body)
	}
	checkMoney(t, end, ledger(t)[o.OrderID])
}

func orderID(t testing.TB, r reply) string {
	t.Helper()
	var o order
	if err := json.Unmarshal(r.body, &o); err != nil {
		t.Fatal(err)
	}
	return o.OrderID
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	key := http.Header{"Idempotency-Key": {unique("key")}}
	// Without an order_id the service makes one; the key keeps it to one.
	o := newOrder{Amount: "5.00", PaymentMethod: "card"}
	send := func(o newOrder) reply {
		r, err := customer.try(t.Context(), http.MethodPost, "/orders", key, o)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first, again := send(o), send(o)
	if first.status != http.StatusAccepted || again.status != http.StatusAccepted || orderID(t, first) == "" || orderID(t, first) != orderID(t, again) {
		t.Errorf("%d %s, then %d %s", first.status, first.body, again.status, again.body)
	}
	o.Amount = "6.00"
	if r := send(o); r.status != http.StatusUnprocessableEntity || r.slug() != "idempotency-key-reused" {
		t.Errorf("the key with another body: %d %s", r.status, r.body)
	}
}

// Many at once under one id: one order, one charge.
func TestConcurrentDuplicates(t *testing.T) {
	t.Parallel()
	o := basket(t, shelf(t, 100), 2)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if r, err := customer.try(t.Context(), http.MethodPost, "/orders", nil, o); err != nil || r.status != http.StatusAccepted {
				t.Errorf("%v %d %s", err, r.status, r.body)
			}
		})
	}
	wg.Wait()
	end := await(t, customer, o.OrderID)
	lines := ledger(t)[o.OrderID]
	checkMoney(t, end, lines)
	if end.Status != "completed" || count(lines, "ship") != 1 {
		t.Errorf("%s, %+v", end.Status, lines)
	}
	if p := get[product](t, admin, "/products/"+o.Items[0].ProductID); p.OnHand != 98 {
		t.Errorf("stock %+v", p)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	cancel := func(id string) reply {
		return customer.do(t, http.MethodPost, "/orders/"+url.PathEscape(id)+"/cancel", nil)
	}
	t.Run("while the payment is under way", func(t *testing.T) {
		t.Parallel()
		o := basket(t, shelf(t, 10), 2)
		o.PaymentMethod = "card_slow"
		place(t, customer, o)
		awaitStatus(t, customer, o.OrderID, func(s string) bool { return s == "paying" || final(s) })
		if r := cancel(o.OrderID); r.status/100 != 2 {
			t.Fatalf("cancel: %d %s", r.status, r.body)
		}
		if r := cancel(o.OrderID); r.status != http.StatusOK {
			t.Errorf("cancel twice: %d %s", r.status, r.body)
		}
		end := await(t, customer, o.OrderID)
		if end.Status != "cancelled" || end.Reason != "customer_request" {
			t.Errorf("%s %s: %v", end.Status, end.Reason, end.events())
		}
		checkMoney(t, end, ledger(t)[o.OrderID])
		eventually(t, endWithin, func(context.Context) error {
			if p := get[product](t, admin, "/products/"+o.Items[0].ProductID); p.OnHand != 10 || p.Reserved != 0 {
				return fmt.Errorf("stock %+v", p)
			}
			return nil
		})
		told(t, o.Email, 1)
	})
	t.Run("at once", func(t *testing.T) {
		t.Parallel()
		o := basket(t, shelf(t, 10), 2)
		o.PaymentMethod = "card_slow"
		place(t, customer, o)
		if r := cancel(o.OrderID); r.status/100 != 2 {
			t.Fatalf("cancel: %d %s", r.status, r.body)
		}
		end := await(t, customer, o.OrderID)
		if end.Status != "cancelled" || end.Reason != "customer_request" {
			t.Errorf("%s %s: %v", end.Status, end.Reason, end.events())
		}
		checkMoney(t, end, ledger(t)[o.OrderID])
	})
	t.Run("too late", func(t *testing.T) {
		t.Parallel()
		o := basket(t, shelf(t, 10), 1)
		place(t, customer, o)
		await(t, customer, o.OrderID)
		if r := cancel(o.OrderID); r.status != http.StatusConflict || r.slug() != "not-cancellable" {
			t.Errorf("%d %s", r.status, r.body)
		}
	})
}

// A parcel that got lost, and the three ways out.
func TestResolve(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		body   map[string]any
		status string
		net    func(o newOrder) int64 // kept by the provider
		left   int
	}{
		{
			"resend", map[string]any{"action": "resend", "goods": "returned", "reason": "address corrected", "address": berlin()},
			"completed", func(o newOrder) int64 { return minor(o.Amount) }, 8,
		},
		{"refund, goods returned", map[string]any{"action": "refund", "goods": "returned", "reason": "came back"}, "cancelled", func(newOrder) int64 { return 0 }, 10},
		{"refund, goods lost", map[string]any{"action": "refund", "goods": "lost", "reason": "gone"}, "cancelled", func(newOrder) int64 { return 0 }, 8},
		{
			// The money went back outside of the provider, so he still has it.
			"write off", map[string]any{"action": "write_off", "goods": "lost", "reason": "paid back by bank transfer"},
			"cancelled", func(o newOrder) int64 { return minor(o.Amount) }, 8,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			shelf := shelf(t, 10)
			o := basket(t, shelf, 2)
			o.Address.City = "Lost"
			place(t, customer, o)
			if end := await(t, customer, o.OrderID); end.Status != "attention" {
				t.Fatalf("%s %s", end.Status, end.Reason)
			}
			resolve := "/orders/" + o.OrderID + "/resolve"
			if r := customer.do(t, http.MethodPost, resolve, c.body); r.status != http.StatusForbidden && r.status != http.StatusNotFound {
				t.Errorf("a customer may resolve: %d %s", r.status, r.body)
			}
			if err := operator.do(t, http.MethodPost, resolve, c.body).into(http.StatusAccepted, nil); err != nil {
				t.Fatal(err)
			}
			end := awaitStatus(t, customer, o.OrderID, func(s string) bool { return s == c.status })
			if got, want := net(ledger(t)[o.OrderID]), c.net(o); got != want {
				t.Errorf("the provider keeps %d cents, want %d: %v", got, want, end.events())
			}
			eventually(t, endWithin, func(context.Context) error {
				if p := get[product](t, admin, "/products/"+shelf); p.OnHand != c.left || p.Reserved != 0 {
					return fmt.Errorf("stock %+v, want %d", p, c.left)
				}
				return nil
			})
			told(t, o.Email, 2)
		})
	}
}

func TestEventsAreResumed(t *testing.T) {
	t.Parallel()
	o := basket(t, shelf(t, 10), 1)
	place(t, customer, o)
	ctx, cancel := context.WithTimeout(t.Context(), endWithin)
	defer cancel()
	var got []sse
	status := func(e sse) string {
		var m moment
		if err := json.Unmarshal([]byte(e.data), &m); err != nil {
			t.Errorf("event %q: %v", e.data, err)
		}
		return m.Status
	}
	// The connection breaks after every two events.
	for last := ""; len(got) == 0 || !final(status(got[len(got)-1])); last = got[len(got)-1].id {
		n := 0
		if err := follow(ctx, customer, o.OrderID, last, func(e sse) bool {
			got = append(got, e)
			n++
			return n < 2 && !final(status(e))
		}); err != nil {
			t.Fatal(err)
		}
	}
	end := await(t, customer, o.OrderID)
	var events, ids []string
	for _, e := range got {
		var m moment
		if err := json.Unmarshal([]byte(e.data), &m); err != nil {
			t.Fatal(err)
		}
		events, ids = append(events, m.Event), append(ids, e.id)
	}
	if diff := cmp.Diff(end.events()[:len(events)], events); diff != "" {
		t.Errorf("timeline and stream differ:\n%s", diff)
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != len(got) {
		t.Errorf("an id came twice: %v", ids)
	}
}

func TestTenantsAndCustomersAreKeptApart(t *testing.T) {
	t.Parallel()
	o := basket(t, shelf(t, 10), 1)
	place(t, customer, o)
	await(t, customer, o.OrderID)
	for _, path := range []string{"/orders/" + o.OrderID, "/orders/" + o.OrderID + "/events", "/payment/" + o.OrderID, "/payments/" + o.OrderID, "/shipping/" + o.OrderID} {
		for _, stranger := range []actor{customer2, merchant2} {
			if r := stranger.do(t, http.MethodGet, path, nil); r.status != http.StatusNotFound {
				t.Errorf("%s sees %s: %d", stranger.name, path, r.status)
			}
		}
		if r := nobody.do(t, http.MethodGet, path, nil); r.status != http.StatusUnauthorized {
			t.Errorf("%s without a token: %d", path, r.status)
		}
	}
	for _, knows := range []actor{customer, merchant, operator, admin} {
		if r := knows.do(t, http.MethodGet, "/orders/"+o.OrderID, nil); r.status != http.StatusOK {
			t.Errorf("%s does not see the order: %d", knows.name, r.status)
		}
	}
	if r := customer2.do(t, http.MethodPost, "/orders/"+o.OrderID+"/cancel", nil); r.status != http.StatusNotFound {
		t.Errorf("a stranger cancels: %d %s", r.status, r.body)
	}
	if r := customer2.do(t, http.MethodGet, "/products/"+o.Items[0].ProductID, nil); r.status != http.StatusNotFound {
		t.Errorf("the other tenant's product: %d", r.status)
	}
	for _, stranger := range []actor{customer2, merchant2} {
		page := get[struct{ Items []order }](t, stranger, "/orders?limit=100")
		for _, x := range page.Items {
			if x.OrderID == o.OrderID {
				t.Errorf("%s has the order in the list", stranger.name)
			}
		}
	}
	// An order for the other tenant's product is one for a product that does not exist.
	theirs := newOrder{OrderID: unique("o"), Amount: "12.50", PaymentMethod: "card", Email: "x@example.com", Items: o.Items, Address: berlin()}
	place(t, customer2, theirs)
	if end := await(t, customer2, theirs.OrderID); end.Status != "failed" || end.Reason != "unknown_product" {
		t.Errorf("%s %s", end.Status, end.Reason)
	}
}
