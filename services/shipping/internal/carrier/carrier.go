// Package carrier calls a carrier over HTTP: to have a parcel taken, and to ask where it is.
//
// Each call names the shipment by a key that never changes, so a call whose answer was lost is simply made again.
package carrier

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
	"time"

	"github.com/waybill-dev/waybill/libs/telemetry"
	"github.com/waybill-dev/waybill/services/shipping/internal/shipment"
)

const (
	// callTimeout is as long as a charge may take. What takes longer has an unknown outcome, and the key finds it out.
	callTimeout = 5 * time.Second
	// maxAnswer bounds what is read of an answer; a parcel with its history has one or two KiB.
	maxAnswer = 64 << 10
)

// ErrUnknown is a shipment that the carrier has never heard of.
var ErrUnknown = errors.New("the carrier does not know the shipment")

// Client speaks to one carrier.
type Client struct {
	url  string
	http *http.Client
}

// New makes a client of the carrier at url. parallel is how many calls will be made at a time.
func New(url string, parallel int) *Client {
	return &Client{url: strings.TrimSuffix(url, "/"), http: &http.Client{
		Timeout: callTimeout,
		Transport: telemetry.Transport(&http.Transport{
			MaxConnsPerHost: parallel, MaxIdleConnsPerHost: parallel, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: callTimeout,
		}),
	}}
}

// parcel is the carrier's answer.
type parcel struct {
	Tracking string `json:"tracking"`
	Status   string `json:"status"`
	Reason   string `json:"reason"`
}

// Create has the parcel taken. A refusal for good is a report that it failed; an error means that nothing is known and
// the same call may be made again.
func (c *Client) Create(ctx context.Context, s shipment.Shipment) (shipment.Report, error) {
	body, err := json.Marshal(struct {
		Key     string           `json:"key"`
		OrderID string           `json:"order_id"`
		Attempt int32            `json:"attempt"`
		Address shipment.Address `json:"address"`
		Items   []shipment.Item  `json:"items"`
	}{s.Key.String(), s.OrderID, s.Attempt, s.Address, s.Items})
	if err != nil {
		return shipment.Report{}, err
	}
	status, answer, err := c.call(ctx, http.MethodPost, "/carrier/shipments", body)
	if err != nil {
		return shipment.Report{}, err
	}
	switch status {
	case http.StatusOK, http.StatusCreated, http.StatusAccepted:
		return report(s.Key, answer)
	case http.StatusUnprocessableEntity, http.StatusConflict:
		// The only answers that are about this parcel. Others (401, 404 …) are about us or the carrier's day.
		return shipment.Report{Key: s.Key, Status: shipment.Failed, Reason: slug(answer)}, nil
	}
	return shipment.Report{}, fmt.Errorf("the carrier answered %d", status)
}

// Find asks where the parcel is.
func (c *Client) Find(ctx context.Context, k shipment.Key) (shipment.Report, error) {
	status, answer, err := c.call(ctx, http.MethodGet, "/carrier/shipments/"+url.PathEscape(k.String()), nil)
	switch {
	case err != nil:
		return shipment.Report{}, err
	case status == http.StatusOK:
		return report(k, answer)
	case status == http.StatusNotFound:
		return shipment.Report{}, ErrUnknown
	}
	return shipment.Report{}, fmt.Errorf("the carrier answered %d", status)
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) call(ctx context.Context, method, path string, body []byte) (status int, answer []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return 0, nil, fmt.Errorf("call the carrier: %w", err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, nil, fmt.Errorf("read the carrier's answer: %w", err)
	}
	return resp.StatusCode, answer, nil
}

func report(k shipment.Key, answer []byte) (shipment.Report, error) {
	var p parcel
	if err := json.Unmarshal(answer, &p); err != nil {
		return shipment.Report{}, fmt.Errorf("read the carrier's answer: %w", err)
	}
	r := shipment.Report{Key: k, Status: shipment.Status(p.Status), Tracking: p.Tracking, Reason: p.Reason}
	return r, Check(&r)
}

// Check says whether a report makes sense and gives a failure without a reason one.
func Check(r *shipment.Report) error {
	switch {
	case !r.Status.Known() || r.Status == shipment.Requested:
		return fmt.Errorf("the carrier reports the state %.20q", r.Status)
	case r.Status != shipment.Failed && r.Tracking == "":
		return errors.New("the carrier reports no tracking number")
	case len(r.Tracking) > maxTracking:
		return fmt.Errorf("the carrier reports a tracking number of %d bytes", len(r.Tracking))
	case r.Status == shipment.Failed && r.Reason == "":
		r.Reason = "carrier_failed"
	}
	if r.Status != shipment.Failed {
		r.Reason = ""
	}
	if len(r.Reason) > maxReason {
		r.Reason = r.Reason[:maxReason]
	}
	r.Reason = strings.ToValidUTF8(r.Reason, "")
	return nil
}

const (
	maxTracking = 64
	maxReason   = 200
)

// slug is a problem document's type as a reason: urn:problem:address-refused is address_refused.
func slug(answer []byte) string {
	var p struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(answer, &p) // any other refusal is one without a reason
	s := p.Type[strings.LastIndexByte(p.Type, ':')+1:]
	if s == "" || !shipment.ValidID(s) {
		return "carrier_refused"
	}
	return strings.ReplaceAll(s, "-", "_")
}
