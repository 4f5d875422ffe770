package httpapi

import (
	"errors"
	"net/http"

	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/fault"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/provider"
)

type chargeRequest struct {
	Key      string `json:"key"`
	OrderID  string `json:"order_id"`
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
	Method   string `json:"method"`
}

func (a *API) charge(w http.ResponseWriter, r *http.Request) error {
	in, err := problem.Decode[chargeRequest](w, r)
	if err != nil {
		return err
	}
	if err := checkMoney(in.Key, in.OrderID, in.Amount, in.Currency); err != nil {
		return err
	}
	f := a.Faults.Take(fault.Charge, in.OrderID)
	var c provider.Charge
	return serve(w, r, f, func() (answer, error) {
		var m provider.Manner
		var err error
		c, m, err = a.Provider.Charge(provider.ChargeRequest(in), f.Outcome == "declined")
		return answer{http.StatusOK, c, m}, refusal(err)
	}, func() { a.reportCharge(c) })
}

func (a *API) findCharge(w http.ResponseWriter, r *http.Request) error {
	k, err := key(r)
	if err != nil {
		return err
	}
	return serve(w, r, a.Faults.Take(fault.ChargeGet, order(k)), func() (answer, error) {
		c, ok := a.Provider.FindCharge(k)
		if !ok {
			return answer{}, unseen()
		}
		return answer{status: http.StatusOK, body: c}, nil
	}, func() {})
}

func (a *API) void(w http.ResponseWriter, r *http.Request) error {
	k, err := key(r)
	if err != nil {
		return err
	}
	var c provider.Charge
	return serve(w, r, a.Faults.Take(fault.ChargeVoid, order(k)), func() (answer, error) {
		var err error
		c, err = a.Provider.Void(k, order(k))
		return answer{status: http.StatusOK, body: c}, err
	}, func() { a.reportCharge(c) })
}

type refundRequest struct {
	Key       string `json:"key"`
	ChargeKey string `json:"charge_key"`
	OrderID   string `json:"order_id"`
	Amount    int64  `json:"amount"`
	Currency  string `json:"currency"`
}

func (a *API) refund(w http.ResponseWriter, r *http.Request) error {
	in, err := problem.Decode[refundRequest](w, r)
	if err != nil {
		return err
	}
	if err := checkMoney(in.Key, in.OrderID, in.Amount, in.Currency); err != nil {
		return err
	}
	f := a.Faults.Take(fault.RefundCreate, in.OrderID)
	var out provider.Refund
	return serve(w, r, f, func() (answer, error) {
		var err error
		out, err = a.Provider.Refund(provider.RefundRequest(in), f.Outcome == "failed")
		return answer{status: http.StatusOK, body: out}, refusal(err)
	}, func() { a.Payments.Send("refund."+out.Status, out.OrderID, out) })
}

func (a *API) findRefund(w http.ResponseWriter, r *http.Request) error {
	k, err := key(r)
	if err != nil {
		return err
	}
	return serve(w, r, a.Faults.Take(fault.ChargeGet, order(k)), func() (answer, error) {
		f, ok := a.Provider.FindRefund(k)
		if !ok {
			return answer{}, unseen()
		}
		return answer{status: http.StatusOK, body: f}, nil
	}, func() {})
}

func (a *API) reportCharge(c provider.Charge) { a.Payments.Send("charge."+c.Status, c.OrderID, c) }

func checkMoney(key, order string, amount int64, currency string) error {
	p := problem.New(http.StatusUnprocessableEntity, "invalid-field", "the request cannot be carried out")
	switch {
	case key == "" || len(key) > maxKey:
		return p.Field("/key", "1 to 128 characters")
	case order == "" || len(order) > 64:
		return p.Field("/order_id", "1 to 64 characters")
	case amount <= 0:
		return p.Field("/amount", "minor units above 0")
	case len(currency) != 3:
		return p.Field("/currency", "three letters of ISO 4217")
	}
	return nil
}

func unseen() error {
	return problem.New(http.StatusNotFound, "not-found", "nothing was ever sent under this key")
}

// refusal gives the domain's refusals their answers.
func refusal(err error) error {
	switch {
	case errors.Is(err, provider.ErrDown):
		return problem.New(http.StatusServiceUnavailable, "unavailable", err.Error())
	case errors.Is(err, provider.ErrKeyReused):
		return problem.New(http.StatusConflict, "key-reused", err.Error())
	}
	return err
}
