package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Time-outs of one call. A charge may take the provider a while, a question may not.
const (
	ChargeTimeout   = 5 * time.Second
	RefundTimeout   = 5 * time.Second
	QuestionTimeout = 3 * time.Second
)

// maxBody bounds an answer. Ours are some 200 bytes.
const maxBody = 64 << 10

// maxText bounds each text of an answer that is stored.
const maxText = 200

// Client calls the provider over HTTP.
type Client struct {
	base string
	http *http.Client
}

// Transport is what the client should be built on: kept-alive connections for parallel calls, no more, so that a slow
// provider is not buried. Wrap it for tracing.
func Transport(parallel int) *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		MaxIdleConns:           parallel,
		MaxIdleConnsPerHost:    parallel,
		MaxConnsPerHost:        parallel,
		IdleConnTimeout:        60 * time.Second,
		ResponseHeaderTimeout:  ChargeTimeout,
		MaxResponseHeaderBytes: 16 << 10,
		DisableCompression:     true, // 200 bytes, and an inflated answer would not be bounded by its length
	}
}

// NewClient makes a client of the provider at base, an http or https URL.
func NewClient(base string, transport http.RoundTripper) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("provider URL %q is no http or https URL", base)
	}
	return &Client{
		base: strings.TrimRight(base, "/"),
		http: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Charge asks for the money. A refusal of the request itself (4xx) is a decline: repeating it would not help.
func (c *Client) Charge(ctx context.Context, r ChargeRequest) (Charge, error) {
	ctx, cancel := context.WithTimeout(ctx, ChargeTimeout)
	defer cancel()
	var out Charge
	refused, err := c.call(ctx, http.MethodPost, "/provider/charges", r, &out)
	if refused != 0 {
		return Charge{Key: r.Key, OrderID: r.OrderID, Amount: r.Amount, Currency: r.Currency, Status: Declined,
			Reason: fmt.Sprintf("refused_%d", refused)}, nil
	}
	if err != nil {
		return Charge{}, err
	}
	if out.OrderID != r.OrderID || out.Amount != r.Amount || out.Currency != r.Currency {
		return Charge{}, fmt.Errorf("%w: it speaks of another charge", ErrNoAnswer)
	}
	return out, out.check(r.Key)
}

// FindCharge asks what became of a charge. ErrNotFound: the provider has never seen the key.
func (c *Client) FindCharge(ctx context.Context, key string) (Charge, error) {
	ctx, cancel := context.WithTimeout(ctx, QuestionTimeout)
	defer cancel()
	var out Charge
	if _, err := c.call(ctx, http.MethodGet, "/provider/charges/"+url.PathEscape(key), nil, &out); err != nil {
		return Charge{}, err
	}
	return out, out.check(key)
}

// Void makes sure that nothing is charged under the key, now or later. The answer says captured where it came too late.
func (c *Client) Void(ctx context.Context, key string) (Charge, error) {
	ctx, cancel := context.WithTimeout(ctx, QuestionTimeout)
	defer cancel()
	var out Charge
	if _, err := c.call(ctx, http.MethodPost, "/provider/charges/"+url.PathEscape(key)+"/void", struct{}{}, &out); err != nil {
		return Charge{}, err
	}
	if out.Key == "" { // a tombstone may be answered with its status alone
		out.Key = key
	}
	return out, out.check(key)
}

func (c *Charge) check(key string) error {
	if c.Key != key || len(c.ID) > maxText || len(c.Reason) > maxText || (c.Status != Captured && c.Status != Declined && c.Status != Voided) {
		return fmt.Errorf("%w: charge answered as %.40q", ErrNoAnswer, c.Status)
	}
	return nil
}

// Refund gives the money of a charge back. A refusal of the request itself (4xx) is a definite failure.
func (c *Client) Refund(ctx context.Context, r RefundRequest) (Refund, error) {
	ctx, cancel := context.WithTimeout(ctx, RefundTimeout)
	defer cancel()
	var out Refund
	refused, err := c.call(ctx, http.MethodPost, "/provider/refunds", r, &out)
	if refused != 0 {
		return Refund{Key: r.Key, Status: Failed, Reason: fmt.Sprintf("refused_%d", refused)}, nil
	}
	if err != nil {
		return Refund{}, err
	}
	return out, out.check(r.Key)
}

// FindRefund asks what became of a refund. ErrNotFound: the provider has never seen the key.
func (c *Client) FindRefund(ctx context.Context, key string) (Refund, error) {
	ctx, cancel := context.WithTimeout(ctx, QuestionTimeout)
	defer cancel()
	var out Refund
	if _, err := c.call(ctx, http.MethodGet, "/provider/refunds/"+url.PathEscape(key), nil, &out); err != nil {
		return Refund{}, err
	}
	return out, out.check(key)
}

func (r *Refund) check(key string) error {
	if r.Key != key || len(r.ID) > maxText || len(r.Reason) > maxText || (r.Status != Refunded && r.Status != Failed) {
		return fmt.Errorf("%w: refund answered as %.40q", ErrNoAnswer, r.Status)
	}
	return nil
}

// call sends one request. A 400 or 422 to a POST is the provider's refusal of what was asked, returned as its status;
// other 4xx say something about us (credentials, a wrong address) and nothing about the charge.
func (c *Client) call(ctx context.Context, method, path string, in, out any) (refused int, err error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return 0, fmt.Errorf("make request: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, errors.Join(ErrNoAnswer, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1)) // to its end, or the connection is not kept
	switch {
	case err != nil:
		return 0, errors.Join(ErrNoAnswer, err)
	case len(b) > maxBody:
		return 0, fmt.Errorf("%w: answer above %d bytes", ErrNoAnswer, maxBody)
	case resp.StatusCode == http.StatusNotFound && method == http.MethodGet:
		return 0, ErrNotFound
	case method == http.MethodPost && (resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusUnprocessableEntity):
		return resp.StatusCode, fmt.Errorf("%w: status %d", ErrNoAnswer, resp.StatusCode)
	case resp.StatusCode != http.StatusOK:
		return 0, fmt.Errorf("%w: status %d", ErrNoAnswer, resp.StatusCode)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return 0, fmt.Errorf("%w: not the JSON that was asked for", ErrNoAnswer)
	}
	return 0, nil
}

// CloseIdle closes connections that nobody uses, at the end of a process.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }
