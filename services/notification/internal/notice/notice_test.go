package notice

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/libs/event"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
)

func TestAmount(t *testing.T) {
	for _, tt := range []struct {
		minor    int64
		currency string
		want     string
	}{
		{5990, "EUR", "59.90"}, {5, "EUR", "0.05"}, {0, "USD", "0.00"}, {5990, "JPY", "5990"}, {1234, "KWD", "1.234"}, {-150, "EUR", "-1.50"},
	} {
		if got := Amount(tt.minor, tt.currency); got != tt.want {
			t.Errorf("%d %s is written %s, want %s", tt.minor, tt.currency, got, tt.want)
		}
	}
}

func TestMask(t *testing.T) {
	for address, want := range map[string]string{
		"jane@example.com": "j***@example.com", "ö@example.com": "ö***@example.com", "a@b@c": "a***@c", "nobody": "***", "@x": "***", "": "***",
	} {
		if got := Mask(address); got != want {
			t.Errorf("%q is masked %q, want %q", address, got, want)
		}
	}
}

var (
	items   = []*orderv1.Item{{ProductId: "sku-0001", Quantity: 1}}
	reasons = []string{
		"", "out_of_stock", "unknown_product", "amount_mismatch", "reservation_expired", "payment_declined", "payment_failed",
		"customer_request", "expired", "shipping_failed", "refund_failed", "something_new",
	}
)

func TestWhatIsTold(t *testing.T) {
	const to = "a@example.com"
	for _, tt := range []struct {
		typ  event.Type
		m    proto.Message
		want Kind
	}{
		{event.OrderPaymentProcessed, &orderv1.OrderPaymentProcessed{Email: to, Items: items}, Confirmed},
		{event.OrderPaymentProcessed, &orderv1.OrderPaymentProcessed{Email: to}, ""},
		{event.OrderPaymentProcessed, &orderv1.OrderPaymentProcessed{Items: items}, ""},
		{event.OrderShippingRequested, &orderv1.OrderShippingRequested{Email: to, Attempt: 2}, Resent},
		{event.OrderRefundRequested, &orderv1.OrderRefundRequested{Email: to, Attempt: 1}, Refunding},
		{event.OrderRefundRequested, &orderv1.OrderRefundRequested{Email: to, Attempt: 2}, ""},
		{event.OrderCompleted, &orderv1.OrderCompleted{Email: to}, Completed},
		{event.OrderCancelled, &orderv1.OrderCancelled{Email: to, Reason: "expired"}, Cancelled},
		{event.OrderFailed, &orderv1.OrderFailed{Email: to, Reason: "out_of_stock"}, Failed},
		{event.OrderAttention, &orderv1.OrderAttention{Email: to, Reason: "shipping_failed"}, Attention},
	} {
		e := event.Event{Tenant: 7}.Next(tt.typ, "o-1", 4, tt.m)
		n, ok, err := From(e)
		if err != nil || ok != (tt.want != "") || n.Kind != tt.want {
			t.Errorf("%s %v: %q, %v, %v; want %q", tt.typ, tt.m, n.Kind, ok, err, tt.want)
		}
		if ok && (n.EventID != e.ID || n.OrderID != "o-1" || n.Tenant != 7 || n.Seq != 4 || n.Recipient != to || n.Masked != "a***@example.com") {
			t.Errorf("%s: %+v", tt.typ, n)
		}
	}
	if _, _, err := From(event.Event{Type: event.OrderFailed, Data: []byte{0xff}}); err == nil {
		t.Error("a malformed event was understood")
	}
}

// Every message about every reason has words, names the order, and is polite in form.
func TestEveryMessageHasWords(t *testing.T) {
	for _, k := range []Kind{Confirmed, Resent, Completed, Cancelled, Failed, Refunding, Attention} {
		for _, reason := range reasons {
			subject, text := Write(k, Facts{OrderID: "o-1", Amount: 5990, Currency: "EUR", Reason: reason})
			if !strings.Contains(subject, "o-1") || strings.ContainsAny(subject, "\r\n") {
				t.Errorf("%s %s has the subject %q", k, reason, subject)
			}
			for _, part := range []string{"Dear customer,\n\n", "Order: o-1\nAmount: EUR 59.90\n", "Kind regards\n"} {
				if !strings.Contains(text, part) {
					t.Errorf("%s %s has no %q:\n%s", k, reason, part, text)
				}
			}
			if reason != "" && strings.Contains(text, reason) {
				t.Errorf("%s %s speaks in our own words:\n%s", k, reason, text)
			}
			for line := range strings.Lines(text) {
				if len(line) > 78 {
					t.Errorf("%s %s has a line of %d characters: %s", k, reason, len(line), line)
				}
			}
		}
	}
}

func TestWhatIsSaidOfMoney(t *testing.T) {
	for _, tt := range []struct {
		f    Facts
		want string
	}{
		{Facts{Reason: "payment_declined"}, "You have not been charged."},
		{Facts{Reason: "shipping_failed"}, "has been refunded"},
		{Facts{Reason: "shipping_failed", WrittenOff: true}, "has been returned to you"},
		{Facts{Reason: "customer_request"}, "If a payment had been made, it has been refunded in full."},
	} {
		_, text := Write(Cancelled, tt.f)
		if !strings.Contains(strings.ReplaceAll(text, "\n", " "), tt.want) {
			t.Errorf("cancelled %+v says nothing like %q:\n%s", tt.f, tt.want, text)
		}
	}
}

func TestTheWholeMessage(t *testing.T) {
	_, got := Write(Failed, Facts{OrderID: "o-1", Amount: 5990, Currency: "EUR", Reason: "out_of_stock"})
	want := `Dear customer,

We are sorry that we could not accept your order: an item is no longer
in stock. You have not been charged.

Order: o-1
Amount: EUR 59.90

If you have any questions, please reply to this message and quote your
order number.

Kind regards
Your customer service
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
