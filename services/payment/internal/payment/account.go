package payment

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Errors that tell a caller why a payment cannot be made.
var (
	ErrNoOrder        = errors.New("no such order")
	ErrOrderClosed    = errors.New("the order is closed")
	ErrAmountMismatch = errors.New("the amount differs from the order's")
	ErrNoPayment      = errors.New("the order has no payment")
	ErrImpossible     = errors.New("impossible in this state")
)

// Notice is an event to publish.
type Notice struct {
	Effect  Effect  // one of the Tell effects, or TellInitiated
	Payment Payment // as it was when this happened; Seq is the notice's number
	Attempt int     // of a refund
	Outside bool
	Reason  string
	Ref     string
	Cause   time.Time // when the event happened that led to this; zero: none did
}

// TellInitiated is the notice of a new payment. It is no effect of the table: it is how a payment begins.
const TellInitiated Effect = "payment.initiated"

// Booking is one movement of money, booked as two ledger entries.
type Booking struct {
	Kind    Effect // BookCapture, BookRefund or BookWriteOff
	Attempt int    // of a refund, else 0
	Ref     string
}

// Task tells the store when the queue is to work on a row.
type Task struct {
	Changed bool
	// Wait from now on; negative: never again.
	Wait time.Duration
	// Now says that it is to be worked on at once: the process that commits it may hand it over to itself.
	Now bool
}

var (
	taskNone = Task{Changed: true, Wait: -1}
	taskNow  = Task{Changed: true, Now: true}
)

func taskIn(d time.Duration) Task { return Task{Changed: true, Wait: d} }

// Account is everything that is known of one order's money, loaded under its locks. Its methods change it in memory and
// collect what has to be written beside it.
type Account struct {
	Order   *Order   // nil: not heard of
	Payment *Payment // nil: none
	Refunds []*Refund

	OrderNew, OrderChanged     bool
	PaymentNew, PaymentChanged bool
	RefundNew, RefundChanged   map[int]bool

	ChargeTask  Task
	RefundTasks map[int]Task

	// Cause is when the event happened that is being applied; zero while the provider's answers are.
	Cause time.Time

	Notices       []Notice
	Bookings      []Booking
	Interventions []string // reasons
}

// Created notes a new order. A second time it changes nothing.
func (a *Account) Created(o Order) {
	if a.Order == nil {
		a.Order, a.OrderNew = &o, true
	}
}

// Request is what a payment is asked for with.
type Request struct {
	Amount      int64
	Method      string
	Traceparent string
}

// Requested makes the payment, from an event or over HTTP. Where it exists already nothing changes: that is how the second
// caller gets the first one's outcome.
func (a *Account) Requested(r Request) error {
	switch {
	case a.Order == nil:
		return ErrNoOrder
	case r.Amount != a.Order.Amount:
		return ErrAmountMismatch
	case a.Payment != nil:
		return nil
	case a.Order.Closed:
		return ErrOrderClosed
	}
	a.open(r, Initiated)
	a.tell(Notice{Effect: TellInitiated})
	a.ChargeTask = taskNow
	return nil
}

func (a *Account) open(r Request, s Status) {
	o := a.Order
	a.PaymentNew = true
	a.Payment = &Payment{
		OrderID: o.ID, Tenant: o.Tenant, Customer: o.Customer, Amount: o.Amount, Currency: o.Currency,
		Method: r.Method, Status: s, Closed: o.Closed, WrittenOff: o.WrittenOff, Traceparent: r.Traceparent,
	}
}

// RequestedByOrder is Requested for the order's own event. It always gets an answer: where the payment exists, its outcome
// is told again under the next sequence; where the order is closed already, nothing is charged and that is told.
func (a *Account) RequestedByOrder(r Request) error {
	if a.Payment != nil {
		a.repeat()
		return nil
	}
	err := a.Requested(r)
	if errors.Is(err, ErrOrderClosed) {
		a.open(r, Failed)
		a.Payment.Reason = "order_closed"
		a.ChargeTask = taskNone
		a.tell(Notice{Effect: TellFailed})
		return nil
	}
	return err
}

// repeat tells a known outcome again.
func (a *Account) repeat() {
	switch p := a.Payment; p.Status {
	case Captured:
		a.tell(Notice{Effect: TellProcessed})
	case Declined, Failed:
		a.tell(Notice{Effect: TellFailed})
	case Refunded:
		n := Notice{Effect: TellRefunded, Outside: true}
		for _, r := range a.Refunds {
			if r.Status == RefundedOK {
				n = Notice{Effect: TellRefunded, Attempt: r.Attempt, Ref: r.ProviderRef}
			}
		}
		a.tell(n)
	case Initiated, Unknown: // the outcome will be told when there is one
	}
}

// Close notes that the order failed or was cancelled. What was not sent yet is never charged; a capture, landed or still
// to land, is refunded once, or booked as returned outside where a person did that already.
func (a *Account) Close(writtenOff bool) error {
	if a.Order == nil {
		return ErrNoOrder
	}
	o := a.Order
	if !o.Closed || (writtenOff && !o.WrittenOff) {
		o.Closed, o.WrittenOff, a.OrderChanged = true, o.WrittenOff || writtenOff, true
	}
	p := a.Payment
	if p == nil {
		return nil
	}
	p.Closed, p.WrittenOff, a.PaymentChanged = o.Closed, o.WrittenOff, true
	switch {
	case p.Status == Initiated && !p.Sent:
		p.Reason = "order_closed"
		return a.apply(ClosedUnsent, Notice{})
	case p.Status == Captured:
		return a.giveBack()
	}
	return nil
}

// ChargeAnswer is what a call, a question, a void or a webhook told about the charge.
type ChargeAnswer struct {
	Fact     Fact // ChargeCaptured, ChargeDeclined, ChargeVoided or ChargeUnknown
	Attempts int  // charge calls made until now, as its teller counts; 0: it does not know
	Asked    bool // ChargeUnknown: what stayed unanswered was a question or a void, not a charge call
	Ref      string
	Reason   string
}

// Charged takes in what was learnt of the charge.
func (a *Account) Charged(c ChargeAnswer) error {
	p := a.Payment
	if p == nil {
		return ErrNoPayment
	}
	before := p.Status
	_, _, outcome := Next(before, c.Fact)
	if outcome == Impossible {
		return fmt.Errorf("%s in %s: %w", c.Fact, before, ErrImpossible)
	}
	if c.Attempts > p.Attempts {
		p.Attempts, a.PaymentChanged = c.Attempts, true
	}
	if outcome == Stale {
		return nil
	}
	a.PaymentChanged = true
	p.Sent = true
	if c.Fact == ChargeUnknown {
		if c.Asked {
			p.Asks++
			a.ChargeTask = taskIn(askAgain(p.Asks))
		} else {
			p.Asks = 0
			if p.Attempts >= MaxCharges {
				a.ChargeTask = taskIn(0) // void at once
			} else {
				a.ChargeTask = taskIn(retries[max(p.Attempts, 1)-1])
			}
		}
		return a.apply(c.Fact, Notice{})
	}
	p.Asks = 0
	if c.Fact != ChargeVoided { // an answer means that at least one call arrived
		p.Attempts = max(p.Attempts, 1)
	}
	p.ProviderRef, p.Reason = c.Ref, c.Reason
	if c.Fact == ChargeVoided && p.Reason == "" {
		p.Reason = "provider_unavailable"
		if p.Closed {
			p.Reason = "order_closed"
		}
	}
	a.ChargeTask = taskNone
	if err := a.apply(c.Fact, Notice{Ref: c.Ref}); err != nil {
		return err
	}
	if p.Status != Captured {
		for _, r := range a.Refunds { // nothing was charged, nothing is given back
			if r.Status.Open() {
				r.Status, r.Reason = RefundWithdrawn, "not_charged"
				a.refundChanged(r)
				a.refundTask(r.Attempt, taskNone)
			}
		}
		return nil
	}
	if r := a.openRefund(); r != nil {
		a.refundTask(r.Attempt, taskNow)
		return nil
	}
	if p.Closed {
		return a.giveBack()
	}
	return nil
}

// apply moves the payment by the table and collects the effects; n carries what the notices and bookings say.
func (a *Account) apply(f Fact, n Notice) error {
	p := a.Payment
	to, effects, outcome := Next(p.Status, f)
	if outcome == Impossible {
		return fmt.Errorf("%s in %s: %w", f, p.Status, ErrImpossible)
	}
	if outcome == Stale {
		return nil
	}
	p.Status, a.PaymentChanged = to, true
	if !to.Open() {
		a.ChargeTask = taskNone
	}
	for _, e := range effects {
		switch e {
		case TellProcessed, TellFailed, TellRefunded, TellRefundFailed:
			n.Effect = e
			a.tell(n)
		case BookCapture, BookRefund, BookWriteOff:
			a.Bookings = append(a.Bookings, Booking{Kind: e, Attempt: n.Attempt, Ref: n.Ref})
		case CallPerson:
			a.Interventions = append(a.Interventions, n.Reason)
		}
	}
	return nil
}

// tell collects a notice under the next number of this payment.
func (a *Account) tell(n Notice) {
	a.Payment.Seq++
	a.PaymentChanged = true
	n.Payment = *a.Payment
	n.Cause = a.since(n)
	a.Notices = append(a.Notices, n)
}

// Job is a row of the queue that somebody works on: the payment, and the refund attempt where it is about one.
type Job struct {
	Payment Payment
	Refund  *Refund
}

// since is when what led to n happened: the event that is being applied, or what the provider was asked for.
func (a *Account) since(n Notice) time.Time {
	if !a.Cause.IsZero() || n.Effect == TellInitiated {
		return a.Cause
	}
	if i := slices.IndexFunc(a.Refunds, func(r *Refund) bool { return r.Attempt == n.Attempt }); i >= 0 {
		return a.Refunds[i].CreatedAt
	}
	return a.Payment.CreatedAt
}
