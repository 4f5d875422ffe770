package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/order/internal/order"
	"github.com/waybill-dev/waybill/services/order/internal/payment"
	"github.com/waybill-dev/waybill/services/order/internal/postgres"
)

func (a *api) get(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	id, err := orderID(r)
	if err != nil {
		return err
	}
	p := auth.From(r.Context())
	var o *order.Order
	var lines []postgres.Line
	err = postgres.Patiently(r.Context(), func(ctx context.Context) (err error) {
		o, lines, err = a.Store.Order(ctx, id, viewer(p))
		return err
	})
	if err != nil {
		return err
	}
	v := viewOf(o, lines)
	if p.Service != "" { // it asks for the status; the buyer is none of its business
		v.Email, v.Address = "", nil
	}
	return problem.JSON(w, http.StatusOK, v)
}

const (
	defaultLimit = 50
	maxLimit     = 100
)

type page struct {
	Items []summary `json:"items"`
	Next  string    `json:"next,omitempty"`
}

func (a *api) list(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r, "status", "reason", "from", "to", "limit", "cursor"); err != nil {
		return err
	}
	f, err := filter(r.URL.Query(), auth.From(r.Context()))
	if err != nil {
		return err
	}
	var orders []*order.Order
	err = postgres.Patiently(r.Context(), func(ctx context.Context) (err error) {
		more := f
		more.Limit++ // one more says whether there is a next page
		orders, err = a.Store.List(ctx, more)
		return err
	})
	if err != nil {
		return err
	}
	out := page{Items: []summary{}}
	if len(orders) > f.Limit {
		orders = orders[:f.Limit]
		out.Next = cursor(f, orders[f.Limit-1])
	}
	for _, o := range orders {
		out.Items = append(out.Items, summaryOf(o))
	}
	return problem.JSON(w, http.StatusOK, out)
}

func badParameter(name, detail string) error {
	return problem.New(http.StatusBadRequest, "invalid-field", "a parameter cannot be used").Field(name, detail)
}

// filter reads the parameters of a list.
func filter(q url.Values, p auth.Principal) (postgres.Filter, error) {
	f := postgres.Filter{Viewer: viewer(p), Limit: defaultLimit, Status: q.Get("status"), Reason: q.Get("reason")}
	if q.Has("status") && !slices.Contains(order.Statuses(), order.Status(f.Status)) {
		return f, badParameter("status", "not a status of an order")
	}
	if q.Has("reason") && !slices.Contains(order.Reasons(), order.Reason(f.Reason)) {
		return f, badParameter("reason", "not a reason of an order")
	}
	for name, at := range map[string]*time.Time{"from": &f.From, "to": &f.To} {
		if !q.Has(name) {
			continue
		}
		t, err := parseTime(q.Get(name))
		if err != nil {
			return f, badParameter(name, "a time like 2026-11-22T12:00:00Z, or a day")
		}
		*at = t
	}
	if !f.From.IsZero() && !f.To.IsZero() && f.To.Before(f.From) {
		return f, badParameter("to", "lies before from")
	}
	if q.Has("limit") {
		n, err := strconv.Atoi(q.Get("limit"))
		if err != nil || n < 1 || n > maxLimit {
			return f, badParameter("limit", "1 to "+strconv.Itoa(maxLimit))
		}
		f.Limit = n
	}
	if q.Has("cursor") {
		if err := resume(&f, q.Get("cursor")); err != nil {
			return f, problem.New(http.StatusBadRequest, "invalid-cursor", "this cursor does not belong to this list")
		}
	}
	return f, nil
}

// parseTime reads a time, or the beginning of a day, in UTC. PostgreSQL and people agree on the years 1 to 9999; nobody
// orders outside of four digits that begin with 1 to 9.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t, err = time.Parse(time.DateOnly, s)
	}
	if err == nil && (t.Year() < 1000 || t.Year() > 9998) {
		err = errors.New("year out of range")
	}
	return t.UTC(), err
}

// cursor is where a page ended: the last order's time and id, behind a check sum over both and everything that chose
// the list. It is no secret and protects nothing, since each page checks anew what its reader may see; it tells a cursor
// of another list, or a mangled one, from a good one.
func cursor(f postgres.Filter, last *order.Order) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(last.CreatedAt.UnixMicro()))
	b = append(b, last.ID...)
	return base64.RawURLEncoding.EncodeToString(append(checksum(f, b), b...))
}

const sumSize = 8

func checksum(f postgres.Filter, b []byte) []byte {
	h := sha256.New()
	fmt.Fprintf(h, "%t %d %q %q %q %d %d %x", f.All, f.Tenant, f.Customer, f.Status, f.Reason, f.From.UnixNano(), f.To.UnixNano(), b)
	return h.Sum(nil)[:sumSize]
}

// resume continues a list behind a cursor.
func resume(f *postgres.Filter, cursor string) error {
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	// Decoding overlooks line breaks and the bits behind the last byte: one place has one cursor.
	if err != nil || len(b) < sumSize+8+1 || base64.RawURLEncoding.EncodeToString(b) != cursor {
		return errors.New("not a cursor")
	}
	if string(checksum(*f, b[sumSize:])) != string(b[:sumSize]) {
		return errors.New("cursor of another list")
	}
	f.Before = time.UnixMicro(int64(binary.BigEndian.Uint64(b[sumSize:]))).UTC()
	f.BeforeID = string(b[sumSize+8:])
	if !order.ValidID(f.BeforeID) {
		return errors.New("not a cursor")
	}
	return nil
}

// payment tells the status of the order's payment, as the payment service knows it.
func (a *api) payment(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	id, err := orderID(r)
	if err != nil {
		return err
	}
	err = postgres.Patiently(r.Context(), func(ctx context.Context) error {
		_, err := a.Store.Head(ctx, id, viewer(auth.From(r.Context())))
		return err
	})
	if err != nil {
		return err
	}
	doc, err := a.Payments.Status(r.Context(), id)
	switch {
	case errors.Is(err, payment.ErrNone):
		return problem.ErrNotFound()
	case err != nil:
		return problem.Unavailable().Because(err)
	}
	return problem.JSON(w, http.StatusOK, doc)
}
