// Package client talks to a running platform through its gateway, as any client would.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Client acts as one user. Its token is fetched at first use and again when it has
// been refused.
type Client struct {
	Base     string // the gateway's URL
	User     string
	Password string
	HTTP     *http.Client

	mu    sync.Mutex
	token string
}

// Problem is an answer that is not 2xx (RFC 9457).
type Problem struct {
	Status     int    `json:"status"`
	Type       string `json:"type"`
	Title      string `json:"title"`
	Detail     string `json:"detail"`
	Errors     []struct{ Pointer, Detail string }
	RetryAfter string `json:"-"`
	Request    string `json:"-"` // method and path
}

func (p *Problem) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d %s", p.Request, p.Status, strings.TrimPrefix(p.Type, "urn:problem:"))
	if p.Detail != "" {
		fmt.Fprintf(&b, ": %s", p.Detail)
	}
	for _, e := range p.Errors {
		fmt.Fprintf(&b, "; %s %s", e.Pointer, e.Detail)
	}
	return b.String()
}

// Slug is the last part of the problem's type.
func (p *Problem) Slug() string { return strings.TrimPrefix(p.Type, "urn:problem:") }

// maxBody bounds what is read of an answer: a list of 100 orders has 200 kB.
const maxBody = 8 << 20

func (c *Client) login(ctx context.Context, refused string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token != "" && c.token != refused {
		return c.token, nil
	}
	var out struct {
		AccessToken string `json:"access_token"`
	}
	in := map[string]string{"username": c.User, "password": c.Password}
	resp, err := c.send(ctx, http.MethodPost, "/auth/login", "", nil, in)
	if err != nil {
		return "", err
	}
	if err := decode(resp, &out); err != nil {
		return "", fmt.Errorf("log in as %s: %w", c.User, err)
	}
	c.token = out.AccessToken
	return c.token, nil
}

// Token is the access token in use.
func (c *Client) Token(ctx context.Context) (string, error) { return c.login(ctx, "") }

func (c *Client) http() *http.Client {
	if c.HTTP != nil {
		return c.HTTP
	}
	return http.DefaultClient
}

func (c *Client) send(ctx context.Context, method, path, token string, header http.Header, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.Base, "/")+path, body)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
		// net/http would send a request with an Idempotency-Key again by itself; who counts
		// what was asked for must see each.
		req.GetBody = nil
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return c.http().Do(req)
}

// open sends a request with the user's token, and once more with a new one where the
// token has expired meanwhile.
func (c *Client) open(ctx context.Context, method, path string, header http.Header, in any) (*http.Response, error) {
	refused := ""
	for try := 0; ; try++ {
		token, err := c.login(ctx, refused)
		if err != nil {
			return nil, err
		}
		resp, err := c.send(ctx, method, path, token, header, in)
		if err != nil || resp.StatusCode != http.StatusUnauthorized || try > 0 {
			return resp, err
		}
		resp.Body.Close()
		refused = token
	}
}

// Do sends a request and decodes the answer into out, where that is not nil. An answer
// other than 2xx is a *Problem.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	return c.Once(ctx, method, path, "", in, out)
}

// Once is Do with an Idempotency-Key: however often it is sent, it is done once.
func (c *Client) Once(ctx context.Context, method, path, key string, in, out any) error {
	var header http.Header
	if key != "" {
		header = http.Header{"Idempotency-Key": {key}}
	}
	resp, err := c.open(ctx, method, path, header, in)
	if err != nil {
		return err
	}
	return decode(resp, out)
}

// Open sends a request with the user's token and leaves the answer to the caller, who must
// close its body. A json.RawMessage goes out as it is.
func (c *Client) Open(ctx context.Context, method, path string, header http.Header, in any) (*http.Response, error) {
	return c.open(ctx, method, path, header, in)
}

func decode(resp *http.Response, out any) error {
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		p := &Problem{}
		_ = json.Unmarshal(b, p) // a proxy's page stays a problem without a type
		p.Status, p.RetryAfter = resp.StatusCode, resp.Header.Get("Retry-After")
		if resp.Request != nil {
			p.Request = resp.Request.Method + " " + resp.Request.URL.Path
		}
		return p
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s %s answers what is not expected: %w", resp.Request.Method, resp.Request.URL.Path, err)
	}
	return nil
}

// Item is a line of an order.
type Item struct {
	ProductID string `json:"product_id"`
	Quantity  int    `json:"quantity"`
}

// Address is where an order goes.
type Address struct {
	Name       string `json:"name"`
	Line1      string `json:"line1"`
	Line2      string `json:"line2,omitempty"`
	City       string `json:"city"`
	Region     string `json:"region,omitempty"`
	PostalCode string `json:"postal_code"`
	Country    string `json:"country"`
}

// NewOrder is the body of POST /orders.
type NewOrder struct {
	OrderID       string      `json:"order_id,omitempty"`
	Amount        json.Number `json:"amount"`
	Currency      string      `json:"currency,omitempty"`
	PaymentMethod string      `json:"payment_method"`
	Email         string      `json:"email,omitempty"`
	Items         []Item      `json:"items,omitempty"`
	Address       *Address    `json:"address,omitempty"`
}

// Order is what GET /orders/{order_id} answers.
type Order struct {
	OrderID  string      `json:"order_id"`
	Status   string      `json:"status"`
	Reason   string      `json:"reason"`
	Amount   json.Number `json:"amount"`
	Currency string      `json:"currency"`
	Items    []Item      `json:"items"`
	Timeline []Moment    `json:"timeline"`
}

// Moment is a line of an order's timeline.
type Moment struct {
	At     time.Time `json:"at"`
	Event  string    `json:"event"`
	Status string    `json:"status"`
	Detail string    `json:"detail"`
}

// Payment is what GET /payments/{order_id} answers.
type Payment struct {
	OrderID       string      `json:"order_id"`
	Status        string      `json:"status"`
	Amount        json.Number `json:"amount"`
	Currency      string      `json:"currency"`
	PaymentMethod string      `json:"payment_method"`
	Attempts      int         `json:"attempts"`
	Refunded      json.Number `json:"refunded"`
}

// Product is what GET /products/{product_id} answers.
type Product struct {
	ProductID string      `json:"product_id"`
	Name      string      `json:"name"`
	Price     json.Number `json:"price"`
	Currency  string      `json:"currency"`
	OnHand    int64       `json:"on_hand"`
	Reserved  int64       `json:"reserved"`
	Available int64       `json:"available"`
}

// Final tells whether nothing more happens to an order by itself.
func Final(status string) bool {
	switch status {
	case "completed", "failed", "cancelled", "attention":
		return true
	}
	return false
}

// Place places an order.
func (c *Client) Place(ctx context.Context, o NewOrder) (Order, error) {
	var out Order
	err := c.Do(ctx, http.MethodPost, "/orders", o, &out)
	return out, err
}

// Order reads an order.
func (c *Client) Order(ctx context.Context, id string) (Order, error) {
	var out Order
	err := c.Do(ctx, http.MethodGet, "/orders/"+url.PathEscape(id), nil, &out)
	return out, err
}

// Payment reads the payment of an order.
func (c *Client) Payment(ctx context.Context, id string) (Payment, error) {
	var out Payment
	err := c.Do(ctx, http.MethodGet, "/payments/"+url.PathEscape(id), nil, &out)
	return out, err
}

// Product reads a product.
func (c *Client) Product(ctx context.Context, id string) (Product, error) {
	var out Product
	err := c.Do(ctx, http.MethodGet, "/products/"+url.PathEscape(id), nil, &out)
	return out, err
}

// errEnd ends a stream on purpose.
var errEnd = errors.New("seen enough")

// Watch follows an order's events as they happen, from its first, and ends when seen
// returns false. A connection that breaks is opened again from where it broke.
func (c *Client) Watch(ctx context.Context, id string, seen func(Moment) bool) error {
	last := ""
	for failures := 0; ; {
		err := c.stream(ctx, id, &last, func(m Moment) bool { failures = 0; return seen(m) })
		var p *Problem
		switch {
		case errors.Is(err, errEnd):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &p) && p.Status/100 == 4 && p.Status != http.StatusTooManyRequests:
			return err
		}
		// Streams end when a replica stops; ten in a row without an event is an outage.
		if failures++; failures > 10 {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Duration(failures) * 100 * time.Millisecond):
		}
	}
}
