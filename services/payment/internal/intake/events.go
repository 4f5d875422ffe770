// Package intake takes in what asks for payments and refunds: the events of the orders, and requests over HTTP. Both end
// in the same accounts, so it does not matter who comes first.
package intake

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	"github.com/waybill-dev/waybill/services/payment/internal/batch"
	"github.com/waybill-dev/waybill/services/payment/internal/payment"
	"github.com/waybill-dev/waybill/services/payment/internal/postgres"
)

// Wants are the events that change something here. The other events of the orders only advance their sequence.
var Wants = []event.Type{event.OrderCreated, event.OrderPaymentRequested, event.OrderRefundRequested, event.OrderFailed, event.OrderCancelled}

// Queue takes what a committed unit has left to do.
type Queue interface {
	Room() int
	Take(w postgres.Work)
}

// Intake is the way in.
type Intake struct {
	store    *postgres.Store
	queue    Queue
	requests *batch.Gatherer[*Request]
}

// New makes an intake.
func New(store *postgres.Store, queue Queue) *Intake {
	i := &Intake{store: store, queue: queue}
	i.requests = batch.New(i.pay)
	return i
}

// Run serves HTTP requests until ctx ends. Events come through the inbox.
func (i *Intake) Run(ctx context.Context) error { return i.requests.Run(ctx) }

// Events is the handler of the inbox.
func (i *Intake) Events(ctx context.Context, u *pg.Unit, events []event.Event) error {
	ids := make([]string, len(events))
	for n, e := range events {
		ids[n] = e.Subject
	}
	all, err := i.store.Load(ctx, u, ids, true)
	if err != nil {
		return err
	}
	for _, e := range events {
		if err := apply(all[e.Subject], e); err != nil {
			// What the rules refuse they refuse each time.
			return inbox.Permanent(fmt.Errorf("%s of order %s: %w", e.Type, e.Subject, err))
		}
	}
	work := i.store.Save(u, all, i.queue.Room())
	u.AfterCommit(func() { i.queue.Take(work) })
	return nil
}

var errSubject = errors.New("subject and order_id differ")

// message is what every event of an order tells.
type message interface {
	proto.Message
	GetOrderId() string
	GetAmount() int64
	GetCurrency() string
}

func decode[M message](e event.Event, m M) (M, error) {
	err := e.Decode(m)
	if err == nil && m.GetOrderId() != e.Subject {
		err = errSubject
	}
	return m, err
}

func apply(a *payment.Account, e event.Event) error {
	a.Cause = e.Time
	// learn notes the order where order.created was never read: its record was deleted before this group existed.
	learn := func(m message, customer string) {
		a.Created(payment.Order{ID: e.Subject, Tenant: e.Tenant, Customer: customer, Amount: m.GetAmount(), Currency: m.GetCurrency()})
	}
	switch e.Type {
	case event.OrderCreated:
		m, err := decode(e, &orderv1.OrderCreated{})
		if err != nil {
			return err
		}
		learn(m, m.Customer)
		return nil
	case event.OrderPaymentRequested:
		m, err := decode(e, &orderv1.OrderPaymentRequested{})
		if err != nil {
			return err
		}
		learn(m, "")
		return a.RequestedByOrder(payment.Request{Amount: m.Amount, Method: m.PaymentMethod, Traceparent: e.Traceparent})
	case event.OrderRefundRequested:
		m, err := decode(e, &orderv1.OrderRefundRequested{})
		if err != nil {
			return err
		}
		return a.RefundRequested(int(m.Attempt))
	case event.OrderFailed:
		m, err := decode(e, &orderv1.OrderFailed{})
		if err != nil {
			return err
		}
		learn(m, "")
		return a.Close(false)
	case event.OrderCancelled:
		m, err := decode(e, &orderv1.OrderCancelled{})
		if err != nil {
			return err
		}
		learn(m, "")
		return a.Close(m.WrittenOff)
	}
	return nil
}

// RefundAgain redrives an intervention: the refund of a closed order is tried under the next number.
func (i *Intake) RefundAgain(ctx context.Context, u *pg.Unit, _ uuid.UUID, orderID string) error {
	all, err := i.store.Load(ctx, u, []string{orderID}, false)
	if err != nil {
		return err
	}
	if err := all[orderID].RefundAgain(); err != nil {
		return inbox.Permanent(err)
	}
	work := i.store.Save(u, all, i.queue.Room())
	u.AfterCommit(func() { i.queue.Take(work) })
	return nil
}
