// Package payment holds the rules of a payment: what may happen to it, what has to be told and booked when it does, and
// what the queue has to do next. It does no I/O; time reaches it as durations only, because the database's clock decides.
//
// One Account holds everything that is known of one order's money. Whatever comes in (an event of the order, a request
// over HTTP, the provider's answer, a webhook, an operator's redrive) is loaded, applied and saved the same way:
//
//	load and lock → Account.Requested, Closed, RefundRequested, Charged, RefundAnswered … → save, publish, book
//
// The charge itself:
//
//	initiated ──call──▶ captured ──refund──▶ refunded
//	    │  │             ▲    │
//	    │  └─declined    │    └─ order closed: refunded by itself, once
//	    ▼                │
//	 unknown ──ask by key┘──▶ declined, or void ──▶ failed
//
// A payment is never called failed without a definite answer of the provider: a call that timed out may have charged.
package payment

import (
	"strconv"
	"time"
)

// Order is what the payment service keeps of an order: what a payment is checked against.
type Order struct {
	ID       string
	Tenant   int64
	Customer string // who ordered; empty where the order was learnt of without it
	Amount   int64  // minor units
	Currency string
	Closed   bool // failed or cancelled: nothing is charged any more, a capture goes back
	// WrittenOff says that a person returned the money by other means: it is booked, not refunded.
	WrittenOff bool
}

// Payment is the one payment of an order.
type Payment struct {
	OrderID     string
	Tenant      int64
	Customer    string
	Amount      int64 // minor units
	Currency    string
	Method      string
	Status      Status
	Seq         int64 // number of the last event about it
	Attempts    int   // charge calls made
	Asks        int   // questions in a row that nobody answered
	Sent        bool  // an intent to call the provider was committed
	ProviderRef string
	Reason      string
	Closed      bool // the order's, copied so that one locked row tells all
	WrittenOff  bool
	Refunded    int64 // minor units given back, by the provider or outside
	Traceparent string
	CreatedAt   time.Time // zero until it is stored
}

// RefundStatus is where one attempt to give the money back stands.
type RefundStatus string

// The statuses of a refund attempt.
const (
	RefundRequested RefundStatus = "requested"
	RefundUnknown   RefundStatus = "unknown"
	RefundedOK      RefundStatus = "refunded"
	RefundFailed    RefundStatus = "failed"    // the provider's definite no
	RefundWithdrawn RefundStatus = "withdrawn" // not needed: an earlier attempt had succeeded
)

// Open says that the attempt still waits for a definite answer.
func (s RefundStatus) Open() bool { return s == RefundRequested || s == RefundUnknown }

// Refund is one numbered attempt. Each has its own key at the provider.
type Refund struct {
	OrderID     string
	Attempt     int
	Status      RefundStatus
	Tries       int // calls and questions without an answer
	Sent        bool
	ProviderRef string
	Reason      string
	CreatedAt   time.Time // zero until it is stored
}

// ChargeKey is the provider's idempotency key of the order's charge. It is derived, so no retry and no restart can change it.
func ChargeKey(orderID string) string { return orderID + ":charge" }

// RefundKey is the provider's idempotency key of a refund attempt.
func RefundKey(orderID string, attempt int) string {
	return orderID + ":refund:" + strconv.Itoa(attempt)
}

// retries are the waits before the second, third and fourth charge call.
var retries = [...]time.Duration{200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond}

// MaxCharges is the first call and its three retries.
const MaxCharges = 1 + len(retries)

// questions are the waits while the provider answers neither asking nor voiding; the last one repeats.
var questions = [...]time.Duration{5 * time.Second, 15 * time.Second, 60 * time.Second}

func askAgain(asks int) time.Duration {
	return questions[min(max(asks-1, 0), len(questions)-1)]
}

// Step is what the queue does next with a payment whose charge is open.
type Step struct {
	Ask    bool // ask by key first; an answer ends the step
	Charge bool // call, where asking found nothing
	Void   bool // or make sure that nothing will be charged
}

// NextStep decides. An intent that left no trace of its call (the process died, or the answer got lost) is asked about before
// anything else; once the order is closed or all tries are used up, the key is voided instead of charged again.
func (p *Payment) NextStep() Step {
	spent := p.Attempts >= MaxCharges
	switch {
	case spent && p.Asks == 0:
		return Step{Void: true}
	case spent, p.Closed:
		return Step{Ask: true, Void: true}
	case p.Sent:
		return Step{Ask: true, Charge: true}
	default:
		return Step{Charge: true}
	}
}
