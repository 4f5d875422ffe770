// Package postgres keeps shipments. Each exported method is one unit of work over sets of rows.
//
// Locks are taken in this order: rows of orders by id, then rows of shipments. The queue skips what is locked and waits
// for nothing, so it cannot be part of a dead-lock.
package postgres

import (
	"context"
	"embed"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/pg"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations are the service's own tables.
var Migrations = func() pg.Migrations {
	root, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err)
	}
	return pg.Migrations{Name: "shipping", FS: root}
}()

// Publisher is the outbox.
type Publisher interface {
	Add(u *pg.Unit, events ...event.Event)
}

// Store is the service's database.
type Store struct {
	pool   *pgxpool.Pool
	outbox Publisher
	wake   func()
}

// New makes a store. wake is called when there may be something new in the queue; it must not block.
func New(pool *pgxpool.Pool, outbox Publisher, wake func()) *Store {
	return &Store{pool: pool, outbox: outbox, wake: wake}
}

// order is a locked row of orders, as it is to become.
type order struct {
	tenant   int64
	customer string
	seq      int64
	paid     bool
	stored   bool // there is a row
	changed  bool
}

// lockOrders queues the lock of the orders' rows; the map is filled by Fetch. ids must be sorted.
func lockOrders(u *pg.Unit, ids []string) map[string]*order {
	orders := make(map[string]*order, len(ids))
	u.Read(`SELECT order_id, tenant, customer, event_seq, paid_at IS NOT NULL FROM orders
		WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE`, ids).Query(func(rows pgx.Rows) error {
		var id string
		var o order
		_, err := pgx.ForEachRow(rows, []any{&id, &o.tenant, &o.customer, &o.seq, &o.paid}, func() error {
			locked := o
			locked.stored = true
			orders[id] = &locked
			return nil
		})
		return err
	})
	return orders
}

// writeOrders queues what has become of the orders, new rows and changed ones.
func writeOrders(u *pg.Unit, ids []string, orders map[string]*order) {
	var fresh, old columns
	for _, id := range ids {
		switch o := orders[id]; {
		case o == nil:
		case !o.stored:
			fresh.add(id, o)
		case o.changed:
			old.add(id, o)
		}
	}
	if n := len(fresh.ids); n > 0 {
		// Somebody else's row means that this unit has read too early: it runs again.
		u.Guard(n, `INSERT INTO orders (order_id, tenant, customer, event_seq, paid_at)
			SELECT id, tenant, customer, seq, CASE WHEN paid THEN now() END
			FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bool[]) AS o(id, tenant, customer, seq, paid)
			ON CONFLICT DO NOTHING`, fresh.ids, fresh.tenants, fresh.customers, fresh.seqs, fresh.paid)
	}
	if n := len(old.ids); n > 0 {
		u.Guard(n, `UPDATE orders SET event_seq = o.seq, paid_at = CASE WHEN o.paid THEN coalesce(orders.paid_at, now()) END
			FROM unnest($1::text[], $2::bigint[], $3::bool[]) AS o(id, seq, paid) WHERE orders.order_id = o.id`,
			old.ids, old.seqs, old.paid)
	}
}

type columns struct {
	ids, customers []string
	tenants, seqs  []int64
	paid           []bool
}

func (c *columns) add(id string, o *order) {
	c.ids, c.customers = append(c.ids, id), append(c.customers, o.customer)
	c.tenants, c.seqs, c.paid = append(c.tenants, o.tenant), append(c.seqs, o.seq), append(c.paid, o.paid)
}

// Ping is for readiness.
func (s *Store) Ping(ctx context.Context) error { return s.pool.Ping(ctx) }
