package httpapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"encoding/json"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/payment/internal/payment"
	"github.com/waybill-dev/waybill/services/payment/internal/processor"
)

// hook checks signatures. The library refuses time-stamps more than 5 minutes away and compares in constant time.
type hook struct{ *webhooks.Webhook }

func newHook(secret string) (*hook, error) {
	w, err := webhooks.NewWebhook(secret)
	if err != nil {
		return nil, errors.New("the webhook secret is not whsec_ and base64")
	}
	return &hook{w}, nil
}

// notice is what the provider tells. Members that we do not use are its own business, so this is not decoded strictly: its
// author is known by the signature.
type notice struct {
	Type string `json:"type"`
	Data struct {
		ID       string `json:"id"`
		Key      string `json:"key"`
		OrderID  string `json:"order_id"`
		Amount   int64  `json:"amount"`
		Currency string `json:"currency"`
		Reason   string `json:"reason"`
	} `json:"data"`
}

// maxWebhookID bounds what is stored of a webhook.
const maxWebhookID = 255

func (a *api) webhook(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	if err := problem.Media(r); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, problem.MaxBody))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return problem.New(http.StatusRequestEntityTooLarge, "body-too-large", "a body has at most 64 KiB")
	}
	if err != nil {
		return problem.New(http.StatusBadRequest, "malformed-request", "the body cannot be read").Because(err)
	}
	id := r.Header.Get("webhook-id")
	if err := a.hook.Verify(body, r.Header); err != nil || id == "" || len(id) > maxWebhookID {
		slug := "invalid-signature"
		if errors.Is(err, webhooks.ErrMessageTooOld) || errors.Is(err, webhooks.ErrMessageTooNew) {
			slug = "stale-webhook"
		}
		return problem.New(http.StatusUnauthorized, slug, "the webhook is not signed, or not now").Because(err)
	}
	var n notice
	if err := json.Unmarshal(body, &n); err != nil {
		return problem.New(http.StatusBadRequest, "malformed-json", "the body is not the JSON that is expected here")
	}
	result, err := n.result()
	if err != nil {
		return err
	}
	if result == nil { // a type of notice that means nothing to us
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	result.WebhookID = id
	switch err := a.Provider.Learn(r.Context(), result); {
	case errors.Is(err, payment.ErrNoPayment), errors.Is(err, payment.ErrImpossible), errors.Is(err, payment.ErrAmountMismatch):
		// Not ours, or nothing that its sender could mend by sending it again.
		w.WriteHeader(http.StatusAccepted)
	case err != nil:
		return err
	default:
		w.WriteHeader(http.StatusOK)
	}
	return nil
}

// result reads a notice. Nil without an error: it does not concern payments.
func (n *notice) result() (*processor.Result, error) {
	bad := func(pointer string) error {
		return problem.New(http.StatusUnprocessableEntity, "invalid-field", "the webhook does not fit its type").Field(pointer, "does not fit")
	}
	d := &n.Data
	r := &processor.Result{OrderID: d.OrderID, Amount: d.Amount, Currency: d.Currency}
	switch n.Type {
	case "charge.captured", "charge.declined", "charge.voided":
		if d.Key != payment.ChargeKey(d.OrderID) {
			return nil, bad("/data/key")
		}
		r.Charge = &payment.ChargeAnswer{Fact: payment.Fact(n.Type), Ref: d.ID, Reason: d.Reason}
		if n.Type == "charge.captured" {
			r.Charge.Reason = ""
		}
	case "refund.refunded", "refund.failed":
		number, ok := strings.CutPrefix(d.Key, d.OrderID+":refund:")
		attempt, err := strconv.Atoi(number)
		if !ok || err != nil || payment.RefundKey(d.OrderID, attempt) != d.Key {
			return nil, bad("/data/key")
		}
		r.Refund = &payment.RefundAnswer{Attempt: attempt, Status: payment.RefundFailed, Ref: d.ID, Reason: d.Reason}
		if n.Type == "refund.refunded" {
			r.Refund.Status, r.Refund.Reason = payment.RefundedOK, ""
		}
	default:
		return nil, nil
	}
	if !orderID.MatchString(d.OrderID) {
		return nil, bad("/data/order_id")
	}
	if len(d.ID) > 200 || len(d.Reason) > 200 {
		return nil, bad(fmt.Sprintf("/data/%s", map[bool]string{true: "id", false: "reason"}[len(d.ID) > 200]))
	}
	return r, nil
}
