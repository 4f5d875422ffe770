package httpapi

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
	"github.com/waybill-dev/waybill/services/inventory/internal/recount"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

// maxCountAge is how far back a count may lie. The ledger since then is summed.
const maxCountAge = 7 * 24 * time.Hour

type stocktakeBody struct {
	Reason    string    `json:"reason"`
	CountedAt string    `json:"counted_at"` // RFC 3339, absent: now
	Counts    []countOf `json:"counts"`
}

type countOf struct {
	ProductID string `json:"product_id"`
	Counted   *int64 `json:"counted"`
}

type stocktakeAnswer struct {
	ID        string         `json:"id"`
	CountedAt time.Time      `json:"counted_at"`
	Items     []recount.Line `json:"items"`
}

// takeStock imports a physical count, reports the differences and books them.
func (a api) takeStock(w http.ResponseWriter, r *http.Request) error {
	body, err := decodeFor[stocktakeBody](w, r)
	if err != nil {
		return err
	}
	key, err := idempotency(r, "/inventory/stocktakes", "", body)
	if err != nil {
		return err
	}
	tenant, err := tenantOf(r)
	if err != nil {
		return err
	}
	take, err := takeOf(body, time.Now())
	if err != nil {
		return err
	}
	take.ID, take.Tenant, take.Actor = "stocktake:"+uuid.Must(uuid.NewV7()).String(), tenant, auth.From(r.Context()).Subject
	answer := func(t recount.Take, lines []recount.Line) *inbox.Response {
		return record(r, http.StatusOK, stocktakeAnswer{ID: t.ID, CountedAt: t.CountedAt.UTC(), Items: lines}, nil)
	}
	done, lines, replayed, err := a.Store.TakeStock(r.Context(), take, *key, answer, a.Interventions)
	var unknown postgres.UnknownProducts
	switch {
	case errors.As(err, &unknown):
		return unknownCounts(body, unknown)
	case errors.Is(err, stock.ErrTooMuchStock):
		var f fields
		f.bad("/counts", fmt.Sprintf("the stock of a product is at most %d", int64(stock.MaxStock)))
		return f.err()
	case err != nil:
		return err
	case replayed != nil:
		send(w, replayed, true)
	default:
		send(w, answer(done, lines), false)
	}
	return nil
}

// takeOf checks a stock-take. Its counts end up in product order, in which the rows are locked.
func takeOf(body stocktakeBody, now time.Time) (t recount.Take, err error) {
	var f fields
	f.text("/reason", body.Reason)
	t.Reason = body.Reason
	if body.CountedAt != "" {
		t.CountedAt, err = time.Parse(time.RFC3339, body.CountedAt)
		if err != nil || t.CountedAt.After(now.Add(time.Minute)) || t.CountedAt.Before(now.Add(-maxCountAge)) {
			f.bad("/counted_at", "a time of RFC 3339, at most 7 days ago and not in the future")
		}
	}
	if len(body.Counts) == 0 {
		f.bad("/counts", "at least one product")
	}
	seen := map[string]bool{}
	for i, c := range body.Counts {
		at := fmt.Sprintf("/counts/%d", i)
		f.id(at+"/product_id", c.ProductID)
		if seen[c.ProductID] {
			f.bad(at+"/product_id", "this product comes twice")
		}
		seen[c.ProductID] = true
		if c.Counted == nil || *c.Counted < 0 || *c.Counted > stock.MaxStock {
			f.bad(at+"/counted", fmt.Sprintf("0 to %d", int64(stock.MaxStock)))
			continue
		}
		t.Counts = append(t.Counts, recount.Count{Product: c.ProductID, Counted: *c.Counted})
	}
	slices.SortFunc(t.Counts, func(x, y recount.Count) int { return cmp.Compare(x.Product, y.Product) })
	return t, f.err()
}

func unknownCounts(body stocktakeBody, unknown []string) error {
	p := problem.New(http.StatusUnprocessableEntity, "unknown-product", "Some products do not exist; nothing was booked.")
	for i, c := range body.Counts {
		if slices.Contains(unknown, c.ProductID) {
			p = p.Field(fmt.Sprintf("/counts/%d/product_id", i), "does not exist")
		}
	}
	return p
}
