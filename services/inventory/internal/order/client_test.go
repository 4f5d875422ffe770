package order_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/libs/testkit"
	"github.com/waybill-dev/waybill/services/inventory/internal/order"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
}

// The call carries a token of this service that the order service accepts, and nothing else.
func TestFind(t *testing.T) {
	issuer := testkit.Identity(t)
	verifier := issuer.Verifier("order")
	server := httptest.NewServer(verifier.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/orders/o-1" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte(`{"order_id":"o-1","status":"paying","amount":59.90,"timeline":[{"at":"2026-11-22T12:00:00.000Z"}]}`))
	})))
	defer server.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	c := order.NewClient(server.URL, issuer.Signer("inventory").Transport("order", transport))
	if got, err := c.Find(t.Context(), "o-1"); got != (order.Order{Status: "paying"}) || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := c.Find(t.Context(), "o-2"); !errors.Is(err, order.ErrUnknown) {
		t.Errorf("an order that is not there: %v", err)
	}
	unsigned := order.NewClient(server.URL, transport)
	if _, err := unsigned.Find(t.Context(), "o-1"); err == nil || errors.Is(err, order.ErrUnknown) {
		t.Errorf("a refused call says nothing about the order: %v", err)
	}
	server.Close()
	if _, err := c.Find(t.Context(), "o-1"); err == nil || errors.Is(err, order.ErrUnknown) {
		t.Errorf("no order service: %v", err)
	}
}
