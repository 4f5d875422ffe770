package outbox

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/stream"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations are the tables of the outbox.
var Migrations = func() pg.Migrations {
	root, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err)
	}
	return pg.Migrations{Name: "outbox", FS: root}
}()

const (
	// maxData keeps a record below the 900 KiB that a producer takes. A record that is too large would hold up its key for ever.
	maxData = 512 << 10
	// maxHanded bounds the memory of the hand-off, in events: seconds of work at any rate that was measured.
	maxHanded = 20_000
)

// Producer writes messages and returns nil when all of them are acknowledged.
type Producer interface {
	Send(ctx context.Context, messages []stream.Message) error
}

// Options describe an outbox.
type Options struct {
	Source string // the service's name, such as "order"; its events carry "/waybill/order"
	Pool   *pgxpool.Pool
	// DatabaseURL reaches the server itself, without a transaction pooler: the relay's lock lives with its session.
	DatabaseURL string
	Producer    Producer
	Log         *zap.Logger
	Registry    prometheus.Registerer
}

// Outbox is where a service leaves its events.
type Outbox struct {
	Options
	source  string
	metrics *metrics
	handed  handoff
}

// New makes an outbox. Its pool must have Migrations applied.
func New(o Options) *Outbox {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return &Outbox{
		Options: o, source: "/waybill/" + o.Source, metrics: newMetrics(o.Registry),
		handed: handoff{signal: make(chan struct{}, 1)},
	}
}

// Add publishes events when u commits. Call it after the rows of the aggregates that the events are about are locked: that
// alone makes the order of rows the order of commits.
func (o *Outbox) Add(u *pg.Unit, events ...event.Event) {
	if len(events) == 0 {
		return
	}
	open := u.Value(o, func() any { return new(*row) }).(**row)
	if *open == nil {
		r := &row{}
		*open = r
		u.BeforeCommit(func(context.Context) error {
			*open = nil // what a later hook adds goes into another row
			return o.write(u, r)
		})
	}
	(*open).events = append((*open).events, events...)
}

func (o *Outbox) write(u *pg.Unit, r *row) error {
	for i := range r.events {
		e := &r.events[i]
		if e.Type.Topic() == "" || e.Subject == "" || e.Seq < 1 || len(e.Data) > maxData {
			return fmt.Errorf("add event %s about %q, sequence %d, %d bytes: not publishable", e.Type, e.Subject, e.Seq, len(e.Data))
		}
		e.Source = o.source
	}
	u.Write(`INSERT INTO outbox (events, body) VALUES ($1, $2) RETURNING id`, len(r.events), pack(r.events)).
		QueryRow(func(row pgx.Row) error { return row.Scan(&r.id) })
	u.AfterCommit(func() { o.handed.put(r) })
	return nil
}

// handoff passes rows that this process has committed to the relay, while it is on. It loses them without harm: the table
// has them.
type handoff struct {
	signal chan struct{}

	mu     sync.Mutex
	on     bool
	rows   []*row
	events int
}

func (h *handoff) put(r *row) {
	h.mu.Lock()
	on := h.on
	if on {
		h.rows = append(h.rows, r)
		if h.events += len(r.events); h.events > maxHanded {
			h.on, h.rows, h.events = false, nil, 0
		}
	}
	h.mu.Unlock()
	if !on {
		return
	}
	select {
	case h.signal <- struct{}{}:
	default:
	}
}

// take empties the hand-off.
func (h *handoff) take(into []*row) []*row {
	h.mu.Lock()
	defer h.mu.Unlock()
	into = append(into, h.rows...)
	clear(h.rows)
	h.rows, h.events = h.rows[:0], 0
	return into
}

// turnOff empties the hand-off.
func (h *handoff) turnOff() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.on, h.rows, h.events = false, nil, 0
}

// turnOn is for when a read has shown that nothing else is unpublished.
func (h *handoff) turnOn() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.on = true
}
