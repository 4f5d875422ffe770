package payment

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// world is the truth outside: what the provider has really done. The account only hears of it.
type world struct {
	charged, voided bool
	refunds         map[int]bool // attempts that the provider was asked for: true where it paid
}

// TestModel drives an account through any order of events, answers, lost answers, repeated webhooks and takeovers, and
// holds it to what must never happen: a capture kept on a closed order, money returned twice, a booking that did not
// happen, a number left out, a definite word without a definite answer.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := &Account{}
		a.Created(Order{ID: "o", Amount: 100, Currency: "EUR", Customer: "c"})
		w := world{refunds: map[int]bool{}}
		attempts := 0
		must := func(err error) {
			if err != nil {
				t.Fatalf("%v", err)
			}
		}
		answer := func(lost bool) {
			f := ChargeUnknown
			switch {
			case lost:
			case w.charged:
				f = ChargeCaptured
			case w.voided:
				f = ChargeVoided
			}
			must(a.Charged(ChargeAnswer{Fact: f, Attempts: attempts, Asked: rapid.Bool().Draw(t, "asked")}))
		}
		// work does what the queue would do now.
		work := func(lost bool) {
			p := a.Payment
			if p == nil {
				return
			}
			if p.Status.Open() {
				step := p.NextStep()
				p.Sent = true
				switch {
				case step.Ask && (w.charged || w.voided):
				case step.Void:
					w.voided = w.voided || !w.charged
				case step.Charge:
					attempts++
					if !w.voided {
						w.charged = true
					}
				}
				answer(lost)
				return
			}
			r := a.openRefund()
			if r == nil || p.Status != Captured || a.RefundTasks[r.Attempt].Wait < 0 {
				return
			}
			r.Sent = true
			if _, sent := w.refunds[r.Attempt]; !sent {
				w.refunds[r.Attempt] = rapid.Bool().Draw(t, "refund succeeds")
			}
			x := RefundAnswer{Attempt: r.Attempt, Status: RefundFailed, Reason: "no"}
			if w.refunds[r.Attempt] {
				x.Status = RefundedOK
			}
			if lost {
				x.Status = RefundUnknown
			}
			must(a.RefundAnswered(x))
		}
		asked := 0
		t.Repeat(map[string]func(*rapid.T){
			"order asks": func(t *rapid.T) {
				if err := a.RequestedByOrder(Request{Amount: 100, Method: "card"}); err != nil {
					t.Fatal(err)
				}
			},
			"client asks": func(*rapid.T) { _ = a.Requested(Request{Amount: 100, Method: "card"}) },
			"order closes": func(t *rapid.T) {
				must(a.Close(rapid.Bool().Draw(t, "written off")))
			},
			"order wants its money back": func(*rapid.T) {
				// The order asks for the next attempt only once the last one has failed.
				if a.Payment == nil || a.Order.Closed || (asked > 0 && (a.refund(asked) == nil || a.refund(asked).Status != RefundFailed)) {
					return
				}
				asked++
				must(a.RefundRequested(asked))
			},
			"operator redrives": func(*rapid.T) {
				if a.Payment != nil && a.Order.Closed && len(a.Interventions) > 0 {
					must(a.RefundAgain())
				}
			},
			"queue works":           func(*rapid.T) { work(false) },
			"queue loses an answer": func(*rapid.T) { work(true) },
			"webhook": func(*rapid.T) {
				if a.Payment != nil && (w.charged || w.voided) {
					answer(false)
				}
			},
			"": func(t *rapid.T) { check(t, a, &w) },
		})
		// Whatever happened, with a provider that answers the queue comes to an end.
		for range 20 {
			work(false)
		}
		check(t, a, &w)
		p := a.Payment
		if p == nil {
			return
		}
		if p.Status.Open() {
			t.Fatalf("the queue has ended and the payment is %s", p.Status)
		}
		if w.charged != slices.Contains([]Status{Captured, Refunded}, p.Status) {
			t.Fatalf("charged %v, status %s", w.charged, p.Status)
		}
		if a.Order.Closed && p.Status == Captured && len(a.Interventions) == 0 && len(a.Refunds) == 0 {
			t.Fatal("a capture stays on a closed order and nobody was called")
		}
	})
}

func check(t *rapid.T, a *Account, w *world) {
	p := a.Payment
	if p == nil {
		return
	}
	for i, n := range a.Notices {
		if n.Payment.Seq != int64(i+1) {
			t.Fatalf("notice %d has number %d", i+1, n.Payment.Seq)
		}
	}
	returned := 0
	for _, paid := range w.refunds {
		if paid {
			returned++
		}
	}
	balance := 0
	for _, b := range a.Bookings {
		switch b.Kind {
		case BookCapture:
			balance++
		case BookRefund, BookWriteOff:
			balance--
		}
		if b.Kind == BookWriteOff {
			returned++
		}
	}
	want := 0
	if p.Status == Captured {
		want = 1
	}
	switch {
	case returned > 1:
		t.Fatal("the money went back twice")
	case balance != want:
		t.Fatalf("booked %d captures more than returns in status %s", balance, p.Status)
	case p.Status == Captured && !w.charged:
		t.Fatal("captured without a charge")
	case p.Status == Failed && w.charged:
		t.Fatal("called failed although it was charged")
	case (p.Refunded > 0) != (p.Status == Refunded):
		t.Fatalf("refunded %d in status %s", p.Refunded, p.Status)
	}
}
