package simulation

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/scripts/simulation/internal/payment"
)

// payments is the payment service.
type payments struct {
	*node
	orders   map[string]payment.Order
	rows     map[string]payment.Payment
	refunds  map[string][]payment.Refund
	due      map[job]time.Duration
	books    map[string]int64 // booked per order: captured less given back
	outside  map[string]bool  // given back by a person
	tickets  map[string]bool  // refunds of closed orders that failed for good
	provider *provider
}

// job is a row of the queue: a charge, or a refund attempt above 0.
type job struct {
	id      string
	attempt int
}

const lease = 12 * time.Second

func (w *World) newPayments() *payments {
	p := &payments{orders: map[string]payment.Order{}, rows: map[string]payment.Payment{}, refunds: map[string][]payment.Refund{},
		due: map[job]time.Duration{}, books: map[string]int64{}, outside: map[string]bool{}, tickets: map[string]bool{}}
	p.provider = &provider{w: w, charges: map[string]*charge{}, refunds: map[string]string{}}
	p.node = w.node("payment", []string{event.Orders}, p.follow)
	p.node.begin = func() { p.every(20*time.Millisecond, 200*time.Millisecond, p.work) }
	return p
}

func (p *payments) load(id string) *payment.Account {
	a := &payment.Account{}
	if o, ok := p.orders[id]; ok {
		a.Order = &o
	}
	if x, ok := p.rows[id]; ok {
		a.Payment = &x
	}
	for _, r := range p.refunds[id] {
		a.Refunds = append(a.Refunds, &r)
	}
	return a
}

// save writes an account and makes its events.
func (p *payments) save(id string, a *payment.Account) (out []event.Event) {
	if a.Order != nil {
		p.orders[id] = *a.Order
	}
	if a.Payment != nil {
		p.rows[id] = *a.Payment
	}
	p.refunds[id] = nil
	for _, r := range a.Refunds {
		p.refunds[id] = append(p.refunds[id], *r)
	}
	p.task(job{id, 0}, a.ChargeTask)
	for _, attempt := range slices.Sorted(maps.Keys(a.RefundTasks)) {
		p.task(job{id, attempt}, a.RefundTasks[attempt])
	}
	for _, b := range a.Bookings {
		if b.Kind == payment.BookCapture {
			p.books[id] += a.Payment.Amount
		} else {
			p.books[id] -= a.Payment.Amount
			p.outside[id] = p.outside[id] || b.Kind == payment.BookWriteOff
		}
	}
	for range a.Interventions {
		p.tickets[id] = true
	}
	for _, n := range a.Notices {
		x := note{amount: n.Payment.Amount, currency: n.Payment.Currency, attempt: n.Attempt, reason: n.Reason, status: string(n.Payment.Status)}
		out = append(out, p.w.message(event.Type(n.Effect), id, n.Payment.Seq, x))
	}
	return out
}

func (p *payments) task(j job, t payment.Task) {
	switch {
	case !t.Changed:
	case t.Now:
		p.due[j] = p.w.now
	case t.Wait < 0:
		delete(p.due, j)
	default:
		p.due[j] = p.w.now + t.Wait
	}
}

// follow is the handler of the group.
func (p *payments) follow(batch []event.Event) (out []event.Event) {
	for _, e := range batch {
		n := p.w.read(e)
		a := p.load(e.Subject)
		var err error
		learn := func() {
			a.Created(payment.Order{ID: e.Subject, Tenant: 1, Customer: "c", Amount: n.amount, Currency: n.currency})
		}
		switch e.Type {
		case event.OrderCreated:
			learn()
		case event.OrderPaymentRequested:
			learn()
			err = a.RequestedByOrder(payment.Request{Amount: n.amount, Method: n.method})
		case event.OrderRefundRequested:
			err = a.RefundRequested(n.attempt)
		case event.OrderFailed:
			learn()
			err = p.closing(a, false)
		case event.OrderCancelled:
			learn()
			err = p.closing(a, n.written)
		default:
			continue
		}
		if err != nil {
			p.w.violate("payment %s: %s: %v", e.Subject, e.Type, err)
		}
		out = append(out, p.save(e.Subject, a)...)
	}
	return out
}

func (p *payments) closing(a *payment.Account, written bool) error {
	if p.w.flaws.LateCaptureKept && (a.Payment == nil || a.Payment.Status.Open()) {
		return nil
	}
	return a.Close(written)
}

// pay is POST /payments, by the customer.
func (p *payments) pay(id string, amount int64) (answered bool) {
	return p.tx(func() []event.Event {
		a := p.load(id)
		_ = a.Requested(payment.Request{Amount: amount, Method: "card"}) // not yet known, or closed: the customer is told
		return p.save(id, a)
	})
}

// work takes what is due: the intent is committed before anybody is called.
func (p *payments) work() {
	var jobs []job
	for j, at := range p.due {
		if at <= p.w.now {
			jobs = append(jobs, j)
		}
	}
	slices.SortFunc(jobs, func(x, y job) int {
		if x.id != y.id {
			return slices.Index(p.w.ids, x.id) - slices.Index(p.w.ids, y.id)
		}
		return x.attempt - y.attempt
	})
	for _, j := range jobs {
		var row payment.Payment
		var refund *payment.Refund
		if !p.tx(func() []event.Event {
			row = p.rows[j.id]
			p.due[j] = p.w.now + lease
			if j.attempt == 0 {
				sent := row
				sent.Sent = true
				p.rows[j.id] = sent
				return nil
			}
			for n, r := range p.refunds[j.id] {
				if r.Attempt == j.attempt {
					before := r
					refund = &before
					p.refunds[j.id][n].Sent = true
				}
			}
			return nil
		}) {
			return
		}
		if j.attempt == 0 {
			p.charge(row)
		} else if refund != nil {
			p.refund(row, *refund)
		}
	}
}

// try makes a call of the provider. What is heard is nil where no answer came in time.
func (p *payments) try(do func() any, heard func(answer any)) {
	answered := false
	life := p.life
	p.provider.call(do, func(answer any) {
		if !answered && p.life == life {
			answered = true
			if p.step() {
				heard(answer)
			}
		}
	})
	p.after(5*time.Second, func() {
		if !answered {
			answered = true
			heard(nil)
		}
	})
}

// learn writes what was learnt, until it is written or the lease ends.
func (p *payments) learn(id string, apply func(a *payment.Account) error) {
	until := p.w.now + lease - 5*time.Second
	var again func()
	again = func() {
		told := p.tx(func() []event.Event {
			a := p.load(id)
			if err := apply(a); err != nil && !errors.Is(err, payment.ErrNoPayment) {
				p.w.violate("payment %s: %v", id, err)
			}
			return p.save(id, a)
		})
		if !told && p.up && p.w.now < until {
			p.after(100*time.Millisecond, again)
		}
	}
	again()
}

// charge is the next step of an open charge, as the processor takes it.
func (p *payments) charge(x payment.Payment) {
	key := payment.ChargeKey(x.OrderID)
	if p.w.flaws.KeyPerTry {
		key = fmt.Sprintf("%s:%d", key, x.Attempts)
	}
	answer := func(a payment.ChargeAnswer) {
		p.learn(x.OrderID, func(acc *payment.Account) error { return acc.Charged(a) })
	}
	unknown := func(asked bool, attempts int) {
		a := payment.ChargeAnswer{Fact: payment.ChargeUnknown, Asked: asked, Attempts: attempts}
		if p.w.flaws.TimeoutIsNo && !asked {
			a.Fact = payment.ChargeVoided
		}
		answer(a)
	}
	definite := func(c charge, attempts int) {
		answer(payment.ChargeAnswer{Fact: payment.Fact("charge." + c.status), Attempts: attempts, Ref: key})
	}
	step := x.NextStep()
	call := func() {
		p.try(func() any { return p.provider.charge(key, x.OrderID, x.Amount) }, func(got any) {
			if c, ok := got.(charge); ok {
				definite(c, x.Attempts+1)
			} else {
				unknown(false, x.Attempts+1)
			}
		})
	}
	void := func() {
		p.try(func() any { return p.provider.void(key, x.OrderID) }, func(got any) {
			if c, ok := got.(charge); ok {
				definite(c, x.Attempts)
			} else {
				unknown(true, x.Attempts)
			}
		})
	}
	next := func() {
		if step.Void {
			void()
		} else {
			call()
		}
	}
	if !step.Ask {
		next()
		return
	}
	p.try(func() any { return p.provider.find(key) }, func(got any) {
		switch c := got.(type) {
		case charge:
			definite(c, x.Attempts)
		case nil:
			if step.Void {
				void()
			} else {
				unknown(true, x.Attempts)
			}
		default: // never seen
			next()
		}
	})
}

// refund is the next step of a refund attempt.
func (p *payments) refund(x payment.Payment, r payment.Refund) {
	answer := func(attempt int, s payment.RefundStatus) {
		p.learn(x.OrderID, func(a *payment.Account) error {
			return a.RefundAnswered(payment.RefundAnswer{Attempt: attempt, Status: s, Ref: "re"})
		})
	}
	send := func() {
		p.try(func() any { return p.provider.refund(x.OrderID, r.Attempt, x.Amount) }, func(got any) {
			if s, ok := got.(payment.RefundStatus); ok {
				answer(r.Attempt, s)
			} else {
				answer(r.Attempt, payment.RefundUnknown)
			}
		})
	}
	find := func(attempt int, then func(s payment.RefundStatus, found bool)) {
		p.try(func() any { return p.provider.findRefund(x.OrderID, attempt) }, func(got any) {
			switch s := got.(type) {
			case payment.RefundStatus:
				then(s, true)
			case nil:
				answer(r.Attempt, payment.RefundUnknown)
			default:
				then("", false)
			}
		})
	}
	before := func() {
		if r.Attempt == 1 {
			send()
			return
		}
		find(r.Attempt-1, func(s payment.RefundStatus, found bool) {
			if found && s == payment.RefundedOK {
				answer(r.Attempt-1, s)
				return
			}
			send()
		})
	}
	if !r.Sent {
		before()
		return
	}
	find(r.Attempt, func(s payment.RefundStatus, found bool) {
		if found {
			answer(r.Attempt, s)
			return
		}
		before()
	})
}

// again is the operator's redrive of a refund that failed for good.
func (p *payments) again(id string) {
	p.tx(func() []event.Event {
		a := p.load(id)
		if err := a.RefundAgain(); err != nil {
			p.w.violate("payment %s: %v", id, err)
		}
		delete(p.tickets, id)
		return p.save(id, a)
	})
}

// provider is the payment provider and its books.
type provider struct {
	w       *World
	charges map[string]*charge
	refunds map[string]string
	ledger  []entry
}

type charge struct {
	id     string
	amount int64
	status string // captured, declined or voided
}

// entry is a line of what provider and carrier have done.
type entry struct {
	id, kind string
	amount   int64
}

// unseen is the answer about a key that never came.
type unseen struct{}

// call brings a request to the provider. It may be lost, answered into the void, or arrive long after its caller has gone on.
func (x *provider) call(do func() any, heard func(any)) {
	w := x.w
	switch {
	case w.chance(w.bad.callLost):
		return
	case w.chance(w.bad.callDeaf):
		wait := w.delay()
		if w.chance(w.bad.late) {
			wait += w.between(5*time.Second, 9*time.Second)
		}
		w.after(wait, func() { do() })
		return
	}
	w.after(w.delay(), func() {
		answer := do()
		w.after(w.delay(), func() { heard(answer) })
	})
}

func (x *provider) charge(key, id string, amount int64) any {
	if c := x.charges[key]; c != nil {
		return *c
	}
	p := x.w.plans[id]
	if p.down > 0 { // 503 without an effect
		p.down--
		return nil
	}
	c := &charge{id, amount, "captured"}
	if p.declined {
		c.status = "declined"
	}
	x.charges[key] = c
	if c.status == "captured" {
		x.ledger = append(x.ledger, entry{id, "capture", amount})
	}
	x.tell(id, func() {
		x.w.payments.learn(id, func(a *payment.Account) error {
			return a.Charged(payment.ChargeAnswer{Fact: payment.Fact("charge." + c.status), Ref: key})
		})
	})
	return *c
}

func (x *provider) find(key string) any {
	if c := x.charges[key]; c != nil {
		return *c
	}
	return unseen{}
}

func (x *provider) void(key, id string) any {
	if c := x.charges[key]; c != nil {
		return *c
	}
	x.charges[key] = &charge{id: id, status: "voided"}
	return *x.charges[key]
}

func (x *provider) refund(id string, attempt int, amount int64) any {
	key := payment.RefundKey(id, attempt)
	if s, ok := x.refunds[key]; ok {
		return payment.RefundStatus(s)
	}
	s := payment.RefundedOK
	if attempt <= x.w.plans[id].refundsFail {
		s = payment.RefundFailed
	} else {
		x.ledger = append(x.ledger, entry{id, "refund", amount})
	}
	x.refunds[key] = string(s)
	x.tell(id, func() {
		x.w.payments.learn(id, func(a *payment.Account) error {
			return a.RefundAnswered(payment.RefundAnswer{Attempt: attempt, Status: s, Ref: "re"})
		})
	})
	return s
}

func (x *provider) findRefund(id string, attempt int) any {
	if s, ok := x.refunds[payment.RefundKey(id, attempt)]; ok {
		return payment.RefundStatus(s)
	}
	return unseen{}
}

// tell sends a webhook, or two, or none.
func (x *provider) tell(id string, learn func()) {
	w := x.w
	for range 2 {
		if !w.chance(w.bad.webhookLost) {
			w.after(w.between(0, 2*time.Second), func() {
				if w.payments.step() {
					learn()
				}
			})
		}
		if !w.chance(w.bad.double) {
			return
		}
	}
}
