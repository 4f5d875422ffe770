// Package order asks the order service about an order.
package order

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// ErrUnknown says that the order service knows no such order, or does not show it.
var ErrUnknown = errors.New("order is not known")

// timeout of one question. The sweeper that asks has time; the order service's answer is one indexed read.
const timeout = 5 * time.Second

// Client asks the order service.
type Client struct {
	base string
	http *http.Client
}

// NewClient makes a client. The transport signs the calls.
func NewClient(base string, transport http.RoundTripper) *Client {
	return &Client{base: strings.TrimRight(base, "/"), http: &http.Client{Transport: transport, Timeout: timeout}}
}

// Order is what matters of an order here.
type Order struct {
	Status string // such as "paying"
	// ChargeOnly: it has no items, so whatever is set aside under its id is not for it.
	ChargeOnly bool
}

// Dead says that the order will never take what is set aside under its id.
func (o Order) Dead() bool {
	return o.Status == "failed" || o.Status == "cancelled" || o.Status == "completed" && o.ChargeOnly
}

// Find asks where an order stands.
func (c *Client) Find(ctx context.Context, orderID string) (Order, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/orders/"+url.PathEscape(orderID), nil)
	if err != nil {
		return Order{}, fmt.Errorf("ask for order %s: %w", orderID, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return Order{}, fmt.Errorf("ask for order %s: %w", orderID, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return Order{}, fmt.Errorf("ask for order %s: %w", orderID, err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return Order{}, ErrUnknown
	default:
		return Order{}, fmt.Errorf("ask for order %s: status %d", orderID, resp.StatusCode)
	}
	var answer struct {
		OrderID string `json:"order_id"`
		Status  string `json:"status"`
		Items   []any  `json:"items"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return Order{}, fmt.Errorf("read answer about order %s: %w", orderID, err)
	}
	if answer.OrderID != orderID || answer.Status == "" {
		return Order{}, fmt.Errorf("read answer about order %s: it is about another", orderID)
	}
	return Order{Status: answer.Status, ChargeOnly: answer.Items != nil && len(answer.Items) == 0}, nil
}
