// Package batch lets concurrent callers share a transaction. What arrives while one batch is being written makes the next
// one, so nobody waits for a timer, and batches grow exactly when the database is the bottleneck.
package batch

import (
	"context"
	"errors"

	"github.com/waybill-dev/waybill/libs/pg"
)

// Max is how many items share a transaction, as for a batch of events. More would hold locks longer without saving CPU.
const Max = 256

// ErrStopped is what callers get once the gatherer has ended.
var ErrStopped = errors.New("shutting down")

// Gatherer collects the items of concurrent callers.
type Gatherer[T any] struct {
	write func(ctx context.Context, items []T) error
	in    chan entry[T]
	done  chan struct{}
}

type entry[T any] struct {
	item   T
	answer chan error
}

// New makes a gatherer that writes with the given function, which puts what it has to say about one item into that item.
func New[T any](write func(ctx context.Context, items []T) error) *Gatherer[T] {
	return &Gatherer[T]{write: write, in: make(chan entry[T], Max), done: make(chan struct{})}
}

// Do hands over an item and waits until it is written. Once handed over it is written even if the caller goes away.
func (g *Gatherer[T]) Do(ctx context.Context, item T) error {
	e := entry[T]{item: item, answer: make(chan error, 1)}
	select {
	case g.in <- e:
	case <-g.done:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-e.answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-g.done:
		select { // the last batch answers before done is closed
		case err := <-e.answer:
			return err
		default:
			return ErrStopped
		}
	}
}

// Run writes until ctx ends, then what was handed over before that.
func (g *Gatherer[T]) Run(ctx context.Context) error {
	defer close(g.done)
	// A transaction belongs to many callers, none of whom may cancel it, nor may the order to stop.
	work := context.WithoutCancel(ctx)
	for {
		var first entry[T]
		select {
		case first = <-g.in:
		case <-ctx.Done():
			select {
			case first = <-g.in:
			default:
				return nil
			}
		}
		entries := []entry[T]{first}
	gather:
		for len(entries) < Max {
			select {
			case e := <-g.in:
				entries = append(entries, e)
			default:
				break gather
			}
		}
		g.flush(work, entries)
	}
}

// flush writes the entries together. Where that fails for a reason that lies in one of them, each is written alone, so that
// only the one at fault hears of it.
func (g *Gatherer[T]) flush(ctx context.Context, entries []entry[T]) {
	items := make([]T, len(entries))
	for i, e := range entries {
		items[i] = e.item
	}
	err := g.write(ctx, items)
	if err != nil && len(entries) > 1 && !pg.Retryable(err) {
		for _, e := range entries {
			e.answer <- g.write(ctx, []T{e.item})
		}
		return
	}
	for _, e := range entries {
		e.answer <- err
	}
}
