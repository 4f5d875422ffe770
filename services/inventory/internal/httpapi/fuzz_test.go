package httpapi

import (
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

// A price that is accepted is the number that was sent, and is shown as it was understood.
func FuzzPrice(f *testing.F) {
	for _, s := range []string{"29.95", "0", "-1", "1e2", "007", "1.", ".5", "99999999999.99", `"1"`, "--1", "1.2.3"} {
		f.Add(s, "EUR")
	}
	f.Add("1.234", "KWD")
	f.Add("500", "JPY")
	f.Fuzz(func(t *testing.T, raw, currency string) {
		var body struct {
			Price decimal `json:"price"`
		}
		if json.Unmarshal([]byte(`{"price":`+raw+`}`), &body) != nil {
			return
		}
		var fields fields
		price := priceOf(&fields, productBody{Price: body.Price, Currency: currency})
		if fields.err() != nil {
			return
		}
		if price < 0 || price > stock.MaxPrice {
			t.Fatalf("%s %s became %d", raw, currency, price)
		}
		again, err := stock.Minor(string(money(price, currency)), currency)
		if err != nil || again != price {
			t.Fatalf("%s %s became %d, is shown as %s, which is %d, %v", raw, currency, price, money(price, currency), again, err)
		}
	})
}

// A cursor from outside is refused or is a place in its own list.
func FuzzCursor(f *testing.F) {
	f.Add("cA")
	f.Add(cursor(productList, "sku-0001"))
	f.Add(cursor(movementList, "17"))
	f.Fuzz(func(t *testing.T, c string) {
		r := httptest.NewRequest("GET", "/products?cursor="+url.QueryEscape(c), nil)
		_, after, err := paging(r, productList)
		if err == nil && c != "" && cursor(productList, after) != c {
			// Base64 with stray bits decodes to the same place; that place must still be one that is shown.
			if _, again, err := paging(httptest.NewRequest("GET", "/products?cursor="+cursor(productList, after), nil), productList); err != nil || again != after {
				t.Fatalf("%q is %q, which is %q", c, after, again)
			}
		}
	})
}
