package outbox

import (
	"context"
	"embed"
	"errors"
	"io/fs"

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

// Producer writes messages and returns nil when all of them are acknowledged.
type Producer interface {
	Send(ctx context.Context, messages []stream.Message) error
}

// Options describe an outbox.
type Options struct {
	Source string // the service's name, such as "order"; events carry "/waybill/order"
	Pool   *pgxpool.Pool
	// DatabaseURL reaches the server itself, without a transaction pooler: the relay's advisory lock lives with its session.
	DatabaseURL string
	Producer    Producer
	Log         *zap.Logger
	Registry    prometheus.Registerer
}

// Outbox is where a service leaves its events.
type Outbox struct{ Options }

// New makes an outbox. Its pool must have Migrations applied.
func New(o Options) *Outbox { return &Outbox{o} }

// Add publishes events when u commits. Call it after the rows of the aggregates that the events are about are locked.
func (o *Outbox) Add(u *pg.Unit, events ...event.Event) {}

// Run relays what was added, here or by another replica, until ctx ends.
func (o *Outbox) Run(ctx context.Context) error { return errors.ErrUnsupported }
