// Package stock asks the inventory service.
package stock

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/waybill-dev/waybill/services/order/internal/order"
)

// Outcome is what inventory decided about one order.
type Outcome string

// The outcomes, as they are on the wire.
const (
	Pinned   Outcome = "pinned"   // set aside until paid or released
	Mismatch Outcome = "mismatch" // amount or currency is not what the items cost
	Refused  Outcome = "refused"  // too little, or unknown
	Closed   Outcome = "closed"   // released or expired before, or another tenant's
)

// Answer is inventory's about one order. It gives the same one again, however often it is asked.
type Answer struct {
	OrderID  string  `json:"order_id"`
	Outcome  Outcome `json:"outcome"`
	Reason   string  `json:"reason"`
	Total    int64   `json:"total"`
	Currency string  `json:"currency"`
}

type item struct {
	ProductID string `json:"product_id"`
	Quantity  int64  `json:"quantity"`
}

type reservation struct {
	OrderID     string `json:"order_id"`
	Tenant      int64  `json:"tenant"`
	Currency    string `json:"currency"`
	Amount      int64  `json:"amount"`
	Items       []item `json:"items"`
	Traceparent string `json:"traceparent"`
	// CreatedAt is when order.created happened: what the reservation's event follows from.
	CreatedAt time.Time `json:"created_at"`
}

// Client calls inventory over HTTP.
type Client struct {
	url  string
	http *http.Client
}

// New makes a client. The transport signs the calls.
func New(url string, transport http.RoundTripper) *Client {
	return &Client{
		url: strings.TrimSuffix(url, "/") + "/inventory/reservations",
		// Redirects are refused: they would carry the signed token along.
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

const (
	// maxBody is half of what the endpoint accepts; 256 orders of three items are 80 KB.
	maxBody = 2 << 20
	// maxAnswer bounds what is read of an answer: 256 answers of 200 bytes, and room.
	maxAnswer = 1 << 20
)

// Reserve asks for the items of orders. Where they are too many bytes for one call, the first ones that fit are asked for
// and the rest goes into further calls; what is answered before a call fails is returned without the error.
func (c *Client) Reserve(ctx context.Context, orders []*order.Order) ([]Answer, error) {
	var answers []Answer
	for len(orders) > 0 {
		body, n := encode(orders)
		got, err := c.call(ctx, body)
		if err != nil {
			if len(answers) > 0 {
				return answers, nil
			}
			return nil, err
		}
		answers, orders = append(answers, got...), orders[n:]
	}
	return answers, nil
}

// encode writes as many orders as fit, at least one.
func encode(orders []*order.Order) (body []byte, n int) {
	body = append(body, `{"reservations":[`...)
	for _, o := range orders {
		r := reservation{OrderID: o.ID, Tenant: o.Tenant, Currency: o.Currency, Amount: o.Amount, Traceparent: o.Traceparent, CreatedAt: o.CreatedAt,
			Items: make([]item, len(o.Items))}
		for i, it := range o.Items {
			r.Items[i] = item(it)
		}
		one, err := json.Marshal(r)
		if err != nil {
			panic(err) // strings and numbers
		}
		if n > 0 && len(body)+len(one) > maxBody {
			break
		}
		if n > 0 {
			body = append(body, ',')
		}
		body = append(body, one...)
		n++
	}
	return append(body, `]}`...), n
}

func (c *Client) call(ctx context.Context, body []byte) ([]Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask inventory: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask inventory: %w", err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read inventory's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask inventory: status %d", resp.StatusCode)
	}
	var doc struct {
		Results []Answer `json:"results"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("read inventory's answer: %w", err)
	}
	return doc.Results, nil
}
