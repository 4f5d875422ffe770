// Package provider is the port to the payment provider and its HTTP client.
//
// An answer is definite or it is none. What is definite comes back as a Charge or a Refund with a status; everything else
// (time-out, broken connection, 429, 5xx, a body that is not what was asked for) is ErrNoAnswer, after which nobody knows
// whether it happened. Every call carries our own key, so calling again cannot make it happen twice.
package provider

import "errors"

// The ways in which a call ends without an answer that can be used.
var (
	// ErrNoAnswer: it may have happened or not.
	ErrNoAnswer = errors.New("no definite answer from the provider")
	// ErrNotFound: the provider has never seen the key.
	ErrNotFound = errors.New("key unknown to the provider")
)

// The statuses of a charge and of a refund at the provider.
const (
	Captured = "captured"
	Declined = "declined"
	Voided   = "voided"
	Refunded = "refunded"
	Failed   = "failed"
)

// ChargeRequest asks for money. Amounts are minor units.
type ChargeRequest struct {
	Key      string `json:"key"`
	OrderID  string `json:"order_id"`
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
	Method   string `json:"method"`
}

// Charge is what the provider knows of a charge.
type Charge struct {
	ID       string `json:"id"`
	Key      string `json:"key"`
	OrderID  string `json:"order_id"`
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
	Status   string `json:"status"`
	Reason   string `json:"reason"`
}

// RefundRequest asks to give the money of a charge back.
type RefundRequest struct {
	Key       string `json:"key"`
	ChargeKey string `json:"charge_key"`
	OrderID   string `json:"order_id"`
	Amount    int64  `json:"amount"`
	Currency  string `json:"currency"`
}

// Refund is what the provider knows of a refund.
type Refund struct {
	ID     string `json:"id"`
	Key    string `json:"key"`
	Status string `json:"status"`
	Reason string `json:"reason"`
}
