package httpapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

type reserveBody struct {
	OrderID string `json:"order_id"`
	Items   []item `json:"items"`
}

type reservationAnswer struct {
	OrderID   string     `json:"order_id"`
	State     string     `json:"state"`
	Items     []item     `json:"items"`
	Total     decimal    `json:"total"`
	Currency  string     `json:"currency"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// reserve holds items for an order, before there is one or beside it.
func (a api) reserve(w http.ResponseWriter, r *http.Request) error {
	body, err := decode[reserveBody](w, r)
	if err != nil {
		return err
	}
	key, err := idempotency(r, "/inventory/reserve", body.OrderID, body)
	if err != nil {
		return err
	}
	var f fields
	f.id("/order_id", body.OrderID)
	if len(body.Items) > stock.MaxItems {
		return tooManyItems("/items")
	}
	wanted := f.items("/items", body.Items)
	if err := f.err(); err != nil {
		return err
	}
	p := auth.From(r.Context())
	answer := func(ans stock.Answer) *inbox.Response {
		v, err := held(ans, body)
		return record(r, http.StatusOK, v, err)
	}
	replies, err := a.Intake.Reserve(r.Context(), []postgres.Ask{{
		Ask: stock.Ask{OrderID: body.OrderID, Tenant: p.Tenant, Items: wanted, Cause: stock.Cause{Trace: event.Traceparent(r.Context())}},
		Key: key, Render: func(ans stock.Answer) *inbox.Response { return definite(answer(ans)) },
	}})
	if err != nil {
		return err
	}
	switch reply := replies[0]; {
	case reply.Err != nil:
		return reply.Err
	case reply.Replayed != nil:
		send(w, reply.Replayed, true)
	default:
		send(w, answer(reply.Answer), false)
	}
	return nil
}

func tooManyItems(pointer string) error {
	return problem.New(http.StatusUnprocessableEntity, "too-many-items", "An order has at most 100 items.").Field(pointer, "at most 100")
}

// held words the outcome of a hold.
func held(ans stock.Answer, body reserveBody) (reservationAnswer, error) {
	// lines of the request that are about a product, which may stand in it more than once
	pointers := func(product string) (out []string) {
		for i, it := range body.Items {
			if it.ProductID == product {
				out = append(out, fmt.Sprintf("/items/%d", i))
			}
		}
		return out
	}
	switch {
	case ans.Outcome == stock.OutcomeHeld, ans.Outcome == stock.OutcomePinned:
		res := ans.Reservation
		out := reservationAnswer{
			OrderID: res.OrderID, State: strings.ToLower(string(res.State)), Items: itemsOf(res.Items),
			Total: money(res.Total, res.Currency), Currency: res.Currency,
		}
		if res.State == stock.Held {
			due := res.Due.UTC()
			out.ExpiresAt = &due
		}
		return out, nil
	case ans.Reason == stock.ReasonOutOfStock:
		p := problem.New(http.StatusConflict, "insufficient-stock", "There is not enough of some products.")
		for _, s := range ans.Short {
			for _, at := range pointers(s.Product) {
				p = p.Field(at, fmt.Sprintf("%s: %d requested, %d available", s.Product, s.Requested, s.Available))
			}
		}
		return reservationAnswer{}, p
	case ans.Reason == stock.ReasonUnknownProduct:
		p := problem.New(http.StatusUnprocessableEntity, "unknown-product", "Some products do not exist.")
		for _, u := range ans.Unknown {
			for _, at := range pointers(u) {
				p = p.Field(at+"/product_id", "does not exist")
			}
		}
		return reservationAnswer{}, p
	case ans.Outcome == stock.OutcomeMismatch:
		var f fields
		f.bad("/items", "the products have different currencies, or their total is too large")
		return reservationAnswer{}, f.err()
	case ans.Outcome == stock.OutcomeDiffers:
		return reservationAnswer{}, problem.New(http.StatusConflict, "reservation-mismatch", "The order has reserved other items.")
	}
	return reservationAnswer{}, problem.New(http.StatusConflict, "reservation-closed", "The reservation of this order was released or has expired.")
}

type releaseBody struct {
	OrderID string `json:"order_id"`
}

type releaseAnswer struct {
	OrderID string `json:"order_id"`
	State   string `json:"state"`
}

// reasonCaller is why a hold was given up that the API was asked to release.
const reasonCaller = "requested"

// release frees a hold. Where there is none it leaves a tombstone, so that the reservation that was overtaken is refused.
func (a api) release(w http.ResponseWriter, r *http.Request) error {
	body, err := decode[releaseBody](w, r)
	if err != nil {
		return err
	}
	key, err := idempotency(r, "/inventory/release", body.OrderID, body)
	if err != nil {
		return err
	}
	var f fields
	f.id("/order_id", body.OrderID)
	if err := f.err(); err != nil {
		return err
	}
	p := auth.From(r.Context())
	answer := func(done stock.Settlement) *inbox.Response {
		v := releaseAnswer{OrderID: body.OrderID, State: strings.ToLower(string(done.State))}
		switch {
		case done.Foreign:
			return record(r, 0, nil, problem.ErrNotFound())
		case done.Verdict == stock.Refused:
			return record(r, 0, nil, problem.New(http.StatusConflict, "reservation-in-use", "The reservation belongs to an order that is being paid or is paid."))
		}
		return record(r, http.StatusOK, v, nil)
	}
	done, replayed, err := a.Store.Release(r.Context(), stock.News{
		Fact: stock.Free, OrderID: body.OrderID, Tenant: p.Tenant, Reason: reasonCaller, Cause: stock.Cause{Trace: event.Traceparent(r.Context())},
	}, p.Has("operator", "admin"), key, func(s stock.Settlement) *inbox.Response { return definite(answer(s)) })
	if err != nil {
		return err
	}
	if replayed != nil {
		send(w, replayed, true)
		return nil
	}
	send(w, answer(done), false)
	return nil
}

const (
	// maxBatch is what the order service sends at once.
	maxBatch = 256
	// maxBatchBody: 256 orders of 100 items of 64-byte ids each are 2.6 MiB.
	maxBatchBody = 4 << 20
)

type batchBody struct {
	Reservations []reservationAsk `json:"reservations"`
}

type reservationAsk struct {
	OrderID     string `json:"order_id"`
	Tenant      int64  `json:"tenant"`
	Currency    string `json:"currency"`
	Amount      int64  `json:"amount"` // minor units
	Items       []item `json:"items"`
	Traceparent string `json:"traceparent"`
	// CreatedAt is the ce_time of order.created.
	CreatedAt time.Time `json:"created_at"`
}

type batchAnswer struct {
	Results []reservationResult `json:"results"`
}

type reservationResult struct {
	OrderID  string        `json:"order_id"`
	Outcome  stock.Outcome `json:"outcome"`
	Reason   string        `json:"reason,omitempty"`
	Total    int64         `json:"total"`
	Currency string        `json:"currency,omitempty"`
}

// reserveBatch pins the items of many orders, an answer for each. Its path is the order service's only way to reserve; it
// is sent again until it is answered.
func (a api) reserveBatch(w http.ResponseWriter, r *http.Request) error {
	body, err := decodeBatch(w, r)
	if err != nil {
		return err
	}
	var f fields
	if n := len(body.Reservations); n == 0 || n > maxBatch {
		f.bad("/reservations", fmt.Sprintf("1 to %d", maxBatch))
	}
	asks := make([]postgres.Ask, 0, len(body.Reservations))
	for i, q := range body.Reservations {
		at := fmt.Sprintf("/reservations/%d", i)
		f.id(at+"/order_id", q.OrderID)
		if q.Tenant < 1 {
			f.bad(at+"/tenant", "from 1")
		}
		if len(q.Items) > stock.MaxItems {
			return tooManyItems(at + "/items")
		}
		asks = append(asks, postgres.Ask{Ask: stock.Ask{
			OrderID: q.OrderID, Tenant: q.Tenant, Items: f.items(at+"/items", q.Items), Amount: q.Amount, Currency: q.Currency, Pin: true, Cause: stock.Cause{Trace: q.Traceparent, At: q.CreatedAt},
		}})
	}
	if err := f.err(); err != nil {
		return err
	}
	replies, err := a.Intake.Reserve(r.Context(), asks)
	if err != nil {
		return err
	}
	out := batchAnswer{Results: make([]reservationResult, len(replies))}
	for i, p := range replies {
		out.Results[i] = reservationResult{OrderID: p.OrderID, Outcome: p.Outcome, Reason: p.Reason, Total: p.Total, Currency: p.Currency}
	}
	return problem.JSON(w, http.StatusOK, out)
}

// decodeBatch is problem.Decode for a body that is larger than what comes from outside.
func decodeBatch(w http.ResponseWriter, r *http.Request) (body batchBody, err error) {
	if media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); strings.TrimSpace(media) != "application/json" {
		return body, problem.New(http.StatusUnsupportedMediaType, "unsupported-media-type", "Content-Type must be application/json")
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBatchBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return body, problem.New(http.StatusRequestEntityTooLarge, "body-too-large", "a batch has at most 4 MiB")
		}
		return body, problem.New(http.StatusBadRequest, "malformed-request", "the body cannot be read").Because(err)
	}
	return body, problem.Unmarshal(data, &body)
}

// decode reads a body of a caller from outside.
func decode[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	if err := problem.Query(r); err != nil {
		var zero T
		return zero, err
	}
	return problem.Decode[T](w, r)
}
