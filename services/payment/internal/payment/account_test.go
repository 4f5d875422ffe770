package payment

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// started is an account whose payment was asked for and sent.
func started(t *testing.T) *Account {
	t.Helper()
	a := &Account{}
	a.Created(Order{ID: "o-1", Tenant: 1, Customer: "customer", Amount: 5990, Currency: "EUR"})
	if err := a.RequestedByOrder(Request{Amount: 5990, Method: "card"}); err != nil {
		t.Fatal(err)
	}
	a.Payment.Sent = true
	return a
}

func told(a *Account) []Effect {
	var all []Effect
	for _, n := range a.Notices {
		all = append(all, n.Effect)
	}
	return all
}

func booked(a *Account) []Effect {
	var all []Effect
	for _, b := range a.Bookings {
		all = append(all, b.Kind)
	}
	return all
}

func expect(t *testing.T, a *Account, status Status, notices, bookings []Effect) {
	t.Helper()
	if a.Payment.Status != status {
		t.Errorf("status %s, want %s", a.Payment.Status, status)
	}
	if d := cmp.Diff(notices, told(a)); d != "" {
		t.Errorf("told (-want +got):\n%s", d)
	}
	if d := cmp.Diff(bookings, booked(a)); d != "" {
		t.Errorf("booked (-want +got):\n%s", d)
	}
	for i, n := range a.Notices {
		if n.Payment.Seq != int64(i+1) {
			t.Errorf("notice %d has number %d", i, n.Payment.Seq)
		}
	}
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestOutcomeIsToldAgain(t *testing.T) {
	a := started(t)
	do(t, a.RequestedByOrder(Request{Amount: 5990, Method: "card"})) // open: nothing to tell yet
	do(t, a.Charged(ChargeAnswer{Fact: ChargeCaptured, Attempts: 1, Ref: "ch_1"}))
	do(t, a.RequestedByOrder(Request{Amount: 5990, Method: "card"}))
	expect(t, a, Captured, []Effect{TellInitiated, TellProcessed, TellProcessed}, []Effect{BookCapture})
	if got := a.Notices[2].Payment.ProviderRef; got != "ch_1" {
		t.Errorf("the repeated outcome refers to %q", got)
	}
}

func TestClosedBeforeRequested(t *testing.T) {
	a := &Account{}
	a.Created(Order{ID: "o-1", Amount: 5990, Currency: "EUR"})
	do(t, a.Close(false))
	if err := a.Requested(Request{Amount: 5990, Method: "card"}); !errors.Is(err, ErrOrderClosed) {
		t.Errorf("a payment over HTTP for a closed order: %v", err)
	}
	do(t, a.RequestedByOrder(Request{Amount: 5990, Method: "card"}))
	expect(t, a, Failed, []Effect{TellFailed}, nil)
	if a.ChargeTask.Wait >= 0 || a.ChargeTask.Now {
		t.Errorf("it is queued: %+v", a.ChargeTask)
	}
}

func TestClosedBeforeSent(t *testing.T) {
	a := started(t)
	a.Payment.Sent = false
	do(t, a.Close(false))
	expect(t, a, Failed, []Effect{TellInitiated, TellFailed}, nil)
}

func TestLateCapture(t *testing.T) {
	a := started(t)
	do(t, a.Charged(ChargeAnswer{Fact: ChargeUnknown, Attempts: 1}), a.Close(false))
	if s := a.Payment.NextStep(); !s.Ask || !s.Void || s.Charge {
		t.Errorf("the charge of a closed order is tried again: %+v", s)
	}
	do(t, a.Charged(ChargeAnswer{Fact: ChargeCaptured, Attempts: 1}))
	do(t, a.Charged(ChargeAnswer{Fact: ChargeCaptured, Attempts: 1})) // the webhook tells it once more
	do(t, a.Close(false))
	if len(a.Refunds) != 1 || !a.RefundTasks[1].Now {
		t.Fatalf("refunds %v, tasks %v", a.Refunds, a.RefundTasks)
	}
	do(t, a.RefundAnswered(RefundAnswer{Attempt: 1, Status: RefundedOK, Ref: "re_1"}))
	do(t, a.RefundAnswered(RefundAnswer{Attempt: 1, Status: RefundedOK, Ref: "re_1"}))
	expect(t, a, Refunded, []Effect{TellInitiated, TellProcessed, TellRefunded}, []Effect{BookCapture, BookRefund})
	if a.Payment.Refunded != 5990 {
		t.Errorf("refunded %d", a.Payment.Refunded)
	}
}

func TestLateCaptureWrittenOff(t *testing.T) {
	a := started(t)
	do(t, a.Charged(ChargeAnswer{Fact: ChargeUnknown, Attempts: 1}), a.Close(true))
	do(t, a.Charged(ChargeAnswer{Fact: ChargeCaptured, Attempts: 1}))
	expect(t, a, Refunded, []Effect{TellInitiated, TellProcessed, TellRefunded}, []Effect{BookCapture, BookWriteOff})
	if len(a.Refunds) != 0 || !a.Notices[2].Outside {
		t.Errorf("refunds %v, outside %v", a.Refunds, a.Notices[2].Outside)
	}
}

func TestRefundThatFails(t *testing.T) {
	captured := func(t *testing.T) *Account {
		a := started(t)
		do(t, a.Charged(ChargeAnswer{Fact: ChargeCaptured, Attempts: 1}), a.RefundRequested(1))
		return a
	}
	refused := RefundAnswer{Attempt: 1, Status: RefundFailed, Reason: "card_closed"}

	t.Run("the order is told and asks again", func(t *testing.T) {
		a := captured(t)
		do(t, a.RefundAnswered(refused), a.RefundRequested(2), a.RefundAnswered(RefundAnswer{Attempt: 2, Status: RefundedOK}))
		expect(t, a, Refunded, []Effect{TellInitiated, TellProcessed, TellRefundFailed, TellRefunded}, []Effect{BookCapture, BookRefund})
	})
	t.Run("the first attempt turns out to have succeeded", func(t *testing.T) {
		a := captured(t)
		do(t, a.RefundAnswered(refused), a.RefundRequested(2), a.RefundAnswered(RefundAnswer{Attempt: 1, Status: RefundedOK}))
		expect(t, a, Refunded, []Effect{TellInitiated, TellProcessed, TellRefundFailed, TellRefunded}, []Effect{BookCapture, BookRefund})
		if a.refund(2).Status != RefundWithdrawn || a.RefundTasks[2].Wait >= 0 {
			t.Errorf("the second is %s, task %v", a.refund(2).Status, a.RefundTasks[2])
		}
	})
	t.Run("written off: booked, not refunded again", func(t *testing.T) {
		a := captured(t)
		do(t, a.RefundAnswered(refused), a.Close(true))
		expect(t, a, Refunded, []Effect{TellInitiated, TellProcessed, TellRefundFailed, TellRefunded}, []Effect{BookCapture, BookWriteOff})
	})
	t.Run("written off while the refund is under way", func(t *testing.T) {
		a := captured(t)
		do(t, a.Close(true))
		expect(t, a, Captured, []Effect{TellInitiated, TellProcessed}, []Effect{BookCapture})
		do(t, a.RefundAnswered(refused))
		expect(t, a, Refunded, []Effect{TellInitiated, TellProcessed, TellRefunded}, []Effect{BookCapture, BookWriteOff})
	})
	t.Run("the order is closed: a person", func(t *testing.T) {
		a := captured(t)
		do(t, a.Close(false), a.RefundAnswered(refused), a.RefundAnswered(refused))
		expect(t, a, Captured, []Effect{TellInitiated, TellProcessed}, []Effect{BookCapture})
		if d := cmp.Diff([]string{"card_closed"}, a.Interventions); d != "" {
			t.Error(d)
		}
		do(t, a.RefundAgain(), a.RefundAgain())
		if len(a.Refunds) != 2 || !a.RefundTasks[2].Now {
			t.Errorf("a redrive made %d attempts, task %v", len(a.Refunds)-1, a.RefundTasks[2])
		}
	})
	t.Run("asked for the same attempt again: its outcome again", func(t *testing.T) {
		a := captured(t)
		do(t, a.RefundRequested(1), a.RefundAnswered(refused), a.RefundRequested(1))
		expect(t, a, Captured, []Effect{TellInitiated, TellProcessed, TellRefundFailed, TellRefundFailed}, []Effect{BookCapture})
		if len(a.Refunds) != 1 {
			t.Errorf("%d attempts", len(a.Refunds))
		}
	})
}

func TestRefundOfWhatIsNotCharged(t *testing.T) {
	a := started(t)
	do(t, a.RefundRequested(1))
	if a.RefundTasks[1].Now || a.RefundTasks[1].Wait >= 0 {
		t.Errorf("it is queued before the capture: %+v", a.RefundTasks[1])
	}
	do(t, a.Charged(ChargeAnswer{Fact: ChargeDeclined, Attempts: 1, Reason: "insufficient_funds"}))
	expect(t, a, Declined, []Effect{TellInitiated, TellFailed}, nil)
	if a.refund(1).Status != RefundWithdrawn {
		t.Errorf("the refund is %s", a.refund(1).Status)
	}
	do(t, a.RefundRequested(2)) // declined: that is the answer
	expect(t, a, Declined, []Effect{TellInitiated, TellFailed, TellFailed}, nil)
}

// TestSteps walks through the retries: four charge calls with growing waits, each after the first preceded by a question,
// then a void; questions that nobody answers after 5, 15, 60 and 60 s.
func TestSteps(t *testing.T) {
	a := started(t)
	a.Payment.Sent = false
	if d := cmp.Diff(Step{Charge: true}, a.Payment.NextStep()); d != "" {
		t.Error(d)
	}
	ms := time.Millisecond
	for i, wait := range []time.Duration{200 * ms, 400 * ms, 800 * ms, 0} {
		do(t, a.Charged(ChargeAnswer{Fact: ChargeUnknown, Attempts: i + 1}))
		if a.ChargeTask.Wait != wait || a.Payment.Status != Unknown {
			t.Errorf("after call %d: wait %v, status %s", i+1, a.ChargeTask.Wait, a.Payment.Status)
		}
		want := Step{Ask: true, Charge: true}
		if i+1 == MaxCharges {
			want = Step{Void: true}
		}
		if d := cmp.Diff(want, a.Payment.NextStep()); d != "" {
			t.Errorf("after call %d: %s", i+1, d)
		}
	}
	for i, wait := range []time.Duration{5 * time.Second, 15 * time.Second, time.Minute, time.Minute} {
		do(t, a.Charged(ChargeAnswer{Fact: ChargeUnknown, Asked: true, Attempts: 4}))
		if a.ChargeTask.Wait != wait {
			t.Errorf("after %d unanswered questions: wait %v", i+1, a.ChargeTask.Wait)
		}
		if d := cmp.Diff(Step{Ask: true, Void: true}, a.Payment.NextStep()); d != "" {
			t.Error(d)
		}
	}
	do(t, a.Charged(ChargeAnswer{Fact: ChargeVoided, Attempts: 4}))
	expect(t, a, Failed, []Effect{TellInitiated, TellFailed}, nil)
}
