package inbox

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/failpoint"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/stream"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations are the tables of the inbox, of interventions and of idempotency keys.
var Migrations = func() pg.Migrations {
	root, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err)
	}
	return pg.Migrations{Name: "inbox", FS: root}
}()

const (
	// patience is how long an early event waits for its predecessor. Relay and consumer recover within 12 s; a minute is
	// past any take-over.
	patience = time.Minute
	// parkLimit is how many keys may be parked within a minute at one event type.
	parkLimit = 20
	// chunk is how many queued events one transaction redrives: as many as a batch from Kafka.
	chunk = 256
)

// Handler applies a batch of events, none of which was applied before, in order per subject. It queues its changes on u and
// must be repeatable: it runs again where the unit lost against another one, and on parts of the batch where one of its
// events is poison. It keeps to sets: one statement for the batch, not one per event.
type Handler func(ctx context.Context, u *pg.Unit, batch []event.Event) error

// Options describe an inbox.
type Options struct {
	Group string // consumer group, such as "order-service"
	Pool  *pgxpool.Pool
	Wants []event.Type // the others advance the sequence, are counted and not handed over
	// Handler gets what is wanted and was not applied before.
	Handler Handler
	// Unordered says that the handler has its effect once by the event's id, in whichever order events come. No sequences are
	// kept then, so nothing is dropped as a duplicate, nothing waits for a predecessor, and poison becomes a dead letter
	// instead of parking its key (ADR 0010).
	Unordered bool
	// Redrive tries again what Raise recorded, by kind. It queues its changes on u. Kinds without one can only be
	// discarded, or resolved by the service.
	Redrive map[string]func(ctx context.Context, u *pg.Unit, id uuid.UUID, subject string) error
	// Oldest asks the broker for the oldest offset that a partition still has. It is called when the group first meets the
	// partition; above 0, keys may begin above sequence 1. Without it the offset of the first record counts, which is the
	// same for a new group and says too little only where the group's offsets outlived this database.
	Oldest   func(ctx context.Context, topic string, partition int32) (int64, error)
	Log      *zap.Logger
	Registry prometheus.Registerer
}

// Inbox applies the events of one consumer group once.
type Inbox struct {
	o       Options
	wants   map[event.Type]bool
	metrics *metrics
	nudge   chan struct{} // Run has something to settle

	mu      sync.Mutex
	based   map[partition]bool // partitions met: their keys may begin above sequence 1
	stopped error
}

type partition struct {
	topic string
	id    int32
}

// New makes an inbox. Its pool must have Migrations applied.
func New(o Options) *Inbox {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	i := &Inbox{
		o: o, wants: map[event.Type]bool{}, metrics: newMetrics(o.Registry, o.Group),
		nudge: make(chan struct{}, 1), based: map[partition]bool{},
	}
	for _, t := range o.Wants {
		i.wants[t] = true
	}
	return i
}

// errPermanent marks what fails each time.
type errPermanent struct{ error }

func (e errPermanent) Unwrap() error { return e.error }

// Permanent marks an error of a handler as one that no retry heals. The event that caused it parks its key.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return errPermanent{err}
}

// permanent tells poison from trouble. What is not known to be permanent is retried: that loses nothing.
func permanent(err error) bool {
	if err == nil || pg.Retryable(err) {
		return false
	}
	var marked errPermanent
	return errors.As(err, &marked) || errors.Is(err, event.ErrMalformed) || pg.Permanent(err)
}

// Healthy returns an error once the inbox has stopped itself. It is meant for readiness.
func (i *Inbox) Healthy() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.stopped
}

// stop makes Consume refuse from now on and returns why.
func (i *Inbox) stop(t event.Type) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stopped == nil {
		i.stopped = fmt.Errorf("more than %d keys parked within a minute at %s: consumer stopped", parkLimit, t)
		i.o.Log.Error("consumer stopped", zap.String("type", string(t)), zap.Error(i.stopped))
	}
	return i.stopped
}

// wake has Run look at once.
func (i *Inbox) wake() {
	select {
	case i.nudge <- struct{}{}:
	default:
	}
}

// run hands the wanted ones of batch to the handler. A panic is an error of the batch, not of the process: the event that
// causes it would end each process that reads it.
func (i *Inbox) run(ctx context.Context, u *pg.Unit, batch []event.Event) (err error) {
	wanted := make([]event.Event, 0, len(batch))
	for _, e := range batch {
		switch {
		case i.wants[e.Type]:
			wanted = append(wanted, e)
		case e.Type.Topic() == "":
			return Permanent(fmt.Errorf("event type %q is not in the catalogue", e.Type))
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			i.o.Log.Error("handler panicked", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			err = Permanent(fmt.Errorf("handler panicked: %v", p))
		}
	}()
	if err := failpoint.Hit("cons.in_handler"); err != nil {
		return Permanent(err)
	}
	return i.o.Handler(ctx, u, wanted)
}

// Consume applies a batch of records. An error means that nothing is known about the rest of the batch: bring it again.
func (i *Inbox) Consume(ctx context.Context, records []stream.Message) error {
	if err := i.Healthy(); err != nil {
		return err
	}
	if !i.o.Unordered {
		if err := i.meet(ctx, records); err != nil {
			return err
		}
	}
	events, letters := i.open(records)
	if len(letters) > 0 {
		if err := i.bury(ctx, letters); err != nil {
			return err
		}
	}
	if len(events) == 0 {
		return nil
	}
	if err := failpoint.Hit("cons.before_tx"); err != nil {
		return err
	}
	ctx, end := i.trace(ctx, events)
	err := i.effect(ctx, events, true)
	if permanent(err) {
		err = i.bisect(ctx, events)
	}
	err = failpoint.After(err, "cons.after_tx_before_commit_offset")
	end(err)
	return err
}

// effect runs one transaction over events, by the group's discipline.
func (i *Inbox) effect(ctx context.Context, events []incoming, withEarly bool) error {
	if i.o.Unordered {
		return i.applyUnordered(ctx, events)
	}
	return i.apply(ctx, events, withEarly)
}

// bisect halves a batch that failed for good until the event is alone that does so, and parks it. Halves run in order, so
// what a parked event holds up in the second half finds its key parked. Early events are left to Run: one of them failing
// must not be laid at another's door.
func (i *Inbox) bisect(ctx context.Context, events []incoming) error {
	if len(events) == 1 {
		// The second look: a 23505 that was lost to another consumer is a duplicate now.
		err := i.effect(ctx, events, false)
		switch {
		case permanent(err) && i.o.Unordered:
			err = i.buryPoison(ctx, events[0], err)
		case permanent(err):
			err = i.park(ctx, poison, events[0].Event, err.Error())
		}
		return err
	}
	for _, half := range [][]incoming{events[:len(events)/2], events[len(events)/2:]} {
		err := i.effect(ctx, half, false)
		if permanent(err) {
			err = i.bisect(ctx, half)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// meet remembers the oldest offset of partitions that the group has not met before.
func (i *Inbox) meet(ctx context.Context, records []stream.Message) error {
	for _, m := range records {
		p := partition{m.Topic, m.Partition}
		i.mu.Lock()
		_, met := i.based[p]
		i.mu.Unlock()
		if met {
			continue
		}
		oldest := m.Offset
		if i.o.Oldest != nil {
			var err error
			if oldest, err = i.o.Oldest(ctx, m.Topic, m.Partition); err != nil {
				return fmt.Errorf("ask for the oldest offset of %s/%d: %w", m.Topic, m.Partition, err)
			}
		}
		// The row of the group's first meeting wins. An update that changes nothing, because DO NOTHING returns no row, and a
		// SELECT beside it does not see one that another consumer has committed since the statement began.
		err := i.o.Pool.QueryRow(ctx, `INSERT INTO inbox_partitions AS p (grp, topic, part, oldest) VALUES ($1, $2, $3, $4)
			ON CONFLICT (grp, topic, part) DO UPDATE SET oldest = p.oldest RETURNING oldest`,
			i.o.Group, m.Topic, m.Partition, oldest).Scan(&oldest)
		if err != nil {
			return fmt.Errorf("remember partition %s/%d: %w", m.Topic, m.Partition, err)
		}
		i.mu.Lock()
		i.based[p] = oldest > 0
		i.mu.Unlock()
	}
	return nil
}
