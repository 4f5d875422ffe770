package httpapi

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/services/payment/internal/payment"
)

// FuzzNotice is what a signed webhook says. Its author is known; that it makes sense is not.
func FuzzNotice(f *testing.F) {
	for _, s := range []string{
		`{"type":"charge.captured","data":{"id":"ch_1","key":"o-1:charge","order_id":"o-1","amount":5990,"currency":"EUR"}}`,
		`{"type":"charge.declined","data":{"key":"o-2:charge","order_id":"o-1","reason":"x"}}`,
		`{"type":"refund.refunded","data":{"key":"o-1:refund:1","order_id":"o-1","amount":1}}`,
		`{"type":"refund.failed","data":{"key":"o-1:refund:01","order_id":"o-1"}}`,
		`{"type":"refund.failed","data":{"key":":refund:-1","order_id":""}}`,
		`{"type":"something.new","data":{}}`, `null`, `{"data":[]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var n notice
		if json.Unmarshal(body, &n) != nil {
			return
		}
		r, err := n.result()
		if err != nil || r == nil {
			return
		}
		if !orderID.MatchString(r.OrderID) || (r.Charge == nil) == (r.Refund == nil) {
			t.Fatalf("%s is %+v", body, r)
		}
		switch {
		case r.Charge != nil && n.Data.Key != payment.ChargeKey(r.OrderID):
			t.Fatalf("%s is about another key", body)
		case r.Refund != nil && n.Data.Key != payment.RefundKey(r.OrderID, r.Refund.Attempt):
			t.Fatalf("%s is about attempt %d", body, r.Refund.Attempt)
		case r.Charge != nil && strings.HasPrefix(n.Type, "charge.") && r.Charge.Fact != payment.Fact(n.Type):
			t.Fatalf("%s is the fact %s", body, r.Charge.Fact)
		}
	})
}
