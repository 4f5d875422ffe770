package saga

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/failpoint"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/order/internal/order"
	"github.com/waybill-dev/waybill/services/order/internal/postgres"
)

// Kinds of tickets that the saga opens.
const (
	TicketShipping = "shipping_failed"
	TicketRefund   = "refund_failed"
)

// Publisher takes the events that leave with a transaction: the outbox.
type Publisher interface {
	Add(u *pg.Unit, events ...event.Event)
}

// Tickets is where somebody sees what a person must decide: the interventions of the inbox.
type Tickets interface {
	Raise(u *pg.Unit, x inbox.Intervention)
	Resolve(u *pg.Unit, kind, subject, note string)
}

// Saga applies facts to orders.
type Saga struct {
	pool    *pgxpool.Pool
	out     Publisher
	tickets Tickets
	log     *zap.Logger
	metrics *metrics
	now     func() time.Time
	// patience of a reservation and of a whole order.
	askAfter, deadline time.Duration
}

// Options describe a saga.
type Options struct {
	Pool     *pgxpool.Pool
	Outbox   Publisher
	Log      *zap.Logger
	Registry prometheus.Registerer
	Deadline time.Duration // from acceptance to capture; 30 min unless set
	AskAfter time.Duration // how long an unanswered reservation rests before it is asked for again; 2 s unless set
}

// New makes a saga. Give it its tickets before it runs.
func New(o Options) *Saga {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Deadline <= 0 {
		o.Deadline = 30 * time.Minute
	}
	if o.AskAfter <= 0 {
		o.AskAfter = 2 * time.Second
	}
	return &Saga{pool: o.Pool, out: o.Outbox, log: o.Log, metrics: newMetrics(o.Registry), now: func() time.Time { return time.Now().UTC() },
		askAfter: o.AskAfter, deadline: o.Deadline}
}

// SetTickets says where tickets go. The inbox that keeps them has the saga as its handler, so one of the two comes first.
func (s *Saga) SetTickets(t Tickets) { s.tickets = t }

// Fact is something to apply to one order.
type Fact struct {
	order.Fact
	OrderID string
	Line    string // its name in the timeline; empty: a late one leaves no line
	Detail  string
	Note    string // of a person's decision, kept with the ticket
	// Redriven says that whoever brings the fact closes the order's ticket.
	Redriven bool
	// Tenant that the fact is of; an order of another tenant is not touched. 0: whichever the order has.
	Tenant int64
	// Traceparent of the cause; empty: that of the order's own request.
	Traceparent string
	// At is when the event happened that the fact was read from, or that led to it; zero where there is none.
	At time.Time
	// Allow is asked under the lock whether the fact may be applied; nil: it may.
	Allow func(o *order.Order) error
}

// Result is what became of a fact.
type Result struct {
	order.Change
	Found bool // false: the subject is no order
	// Order as it is afterwards; shared by all facts of the batch about it.
	Order *order.Order
	Err   error // of Allow
}

// Apply applies facts in a transaction of their own.
func (s *Saga) Apply(ctx context.Context, facts []Fact) ([]Result, error) {
	var results []Result
	err := pg.Do(ctx, s.pool, func(ctx context.Context, u *pg.Unit) (err error) {
		results, err = s.apply(ctx, u, facts)
		return err
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// errImpossible is a fact that the table does not know in the order's status.
var errImpossible = errors.New("this cannot happen to the order")

// apply applies facts, in their order, within a unit.
func (s *Saga) apply(ctx context.Context, u *pg.Unit, facts []Fact) ([]Result, error) {
	ids := make([]string, len(facts))
	var whole []string
	for i, f := range facts {
		ids[i] = f.OrderID
		switch f.Event {
		case order.PaymentProcessed, order.PersonResend, // what follows carries items and address
			order.Cancel, order.PersonRefund, order.PersonWriteOff: // the answer shows the items
			whole = append(whole, f.OrderID)
		}
	}
	slices.Sort(ids)
	locked := postgres.Lock(u, slices.Compact(ids), whole)
	if err := u.Fetch(ctx); err != nil {
		return nil, fmt.Errorf("lock orders: %w", err)
	}
	step := newStep(s, locked)
	results := make([]Result, len(facts))
	for i := range facts {
		r, err := step.take(&facts[i])
		if err != nil {
			return nil, err
		}
		results[i] = r
	}
	step.write(u)
	return results, nil
}

// step is one unit's worth of changes, in memory.
type step struct {
	s       *Saga
	now     time.Time
	orders  map[string]*order.Order
	before  map[string]postgres.Changed // of the orders that have changed
	lines   []postgres.Line
	events  []event.Event
	tickets []func(u *pg.Unit)
	counts  []count
}

func newStep(s *Saga, orders map[string]*order.Order) *step {
	return &step{s: s, now: s.now(), orders: orders, before: map[string]postgres.Changed{}}
}

// take applies one fact.
func (t *step) take(f *Fact) (Result, error) {
	o := t.orders[f.OrderID]
	if o == nil || (f.Tenant != 0 && f.Tenant != o.Tenant) {
		t.counts = append(t.counts, count{string(f.Event), "no_order"})
		return Result{}, nil
	}
	r := Result{Found: true, Order: o}
	if f.Allow != nil {
		if r.Err = f.Allow(o); r.Err != nil {
			return r, nil
		}
	}
	was := postgres.Changed{Order: o, Was: o.Status, WasSeq: o.EventSeq}
	ticket := ticketOf(o)
	address := o.Address
	r.Change = o.Apply(f.Fact, t.now)
	t.counts = append(t.counts, count{string(r.Event), r.Outcome.String()})
	switch r.Outcome {
	case order.Unknown:
		return r, inbox.Permanent(fmt.Errorf("%s in %s: %w", f.Event, o.Status, errImpossible))
	case order.Stale:
		if f.Line != "" {
			t.line(o, f)
		}
		return r, nil
	}
	if _, changed := t.before[o.ID]; !changed {
		t.before[o.ID] = was
	}
	if o.Address != address {
		c := t.before[o.ID]
		c.Moved = true
		t.before[o.ID] = c
	}
	t.line(o, f)
	t.send(o, f, r.Change)
	t.ticket(o, f, ticket)
	return r, nil
}

func (t *step) line(o *order.Order, f *Fact) {
	name := f.Line
	if name == "" {
		name = string(f.Event)
	}
	t.lines = append(t.lines, postgres.Line{OrderID: o.ID, At: t.now, Event: name, Status: o.Status, Detail: f.Detail})
}

// send makes the events of a change.
func (t *step) send(o *order.Order, f *Fact, c order.Change) {
	cause := event.Event{Tenant: o.Tenant, Traceparent: f.Traceparent, Time: f.At}
	if cause.Traceparent == "" {
		cause.Traceparent = o.Traceparent
	}
	for _, typ := range c.Sends {
		o.EventSeq++
		t.events = append(t.events, cause.Next(typ, o.ID, o.EventSeq, message(typ, o, f, c)))
	}
}

// ticketOf names the ticket that is open for an order.
func ticketOf(o *order.Order) string {
	switch {
	case o.Status != order.Attention:
		return ""
	case o.Reason == order.RefundFailedReason:
		return TicketRefund
	}
	return TicketShipping
}

// ticket opens one where the order has come to need a person, and closes the one that a person has answered.
func (t *step) ticket(o *order.Order, f *Fact, before string) {
	after := ticketOf(o)
	if before == after {
		return
	}
	if before != "" && !f.Redriven {
		note := f.Note
		if note == "" {
			note = string(f.Event)
		}
		t.tickets = append(t.tickets, func(u *pg.Unit) { t.s.tickets.Resolve(u, before, o.ID, note) })
	}
	if after != "" {
		trace := f.Traceparent
		if trace == "" {
			trace = o.Traceparent
		}
		x := inbox.Intervention{
			Kind: after, Subject: o.ID, Tenant: o.Tenant, Trace: trace,
			Reason: ticketText(after, f.Detail),
			Detail: map[string]any{"order_id": o.ID, "reason": o.Reason, "cause": o.Undoing(), "shipment": o.Shipment, "refund": o.Refund, "detail": f.Detail},
		}
		t.tickets = append(t.tickets, func(u *pg.Unit) { t.s.tickets.Raise(u, x) })
	}
}

func ticketText(kind, detail string) string {
	text := "the carrier will not deliver the parcel: resend, refund or write off"
	if kind == TicketRefund {
		text = "the provider refused the refund for good: refund again or write off"
	}
	if detail != "" {
		text += " (" + detail + ")"
	}
	return text
}

// write queues everything that the step has changed.
func (t *step) write(u *pg.Unit) {
	changed := make([]postgres.Changed, 0, len(t.before))
	for _, c := range t.before {
		changed = append(changed, c)
	}
	slices.SortFunc(changed, func(a, b postgres.Changed) int { return strings.Compare(a.ID, b.ID) })
	postgres.Save(u, changed)
	postgres.Append(u, t.lines)
	if len(t.events) > 0 {
		if failpoint.Enabled { // committed, and not yet handed to the relay
			u.AfterCommit(func() { _ = failpoint.Hit("saga.after_cmd_outbox") })
		}
		t.s.out.Add(u, t.events...)
	}
	for _, f := range t.tickets {
		f(u)
	}
	u.AfterCommit(func() { t.s.metrics.count(t) })
}
