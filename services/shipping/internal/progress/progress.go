// Package progress brings what the carrier says into the database, many reports at a time.
//
// Webhooks and the answers to our own calls come in one by one, thousands a second in a busy hour; a transaction each
// would cost ten times what they are worth. Whoever has a report hands it over and waits; one worker takes all that wait
// into one transaction, detached from each caller's patience. Where the shared transaction fails, each report is tried
// alone, so that a bad one spoils nothing for the others.
//
//	webhook --+
//	answer  --+--> queue --> worker --> one transaction --> everybody knows
//	poll    --+
package progress

import (
	"context"
	"errors"
	"time"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/shipping/internal/shipment"
)

const (
	// maxBatch is what one transaction takes: as much as a batch of events.
	maxBatch = 256
	// applyTimeout bounds a transaction with its retries.
	applyTimeout = 5 * time.Second
)

// ErrStopped means that the process is on its way down; the report was not taken.
var ErrStopped = errors.New("no more reports are taken")

// Store is the database.
type Store interface {
	// Apply takes changes in and says which of their shipments there are.
	Apply(ctx context.Context, changes []shipment.Change) (known []bool, err error)
}

// Intake is the queue and its worker.
type Intake struct {
	store Store
	queue chan pending
	done  chan struct{}
}

type pending struct {
	change shipment.Change
	result chan result
}

type result struct {
	known bool
	err   error
}

// New makes an intake. Nothing is taken in before Run.
func New(store Store) *Intake {
	return &Intake{store: store, queue: make(chan pending), done: make(chan struct{})}
}

// Apply hands a change over and waits until it is committed. known says whether there is such a shipment.
func (i *Intake) Apply(ctx context.Context, c shipment.Change) (known bool, err error) {
	p := pending{change: c, result: make(chan result, 1)}
	select {
	case i.queue <- p:
	case <-i.done:
		return false, ErrStopped
	case <-ctx.Done():
		return false, ctx.Err()
	}
	select {
	case r := <-p.result: // the worker answers everything that it has taken
		return r.known, r.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// Run takes in until ctx ends.
func (i *Intake) Run(ctx context.Context) error {
	defer close(i.done)
	for {
		var batch []pending
		select {
		case <-ctx.Done():
			return nil
		case p := <-i.queue:
			batch = append(batch, p)
		}
		for more := true; more && len(batch) < maxBatch; {
			select {
			case p := <-i.queue:
				batch = append(batch, p)
			default:
				more = false
			}
		}
		i.apply(context.WithoutCancel(ctx), batch)
	}
}

func (i *Intake) apply(ctx context.Context, batch []pending) {
	bounded, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	changes := make([]shipment.Change, len(batch))
	for n, p := range batch {
		changes[n] = p.change
	}
	known, err := i.store.Apply(bounded, changes)
	if err != nil && len(batch) > 1 && !pg.Unavailable(err) {
		for n := range batch {
			i.apply(ctx, batch[n:n+1])
		}
		return
	}
	for n, p := range batch {
		r := result{err: err}
		if err == nil {
			r.known = known[n]
		}
		p.result <- r
	}
}
