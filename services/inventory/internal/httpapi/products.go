package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

type productAnswer struct {
	ProductID string  `json:"product_id"`
	Name      string  `json:"name"`
	Price     decimal `json:"price"`
	Currency  string  `json:"currency"`
	OnHand    int64   `json:"on_hand"`
	Reserved  int64   `json:"reserved"`
	Available int64   `json:"available"`
}

func shown(p stock.Product) productAnswer {
	return productAnswer{
		ProductID: p.Product, Name: p.Name, Price: money(p.Price, p.Currency), Currency: p.Currency,
		OnHand: p.OnHand, Reserved: p.Reserved, Available: p.Available(),
	}
}

func parseTenant(s string) (int64, error) {
	t, err := strconv.ParseInt(s, 10, 64)
	if err != nil || t < 1 {
		return 0, problem.New(http.StatusBadRequest, "invalid-field", "tenant is a number from 1").Field("tenant", "a number from 1")
	}
	return t, nil
}

// productList is the letter in the cursor of this list.
const productList = "p"

func (a api) listProducts(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r, "limit", "cursor", "tenant"); err != nil {
		return err
	}
	tenant, err := tenantOf(r)
	if err != nil {
		return err
	}
	limit, after, err := paging(r, productList)
	if err != nil {
		return err
	}
	if after != "" && !validID(after) {
		return invalidCursor()
	}
	found, err := a.Store.Products(r.Context(), tenant, after, limit+1)
	if err != nil {
		return err
	}
	out := page[productAnswer]{Items: []productAnswer{}}
	for i, p := range found {
		if i == limit {
			out.Next = cursor(productList, found[i-1].Product)
			break
		}
		out.Items = append(out.Items, shown(p))
	}
	return problem.JSON(w, http.StatusOK, out)
}

func (a api) getProduct(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r, "tenant"); err != nil {
		return err
	}
	k, err := productOf(r)
	if err != nil {
		return err
	}
	p, found, err := a.Store.Product(r.Context(), k)
	if err != nil {
		return err
	}
	if !found {
		return problem.ErrNotFound()
	}
	return problem.JSON(w, http.StatusOK, shown(p))
}

type productBody struct {
	Name     string  `json:"name"`
	Price    decimal `json:"price"`
	Currency string  `json:"currency"`
}

// putProduct makes a product or changes name and price. Stock comes by restock, so that the ledger explains all of it.
func (a api) putProduct(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r, "tenant"); err != nil {
		return err
	}
	k, err := productOf(r)
	if err != nil {
		return err
	}
	body, err := problem.Decode[productBody](w, r)
	if err != nil {
		return err
	}
	if body.Currency == "" {
		body.Currency = "EUR"
	}
	var f fields
	f.text("/name", body.Name)
	price := priceOf(&f, body)
	if err := f.err(); err != nil {
		return err
	}
	// The product's own id stands in for a key.
	key, err := idempotency(r, "/products/{product_id}", k.Product, map[string]any{"product": k, "body": body})
	if err != nil {
		return err
	}
	answer := func(p stock.Product, created bool) *inbox.Response {
		if !created {
			return record(r, http.StatusOK, shown(p), nil)
		}
		made := record(r, http.StatusCreated, shown(p), nil)
		made.Location = "/products/" + p.Product
		return made
	}
	p, created, replayed, err := a.Store.PutProduct(r.Context(), stock.Product{Key: k, Name: body.Name, Price: price, Currency: body.Currency}, key, answer)
	switch {
	case err != nil:
		return err
	case replayed != nil:
		send(w, replayed, true)
	default:
		send(w, answer(p, created), false)
	}
	return nil
}

func priceOf(f *fields, body productBody) int64 {
	if _, ok := stock.Digits(body.Currency); !ok {
		f.bad("/currency", "not a currency of ISO 4217")
		return 0
	}
	if body.Price == "" {
		f.bad("/price", "must not be absent")
		return 0
	}
	price, err := stock.Minor(string(body.Price), body.Currency)
	switch {
	case errors.Is(err, stock.ErrDigits):
		f.bad("/price", "more digits than the currency has")
	case err != nil, price < 0, price > stock.MaxPrice:
		f.bad("/price", "0 to "+stock.Major(stock.MaxPrice, body.Currency))
	}
	return price
}

type restockBody struct {
	ProductID string `json:"product_id"`
	Quantity  int64  `json:"quantity"` // less than 0 takes away
	Reason    string `json:"reason"`
}

// restock changes a product's stock by an amount: a delivery, or what was broken.
func (a api) restock(w http.ResponseWriter, r *http.Request) error {
	body, err := decodeFor[restockBody](w, r)
	if err != nil {
		return err
	}
	key, err := idempotency(r, "/inventory/restock", "", body)
	if err != nil {
		return err
	}
	tenant, err := tenantOf(r)
	if err != nil {
		return err
	}
	var f fields
	f.id("/product_id", body.ProductID)
	if body.Quantity == 0 || body.Quantity > stock.MaxQuantity || body.Quantity < -stock.MaxQuantity {
		f.bad("/quantity", fmt.Sprintf("1 to %d, or as much below 0", stock.MaxQuantity))
	}
	f.text("/reason", body.Reason)
	if err := f.err(); err != nil {
		return err
	}
	answer := func(p stock.Product, err error) *inbox.Response {
		return record(r, http.StatusOK, shown(p), refusal(err))
	}
	p, replayed, err := a.Store.Restock(r.Context(), stock.Adjustment{
		Key: stock.Key{Tenant: tenant, Product: body.ProductID}, Document: "restock:" + uuid.Must(uuid.NewV7()).String(), Op: stock.Restocked,
		Delta: body.Quantity, Reason: body.Reason, Actor: auth.From(r.Context()).Subject, Cause: stock.Cause{Trace: event.Traceparent(r.Context())},
	}, *key, func(p stock.Product, err error) *inbox.Response { return definite(answer(p, err)) })
	switch {
	case err != nil && refusal(err) == err:
		return err
	case replayed != nil:
		send(w, replayed, true)
	default:
		send(w, answer(p, err), false)
	}
	return nil
}

// refusal words what is wrong with a change of stock; other errors are returned as they are.
func refusal(err error) error {
	switch {
	case errors.Is(err, stock.ErrUnknownProduct):
		return problem.New(http.StatusUnprocessableEntity, "unknown-product", "The product does not exist.").Field("/product_id", "does not exist")
	case errors.Is(err, stock.ErrBelowReserved):
		return problem.New(http.StatusConflict, "below-reserved", "The stock would fall below what is reserved for orders.")
	case errors.Is(err, stock.ErrTooMuchStock):
		var f fields
		f.bad("/quantity", fmt.Sprintf("the stock of a product is at most %d", int64(stock.MaxStock)))
		return f.err()
	}
	return err
}

// decodeFor is decode for a body that an operator may send for another tenant.
func decodeFor[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	if err := problem.Query(r, "tenant"); err != nil {
		var zero T
		return zero, err
	}
	return problem.Decode[T](w, r)
}

type movementAnswer struct {
	ID        int64     `json:"id"`
	At        time.Time `json:"at"`
	ProductID string    `json:"product_id"`
	OrderID   string    `json:"order_id,omitempty"`
	Document  string    `json:"document,omitempty"`
	Op        stock.Op  `json:"op"`
	Delta     int64     `json:"delta"`
	OnHand    int64     `json:"on_hand"`
	Reason    string    `json:"reason,omitempty"`
	Actor     string    `json:"actor,omitempty"`
}

const movementList = "m"

func (a api) listMovements(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r, "limit", "cursor", "tenant", "product_id", "order_id"); err != nil {
		return err
	}
	tenant, err := tenantOf(r)
	if err != nil {
		return err
	}
	limit, after, err := paging(r, movementList)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	filter := postgres.MovementFilter{Tenant: tenant, Product: q.Get("product_id"), OrderID: q.Get("order_id"), Limit: limit + 1}
	for _, name := range []string{"product_id", "order_id"} {
		if q.Has(name) && !validID(q.Get(name)) {
			return problem.New(http.StatusBadRequest, "invalid-field", name+" is "+idRule).Field(name, idRule)
		}
	}
	if after != "" {
		if filter.Before, err = strconv.ParseInt(after, 10, 64); err != nil || filter.Before < 1 {
			return invalidCursor()
		}
	}
	found, err := a.Store.Movements(r.Context(), filter)
	if err != nil {
		return err
	}
	out := page[movementAnswer]{Items: []movementAnswer{}}
	for i, m := range found {
		if i == limit {
			out.Next = cursor(movementList, strconv.FormatInt(found[i-1].ID, 10))
			break
		}
		out.Items = append(out.Items, movementAnswer{
			ID: m.ID, At: m.At.UTC(), ProductID: m.Product, OrderID: m.OrderID, Document: m.Document, Op: m.Op,
			Delta: m.Delta, OnHand: m.Balance, Reason: m.Reason, Actor: m.Actor,
		})
	}
	return problem.JSON(w, http.StatusOK, out)
}
