package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/waybill-dev/waybill/services/shipping/internal/shipment"
)

// listener is an intake that only listens.
type listener struct{ heard *shipment.Change }

func (l listener) Apply(_ context.Context, c shipment.Change) (bool, error) {
	*l.heard = c
	return true, nil
}

// FuzzWebhook sends what the carrier has signed. Whatever it says, the answer is 2xx or 4xx, and what gets through is a report
// that fits into the tables.
func FuzzWebhook(f *testing.F) {
	for _, s := range []string{
		`{"type":"shipment.accepted","data":{"order_id":"o-1","attempt":1,"tracking":"T1","status":"accepted"}}`,
		`{"data":{"order_id":"o-1","attempt":0,"status":"accepted"}}`,
		`{"data":{"order_id":"o-1","attempt":1,"status":"failed","reason":"\ud800"}}`,
		`{"data":{"order_id":"o/1","attempt":1e9,"status":"delivered","tracking":"x"}}`, `[]`, `null`,
	} {
		f.Add([]byte(s))
	}
	const key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	sign, err := standardwebhooks.NewWebhook(key)
	if err != nil {
		f.Fatal(err)
	}
	var heard shipment.Change
	h, err := New(Options{Intake: listener{&heard}, Secret: key, Auth: func(h http.Handler) http.Handler { return h }, Interventions: http.NotFoundHandler()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		heard = shipment.Change{}
		now := time.Now()
		signature, err := sign.Sign("msg_1", now, body)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, "/webhooks/shipping", strings.NewReader(string(body)))
		r.Header = http.Header{"Content-Type": {"application/json"}, "Webhook-Id": {"msg_1"}, "Webhook-Signature": {signature},
			"Webhook-Timestamp": {strconv.FormatInt(now.Unix(), 10)}}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 || w.Code < 200 || w.Code == http.StatusUnauthorized {
			t.Fatalf("%q: %d %s", body, w.Code, w.Body)
		}
		if c := heard; w.Code == http.StatusOK && (!shipment.ValidID(c.OrderID) || c.Attempt < 1 || !c.Status.Known() || !utf8.ValidString(c.Reason) || len(c.Reason) > 200) {
			t.Fatalf("%q became %+v", body, c)
		}
	})
}
