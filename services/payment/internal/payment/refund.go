package payment

import "fmt"

// RefundRequested is the order's wish to get the money back, under the number of its attempt. A repeated wish is
// answered with the outcome where there is one.
func (a *Account) RefundRequested(attempt int) error {
	p := a.Payment
	switch {
	case p == nil:
		return ErrNoPayment
	case attempt < 1:
		return fmt.Errorf("refund attempt %d: %w", attempt, ErrImpossible)
	case p.Status == Declined || p.Status == Failed || p.Status == Refunded:
		a.repeat()
		return nil
	}
	if r := a.refund(attempt); r != nil {
		if r.Status == RefundFailed {
			a.tell(Notice{Effect: TellRefundFailed, Attempt: attempt, Reason: r.Reason})
		}
		return nil
	}
	a.addRefund(attempt)
	if p.Status != Captured { // the charge is open: its outcome starts the refund or makes it needless
		a.refundTask(attempt, taskNone)
	}
	return nil
}

// RefundAgain starts the next attempt at the wish of an operator, after one that failed for good.
func (a *Account) RefundAgain() error {
	if a.Payment == nil {
		return ErrNoPayment
	}
	if a.Payment.Status != Captured || a.openRefund() != nil {
		return nil // returned already, or under way
	}
	a.addRefund(a.lastAttempt() + 1)
	return nil
}

// RefundAnswer is what was learnt of a refund attempt.
type RefundAnswer struct {
	Attempt int
	Status  RefundStatus // RefundedOK, RefundFailed or RefundUnknown
	Ref     string
	Reason  string
}

// RefundAnswered takes in what was learnt of a refund attempt. An earlier attempt that turns out to have succeeded
// counts, and the later ones are withdrawn.
func (a *Account) RefundAnswered(x RefundAnswer) error {
	p, r := a.Payment, a.refund(x.Attempt)
	switch {
	case p == nil || r == nil:
		return ErrNoPayment
	case p.Status != Captured && p.Status != Refunded:
		return fmt.Errorf("refund answered in %s: %w", p.Status, ErrImpossible)
	}
	if r.Status == RefundedOK || (r.Status == x.Status && x.Status != RefundUnknown) {
		return nil
	}
	switch x.Status {
	case RefundUnknown:
		if !r.Status.Open() {
			return nil
		}
		r.Status, r.Sent = RefundUnknown, true
		r.Tries++
		a.refundChanged(r)
		if r.Tries <= len(retries) {
			a.refundTask(r.Attempt, taskIn(retries[r.Tries-1]))
		} else {
			a.refundTask(r.Attempt, taskIn(askAgain(r.Tries-len(retries))))
		}
		return nil
	case RefundedOK:
		r.Status, r.Sent, r.ProviderRef, r.Reason = RefundedOK, true, x.Ref, ""
		a.refundChanged(r)
		a.refundTask(r.Attempt, taskNone)
		for _, o := range a.Refunds {
			if o.Status.Open() {
				o.Status, o.Reason = RefundWithdrawn, "refunded_before"
				a.refundChanged(o)
				a.refundTask(o.Attempt, taskNone)
			}
		}
		if p.Status == Captured {
			p.Refunded, a.PaymentChanged = p.Amount, true
		}
		return a.apply(RefundDone, Notice{Attempt: x.Attempt, Ref: x.Ref})
	case RefundFailed:
		if !r.Status.Open() {
			return nil
		}
		r.Status, r.Sent, r.Reason = RefundFailed, true, x.Reason
		a.refundChanged(r)
		a.refundTask(r.Attempt, taskNone)
		if next := a.openRefund(); next != nil {
			a.refundTask(next.Attempt, taskNow)
			return nil
		}
		switch {
		case p.WrittenOff:
			return a.giveBack()
		case p.Closed:
			return a.apply(RefundRefusedLate, Notice{Attempt: x.Attempt, Reason: x.Reason})
		default:
			return a.apply(RefundRefused, Notice{Attempt: x.Attempt, Reason: x.Reason})
		}
	case RefundRequested, RefundWithdrawn:
	}
	return fmt.Errorf("refund answered %s: %w", x.Status, ErrImpossible)
}

// giveBack returns a capture of a closed order, unless that is under way.
func (a *Account) giveBack() error {
	if a.openRefund() != nil {
		return nil
	}
	if a.Payment.WrittenOff {
		a.Payment.Refunded = a.Payment.Amount
		return a.apply(ReturnedOutside, Notice{Outside: true})
	}
	a.addRefund(a.lastAttempt() + 1)
	return nil
}

func (a *Account) openRefund() *Refund {
	for _, r := range a.Refunds {
		if r.Status.Open() {
			return r
		}
	}
	return nil
}

func (a *Account) lastAttempt() int {
	last := 0
	for _, r := range a.Refunds {
		last = max(last, r.Attempt)
	}
	return last
}

func (a *Account) refund(attempt int) *Refund {
	for _, r := range a.Refunds {
		if r.Attempt == attempt {
			return r
		}
	}
	return nil
}

func (a *Account) addRefund(attempt int) {
	// An attempt beside an open one waits for it: two keys in flight could give the money back twice.
	task := taskNow
	if a.openRefund() != nil {
		task = taskNone
	}
	r := &Refund{OrderID: a.Payment.OrderID, Attempt: attempt, Status: RefundRequested}
	a.Refunds = append(a.Refunds, r)
	if a.RefundNew == nil {
		a.RefundNew = map[int]bool{}
	}
	a.RefundNew[attempt] = true
	a.refundTask(attempt, task)
}

func (a *Account) refundTask(attempt int, t Task) {
	if a.RefundTasks == nil {
		a.RefundTasks = map[int]Task{}
	}
	a.RefundTasks[attempt] = t
}

func (a *Account) refundChanged(r *Refund) {
	if a.RefundChanged == nil {
		a.RefundChanged = map[int]bool{}
	}
	a.RefundChanged[r.Attempt] = true
}
