// Package payment asks the payment service.
package payment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// ErrNone says that the order has no payment.
var ErrNone = errors.New("order has no payment")

// Client calls the payment service over HTTP.
type Client struct {
	url  string
	http *http.Client
}

// timeout is what a caller of ours waits for an answer that is one row away.
const timeout = 2 * time.Second

// New makes a client. The transport signs the calls.
func New(url string, transport http.RoundTripper) *Client {
	return &Client{url: strings.TrimSuffix(url, "/") + "/payments/", http: &http.Client{Transport: transport, Timeout: timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Status is the payment's document, as the payment service gives it.
func (c *Client) Status(ctx context.Context, orderID string) (json.RawMessage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+url.PathEscape(orderID), nil)
	if err != nil {
		return nil, fmt.Errorf("ask for the payment: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for the payment: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("read the payment: %w", err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, ErrNone
	default:
		return nil, fmt.Errorf("ask for the payment: status %d", resp.StatusCode)
	}
	if !json.Valid(body) {
		return nil, errors.New("read the payment: not JSON")
	}
	return body, nil
}
