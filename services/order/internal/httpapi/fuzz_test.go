package httpapi

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/order/internal/order"
)

// FuzzCreateBody is POST /orders as far as it depends on the body alone.
func FuzzCreateBody(f *testing.F) {
	f.Add([]byte(`{"order_id":"o-1","amount":59.90,"currency":"EUR","payment_method":"card","email":"a@example.com",
		"items":[{"product_id":"sku-0001","quantity":2}],
		"address":{"name":"A. Buyer","line1":"1 Main St","line2":"","city":"Berlin","region":"","postal_code":"10115","country":"DE"}}`))
	f.Add([]byte(`{"amount":1e5,"payment_method":"card"}`))
	f.Add([]byte(`{"amount":"1","payment_method":null,"items":[]}`))
	f.Add([]byte(`{"order_id":"../x","amount":0.001,"payment_method":"card","AMOUNT":1}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		b, err := problem.Decode[createBody](httptest.NewRecorder(), r)
		if err != nil {
			return
		}
		request := b.request()
		o, err := request.Check()
		if err != nil {
			return
		}
		if o.Amount <= 0 || o.Amount > order.MaxAmount || o.ID != "" && !order.ValidID(o.ID) || len(o.Items) > 0 && o.Address == nil {
			t.Fatalf("%s is accepted as %+v", body, o)
		}
		for _, it := range o.Items {
			if it.Quantity < 1 || !order.ValidID(it.ProductID) {
				t.Fatalf("%s is accepted with %+v", body, it)
			}
		}
	})
}

func FuzzFilter(f *testing.F) {
	for _, q := range []string{"", "status=pending&limit=100", "from=2026-11-22&to=2026-11-22T12:00:00Z", "limit=101", "cursor=AAAA", "from=9999-12-31T23:59:59-14:00", "reason=out_of_stock"} {
		f.Add(q)
	}
	p := auth.Principal{Subject: "a", Tenant: 1, Roles: []string{"customer"}}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		got, err := filter(q, p)
		if err != nil {
			return
		}
		if got.Limit < 1 || got.Limit > maxLimit || got.All || got.Tenant != 1 || got.Customer != "a" {
			t.Fatalf("%q is the filter %+v", query, got)
		}
		for _, at := range []int{got.From.Year(), got.To.Year()} {
			if at < 0 || at > 9999 {
				t.Fatalf("%q has a year that PostgreSQL has not: %+v", query, got)
			}
		}
		if got.BeforeID != "" && !order.ValidID(got.BeforeID) {
			t.Fatalf("%q continues behind %q", query, got.BeforeID)
		}
	})
}
