package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// actor is a user of the platform.
type actor struct{ name string }

// The seeded users of the development profile.
var (
	admin     = actor{"admin"}
	merchant  = actor{"merchant"}
	operator  = actor{"operator"}
	customer  = actor{"customer"}
	merchant2 = actor{"merchant2"} // of the other tenant
	customer2 = actor{"customer2"}
	nobody    = actor{}
)

// tokens are shared by all tests: logins are limited.
var tokens struct {
	sync.Mutex
	of map[string]string
}

func (a actor) token(ctx context.Context, refused string) (string, error) {
	if a.name == "" {
		return "", nil
	}
	tokens.Lock()
	defer tokens.Unlock()
	if token := tokens.of[a.name]; token != "" && token != refused {
		return token, nil
	}
	var out struct {
		AccessToken string `json:"access_token"`
	}
	r, err := nobody.send(ctx, "", http.MethodPost, "/auth/login", nil, map[string]string{"username": a.name, "password": "password"})
	if err != nil {
		return "", err
	}
	if err := r.into(http.StatusOK, &out); err != nil {
		return "", fmt.Errorf("log in as %s: %w", a.name, err)
	}
	if tokens.of == nil {
		tokens.of = map[string]string{}
	}
	tokens.of[a.name] = out.AccessToken
	return out.AccessToken, nil
}

// reply is an answer, read whole.
type reply struct {
	status int
	header http.Header
	body   []byte
	asked  string
}

// into decodes an answer that has the wanted status.
func (r reply) into(want int, out any) error {
	if r.status != want {
		return fmt.Errorf("%s: %d, want %d: %s", r.asked, r.status, want, bytes.TrimSpace(r.body))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(r.body, out)
}

// slug is the problem's type without its prefix.
func (r reply) slug() string {
	var p struct{ Type string }
	_ = json.Unmarshal(r.body, &p)
	return strings.TrimPrefix(p.Type, "urn:problem:")
}

func (a actor) send(ctx context.Context, token, method, path string, header http.Header, in any) (reply, error) {
	var body io.Reader
	switch in := in.(type) {
	case nil:
	case string:
		body = strings.NewReader(in)
	default:
		b, err := json.Marshal(in)
		if err != nil {
			return reply{}, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, platform.gateway+path, body)
	if err != nil {
		return reply{}, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if in != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, b, method + " " + path}, err
}

// try sends a request as the actor. Every answer other than 2xx must be a problem
// document, whoever gives it.
func (a actor) try(ctx context.Context, method, path string, header http.Header, in any) (reply, error) {
	token, err := a.token(ctx, "")
	if err != nil {
		return reply{}, err
	}
	r, err := a.send(ctx, token, method, path, header, in)
	if err == nil && r.status == http.StatusUnauthorized && token != "" {
		if token, err = a.token(ctx, token); err == nil {
			r, err = a.send(ctx, token, method, path, header, in)
		}
	}
	if err == nil && r.status/100 != 2 && !strings.HasPrefix(r.header.Get("Content-Type"), "application/problem+json") {
		return r, fmt.Errorf("%s: %d is no problem document but %q: %s", r.asked, r.status, r.header.Get("Content-Type"), r.body)
	}
	return r, err
}

// do is try in a test that cannot go on without an answer.
func (a actor) do(t testing.TB, method, path string, in any) reply {
	t.Helper()
	r, err := a.try(t.Context(), method, path, nil, in)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// get reads what must be there.
func get[T any](t testing.TB, a actor, path string) T {
	t.Helper()
	var out T
	if err := a.do(t, http.MethodGet, path, nil).into(http.StatusOK, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

type item struct {
	ProductID string `json:"product_id"`
	Quantity  int    `json:"quantity"`
}

type address struct {
	Name       string `json:"name"`
	Line1      string `json:"line1"`
	City       string `json:"city"`
	PostalCode string `json:"postal_code"`
	Country    string `json:"country"`
}

// newOrder is the body of POST /orders.
type newOrder struct {
	OrderID       string      `json:"order_id,omitempty"`
	Amount        json.Number `json:"amount"`
	Currency      string      `json:"currency,omitempty"`
	PaymentMethod string      `json:"payment_method"`
	Email         string      `json:"email,omitempty"`
	Items         []item      `json:"items,omitempty"`
	Address       *address    `json:"address,omitempty"`
}

type order struct {
	OrderID  string      `json:"order_id"`
	Status   string      `json:"status"`
	Reason   string      `json:"reason"`
	Amount   json.Number `json:"amount"`
	Currency string      `json:"currency"`
	Items    []item      `json:"items"`
	Timeline []moment    `json:"timeline"`
}

type moment struct {
	At     time.Time `json:"at"`
	Event  string    `json:"event"`
	Status string    `json:"status"`
	Detail string    `json:"detail"`
}

type payment struct {
	OrderID  string      `json:"order_id"`
	Status   string      `json:"status"`
	Amount   json.Number `json:"amount"`
	Attempts int         `json:"attempts"`
	Refunded json.Number `json:"refunded"`
}

type product struct {
	ProductID string      `json:"product_id"`
	Price     json.Number `json:"price"`
	Currency  string      `json:"currency"`
	OnHand    int         `json:"on_hand"`
	Reserved  int         `json:"reserved"`
	Available int         `json:"available"`
}

func (o order) events() []string {
	var names []string
	for _, m := range o.Timeline {
		names = append(names, m.Event)
	}
	return names
}

func final(status string) bool {
	return slices.Contains([]string{"completed", "failed", "cancelled", "attention"}, status)
}

// unique makes names that no other run has used.
func unique(prefix string) string { return strings.ToLower(prefix + "-" + rand.Text()[:14]) }

func berlin() *address {
	return &address{Name: "A. Buyer", Line1: "1 Main St", City: "Berlin", PostalCode: "10115", Country: "DE"}
}

// basket is an order of some of a product at its price.
func basket(t testing.TB, productID string, quantity int) newOrder {
	t.Helper()
	p := get[product](t, admin, "/products/"+productID)
	id := unique("o")
	return newOrder{
		OrderID: id, Amount: times(p.Price, quantity), Currency: p.Currency, PaymentMethod: "card", Email: id + "@example.com",
		Items: []item{{productID, quantity}}, Address: berlin(),
	}
}

// times multiplies an amount.
func times(amount json.Number, n int) json.Number {
	r, ok := new(big.Rat).SetString(amount.String())
	if !ok {
		panic("not an amount: " + amount.String())
	}
	return json.Number(r.Mul(r, big.NewRat(int64(n), 1)).FloatString(2))
}

// minor is an amount in cents.
func minor(amount json.Number) int64 {
	r, ok := new(big.Rat).SetString(amount.String())
	if !ok {
		return -1
	}
	r.Mul(r, big.NewRat(100, 1))
	return r.Num().Int64() / r.Denom().Int64()
}

// shelf makes a product of its own with some stock, so that a test's numbers are its
// alone.
func shelf(t testing.TB, stock int) string {
	t.Helper()
	id := unique("e2e")
	r := merchant.do(t, http.MethodPut, "/products/"+id, map[string]any{"name": "Story " + id, "price": json.Number("12.50"), "currency": "EUR"})
	if r.status/100 != 2 {
		t.Fatalf("create product: %d %s", r.status, r.body)
	}
	r, err := merchant.try(t.Context(), http.MethodPost, "/inventory/restock", http.Header{"Idempotency-Key": {unique("restock")}},
		map[string]any{"product_id": id, "quantity": stock, "reason": "delivery"})
	if err != nil || r.status/100 != 2 {
		t.Fatalf("restock: %v %d %s", err, r.status, r.body)
	}
	return id
}

func place(t testing.TB, a actor, o newOrder) {
	t.Helper()
	r := a.do(t, http.MethodPost, "/orders", o)
	if err := r.into(http.StatusAccepted, nil); err != nil {
		t.Fatal(err)
	}
	if got := r.header.Get("Location"); got != "/orders/"+url.PathEscape(o.OrderID) {
		t.Errorf("Location = %q", got)
	}
}

// endWithin is more than the slowest path takes alone: card_down, with its pauses, and
// what a platform that shares two cores with its tests adds.
const endWithin = 60 * time.Second

// await waits for an order's end.
func await(t testing.TB, a actor, id string) order {
	t.Helper()
	return awaitStatus(t, a, id, final)
}

func awaitStatus(t testing.TB, a actor, id string, want func(string) bool) (o order) {
	t.Helper()
	eventually(t, endWithin, func(ctx context.Context) error {
		r, err := a.try(ctx, http.MethodGet, "/orders/"+url.PathEscape(id), nil, nil)
		if err != nil {
			return err
		}
		if r.status == http.StatusServiceUnavailable || r.status == http.StatusTooManyRequests || r.status == http.StatusBadGateway {
			return errors.New(r.asked + " " + string(r.body))
		}
		o = order{}
		if err := r.into(http.StatusOK, &o); err != nil {
			return err
		}
		if !want(o.Status) {
			return fmt.Errorf("order %s is %s", id, o.Status)
		}
		return nil
	})
	return o
}

// sse is one server-sent event.
type sse struct{ id, data string }

// follow reads an order's events until each returns false or the stream ends.
func follow(ctx context.Context, a actor, id, last string, each func(sse) bool) error {
	token, err := a.token(ctx, "")
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, platform.gateway+"/orders/"+url.PathEscape(id)+"/events", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "text/event-stream")
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(got, "text/event-stream") {
		return fmt.Errorf("%s: %s %s", req.URL.Path, resp.Status, got)
	}
	lines := bufio.NewScanner(resp.Body)
	var e sse
	for lines.Scan() {
		line := lines.Text()
		switch {
		case line == "" && e.data != "":
			if !each(e) {
				return nil
			}
			e = sse{}
		case strings.HasPrefix(line, "id:"):
			e.id = strings.TrimSpace(line[3:])
		case strings.HasPrefix(line, "data:"):
			e.data += strings.TrimSpace(line[5:])
		}
	}
	return lines.Err()
}
