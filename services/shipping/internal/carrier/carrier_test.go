package carrier_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/services/shipping/internal/carrier"
	"github.com/waybill-dev/waybill/services/shipping/internal/shipment"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	key    = shipment.Key{OrderID: "o-1", Attempt: 2}
	parcel = shipment.Shipment{
		Key: key, Address: shipment.Address{Name: "A. Buyer", City: "Berlin"}, Items: []shipment.Item{{ProductID: "sku-0001", Quantity: 2}},
	}
)

// answering starts a carrier that gives one answer to everything, and a client of it.
func answering(t *testing.T, h http.HandlerFunc) *carrier.Client {
	t.Helper()
	s := httptest.NewServer(h)
	c := carrier.New(s.URL+"/", 2)
	t.Cleanup(func() {
		c.Close()
		s.Close()
	})
	return c
}

func TestAnswers(t *testing.T) {
	const accepted = `{"tracking":"WB1","status":"accepted","reason":"","extra":1}`
	for _, tt := range []struct {
		name   string
		status int
		body   string
		create string // status, tracking, reason; or "error"
		find   string // the same; or "unknown"
	}{
		{"accepted", 202, accepted, "accepted WB1 ", "error"},
		{"found", 200, `{"tracking":"WB1","status":"in_transit"}`, "in_transit WB1 ", "in_transit WB1 "},
		{"failed", 200, `{"tracking":"WB1","status":"failed","reason":"parcel_lost"}`, "failed WB1 parcel_lost", "failed WB1 parcel_lost"},
		{"failed without a reason", 200, `{"status":"failed"}`, "failed  carrier_failed", "failed  carrier_failed"},
		{"refused", 422, `{"type":"urn:problem:address-refused"}`, "failed  address_refused", "error"},
		{"refused in no words", 422, `no`, "failed  carrier_refused", "error"},
		{"refused in strange words", 422, `{"type":"urn:problem:<b>"}`, "failed  carrier_refused", "error"},
		{"key reused", 409, `{"type":"urn:problem:key-reused"}`, "failed  key_reused", "error"},
		{"down", 503, ``, "error", "error"},
		{"broken", 500, ``, "error", "error"},
		{"our credentials", 401, ``, "error", "error"},
		{"too many", 429, ``, "error", "error"},
		{"unknown", 404, ``, "error", "unknown"},
		{"no JSON", 200, `<html>`, "error", "error"},
		{"a state of its own", 200, `{"tracking":"WB1","status":"eaten"}`, "error", "error"},
		{"requested is not the carrier's to say", 200, `{"tracking":"WB1","status":"requested"}`, "error", "error"},
		{"no tracking", 200, `{"status":"delivered"}`, "error", "error"},
		{"endless tracking", 200, `{"status":"delivered","tracking":"` + strings.Repeat("1", 65) + `"}`, "error", "error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := answering(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			})
			describe := func(r shipment.Report, err error) string {
				switch {
				case errors.Is(err, carrier.ErrUnknown):
					return "unknown"
				case err != nil:
					return "error"
				case r.Key != key:
					t.Errorf("the report is about %s", r.Key)
				}
				return string(r.Status) + " " + r.Tracking + " " + r.Reason
			}
			if got := describe(c.Create(t.Context(), parcel)); got != tt.create {
				t.Errorf("create: %s, want %s", got, tt.create)
			}
			if got := describe(c.Find(t.Context(), key)); got != tt.find {
				t.Errorf("find: %s, want %s", got, tt.find)
			}
		})
	}
}

func TestWhatIsSent(t *testing.T) {
	var got []string
	c := answering(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type")+" "+string(body))
		_, _ = io.WriteString(w, `{"tracking":"WB1","status":"accepted"}`)
	})
	if _, err := c.Create(t.Context(), parcel); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Find(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`POST /carrier/shipments application/json {"key":"o-1:ship:2","order_id":"o-1","attempt":2,"address":{"name":"A. Buyer","line1":"","line2":"",` +
			`"city":"Berlin","region":"","postal_code":"","country":""},"items":[{"product_id":"sku-0001","quantity":2}]}`,
		`GET /carrier/shipments/o-1:ship:2  `,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSilenceIsAnError(t *testing.T) {
	c := answering(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server see that the caller has gone
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Create(ctx, parcel); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("create: %v", err)
	}
}
