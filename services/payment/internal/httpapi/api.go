// Package httpapi is the HTTP interface of the payment service. openapi.yaml describes it and the tests hold both together.
package httpapi

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/payment/internal/batch"
	"github.com/waybill-dev/waybill/services/payment/internal/intake"
	"github.com/waybill-dev/waybill/services/payment/internal/payment"
	"github.com/waybill-dev/waybill/services/payment/internal/processor"
)

// Finder reads payments.
type Finder interface {
	Find(ctx context.Context, orderID string) (payment.Payment, error)
}

// Payer takes requests for payments in.
type Payer interface {
	Pay(ctx context.Context, r *intake.Request) (answer inbox.Response, replayed bool, err error)
}

// Learner takes in what the provider tells by webhook.
type Learner interface {
	Learn(ctx context.Context, r *processor.Result) error
}

// Options are the parts behind the interface.
type Options struct {
	Payments      Finder
	Intake        Payer
	Provider      Learner
	WebhookSecret string // of standard webhooks: whsec_ and base64
	Auth          func(http.Handler) http.Handler
	Interventions http.Handler
	OpenAPI       []byte
}

// Classify finds the problem in errors that come from below: the process is about to end, or the client is gone.
func Classify(err error) *problem.Problem {
	if errors.Is(err, batch.ErrStopped) || errors.Is(err, context.Canceled) {
		return problem.Unavailable()
	}
	return nil
}

type api struct {
	Options
	hook *hook
}

// New makes the handler. It fails for a webhook secret that is none.
func New(o Options) (http.Handler, error) {
	h, err := newHook(o.WebhookSecret)
	if err != nil {
		return nil, err
	}
	a := &api{Options: o, hook: h}
	r := chi.NewRouter()
	r.NotFound(problem.NotFound)
	r.MethodNotAllowed(problem.MethodNotAllowed)
	r.Get("/openapi.yaml", a.document)
	r.Post("/webhooks/payments", problem.Handler(a.webhook)) // signed by the provider, so no token
	r.Group(func(r chi.Router) {
		r.Use(o.Auth)
		// Only people pay: the order service asks by event.
		r.With(auth.RequireRole("customer", "merchant", "operator", "admin")).Post("/payments", problem.Handler(a.pay))
		r.Get("/payments/{order_id}", problem.Handler(a.show))
		if o.Interventions != nil {
			r.Mount("/interventions", o.Interventions)
		}
	})
	return r, nil
}

func (a *api) document(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(a.OpenAPI)
}

// orderID is what an order may be called on this platform.
var orderID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// methods are what the provider knows. An order's own event is not checked against it: the order service did that.
var methods = map[string]bool{
	"card": true, "card_declined": true, "card_flaky": true, "card_down": true, "card_timeout": true, "card_slow": true,
}

type payBody struct {
	OrderID       string         `json:"order_id"`
	Amount        jsontext.Value `json:"amount"`
	Currency      string         `json:"currency"`
	PaymentMethod string         `json:"payment_method"`
}

// decimal is a JSON number as we take it: an amount has no sign and no exponent.
var decimal = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)

func (b *payBody) check() error {
	if len(b.Amount) > 0 && !decimal.Match(b.Amount) {
		if k := b.Amount.Kind(); k != jsontext.KindNumber || len(b.Amount) > 32 || b.Amount[0] != '-' {
			return problem.New(http.StatusBadRequest, "invalid-type", "a member has the wrong type").
				Field("/amount", "must be a decimal number without exponent")
		}
	}
	p := problem.New(http.StatusUnprocessableEntity, "invalid-field", "the request has an invalid member")
	if !orderID.MatchString(b.OrderID) {
		p = p.Field("/order_id", "1 to 64 of A-Z a-z 0-9 . _ -")
	}
	if !decimal.Match(b.Amount) || len(b.Amount) > 20 {
		p = p.Field("/amount", "must be above 0 and have at most the currency's decimal places")
	}
	if b.Currency != "" && !isCurrency(b.Currency) {
		p = p.Field("/currency", "three capital letters of ISO 4217")
	}
	switch {
	case isCardNumber(b.PaymentMethod):
		return problem.New(http.StatusUnprocessableEntity, "pan-not-allowed", "a card number must never be sent here").
			Field("/payment_method", "a card number")
	case !methods[b.PaymentMethod]:
		p = p.Field("/payment_method", "not a known payment method")
	}
	if len(p.Errors) > 0 {
		return p
	}
	return nil
}

func isCurrency(s string) bool {
	return len(s) == 3 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'A' && s[1] <= 'Z' && s[2] >= 'A' && s[2] <= 'Z'
}

// isCardNumber finds 13 to 19 digits that pass the Luhn check, however they are grouped.
func isCardNumber(s string) bool {
	n, sum := 0, 0
	for i := len(s) - 1; i >= 0; i-- {
		c := s[i]
		if c == ' ' || c == '-' {
			continue
		}
		if c < '0' || c > '9' {
			return false
		}
		d := int(c - '0')
		if n%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
		n++
	}
	return n >= 13 && n <= 19 && sum%10 == 0
}

// canonical is what makes two bodies the same request: 59.9 is 59.90.
func (b *payBody) canonical() map[string]string {
	amount := string(b.Amount)
	if strings.Contains(amount, ".") {
		amount = strings.TrimSuffix(strings.TrimRight(amount, "0"), ".")
	}
	return map[string]string{"order_id": b.OrderID, "amount": amount, "currency": b.Currency, "payment_method": b.PaymentMethod}
}

const payRoute = "/payments"

func (a *api) pay(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	body, err := problem.Decode[payBody](w, r)
	if err != nil {
		return err
	}
	if err := body.check(); err != nil {
		return err
	}
	key, err := inbox.KeyFrom(r, body.OrderID)
	if err != nil {
		return err
	}
	who := auth.From(r.Context())
	answer, replayed, err := a.Intake.Pay(r.Context(), &intake.Request{
		Principal: who,
		Key: inbox.Request{Caller: strconv.FormatInt(who.Tenant, 10) + "/" + who.Subject, Route: http.MethodPost + " " + payRoute, Key: key,
			Fingerprint: inbox.Fingerprint(http.MethodPost, payRoute, who.Subject, body.canonical())},
		KeyGiven: r.Header.Get("Idempotency-Key") != "",
		OrderID:  body.OrderID, Amount: string(body.Amount), Currency: body.Currency, Method: body.PaymentMethod,
		Traceparent: event.Traceparent(r.Context()),
		Render: func(p payment.Payment) (inbox.Response, error) {
			b, err := json.Marshal(show(p))
			return inbox.Response{Status: http.StatusAccepted, ContentType: "application/json",
				Location: payRoute + "/" + p.OrderID, Body: append(b, '\n')}, err
		},
	})
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	return answer.Write(w, replayed)
}

// paymentBody is a payment as clients see it.
type paymentBody struct {
	OrderID       string         `json:"order_id"`
	Status        string         `json:"status"`
	Amount        jsontext.Value `json:"amount"`
	Currency      string         `json:"currency"`
	PaymentMethod string         `json:"payment_method"`
	Attempts      int            `json:"attempts"`
	Refunded      jsontext.Value `json:"refunded"`
}

func show(p payment.Payment) paymentBody {
	return paymentBody{
		OrderID: p.OrderID, Status: string(p.Status), Amount: jsontext.Value(payment.FormatAmount(p.Amount, p.Currency)),
		Currency: p.Currency, PaymentMethod: p.Method, Attempts: p.Attempts,
		Refunded: jsontext.Value(payment.FormatAmount(p.Refunded, p.Currency)),
	}
}

func (a *api) show(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	id := chi.URLParam(r, "order_id")
	if !orderID.MatchString(id) {
		return problem.New(http.StatusBadRequest, "invalid-field", "no order can have this id").Field("order_id", "1 to 64 of A-Z a-z 0-9 . _ -")
	}
	p, err := a.Payments.Find(r.Context(), id)
	if errors.Is(err, payment.ErrNoPayment) || (err == nil && !intake.Visible(auth.From(r.Context()), p.Tenant, p.Customer)) {
		return problem.ErrNotFound()
	}
	if err != nil {
		return err
	}
	return problem.JSON(w, http.StatusOK, show(p))
}
