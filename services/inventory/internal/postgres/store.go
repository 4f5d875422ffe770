// Package postgres keeps products, reservations and the stock ledger in PostgreSQL.
//
// Each unit of work has the same shape: one pipeline locks the reservations by order id, then the products they touch by
// (tenant, product_id) over the whole batch, and reads the clock; a stock.Book decides in memory, order after order; a
// second pipeline writes what the book changed, one statement per table, and the events with it. The number of statements
// does not depend on the size of the batch, so a thousand orders of one product lock its row once.
package postgres

import (
	"embed"
	"io/fs"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/outbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations is the schema of the stockroom.
var Migrations = func() pg.Migrations {
	root, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err)
	}
	return pg.Migrations{Name: "inventory", FS: root}
}()

// Store runs the units of work of the stockroom.
type Store struct {
	pool  *pgxpool.Pool
	out   publisher
	terms stock.Terms
	count metrics
}

// publisher is the outbox.
type publisher interface {
	Add(u *pg.Unit, events ...event.Event)
}

var _ publisher = (*outbox.Outbox)(nil)

// New makes a store over a pool that Migrations, outbox.Migrations and inbox.Migrations were applied to.
func New(pool *pgxpool.Pool, out publisher, terms stock.Terms, reg prometheus.Registerer) *Store {
	return &Store{pool: pool, out: out, terms: terms, count: newMetrics(reg)}
}

// wants is what a unit is about to decide on.
type wants struct {
	orders []string    // these reservations
	lines  []stock.Key // these products
	freed  []string    // and the products of these reservations, whose items may be given back, sold or replaced
	// Where it is not nil, orders that are not in it matter only while they are HELD.
	always []string
}

const (
	lockReservations = `
SELECT order_id, tenant, state, product_ids, quantities, total, currency, reason, due_at, event_seq
FROM reservations WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE`

	// payment.initiated comes for each order and finds it PINNED nearly always: those rows are not even locked.
	lockReservationsOrHeld = `
SELECT order_id, tenant, state, product_ids, quantities, total, currency, reason, due_at, event_seq
FROM reservations WHERE order_id = ANY($1) AND (state = 'HELD' OR order_id = ANY($2)) ORDER BY order_id FOR UPDATE`

	// Locks are taken without a join. Where a row was changed while its lock was waited for, PostgreSQL evaluates the
	// statement again for that row alone (EvalPlanQual), and a join with a UNION ALL then lost the row: an order was
	// refused for a product that was there.
	lockProducts = `
SELECT p.tenant, p.product_id, p.name, p.price, p.currency, p.on_hand, p.reserved, p.event_seq
FROM products p
WHERE ('stock:' || p.tenant::text || ':' || p.product_id) COLLATE "C" = ANY($1)
ORDER BY p.tenant, p.product_id FOR UPDATE`

	// The reservations are locked by the statement before, so their items stand still.
	lockProductsOf = `
SELECT p.tenant, p.product_id, p.name, p.price, p.currency, p.on_hand, p.reserved, p.event_seq
FROM products p
WHERE ('stock:' || p.tenant::text || ':' || p.product_id) COLLATE "C" = ANY($1::text[] || ARRAY(
	SELECT 'stock:' || r.tenant::text || ':' || unnest(r.product_ids) FROM reservations r WHERE r.order_id = ANY($2)))
ORDER BY p.tenant, p.product_id FOR UPDATE`
)

// load queues the locks, in the platform's order, and fills the book when the unit fetches.
func load(u *pg.Unit, b *stock.Book, w wants) {
	u.Read(`SELECT now()`).QueryRow(func(row pgx.Row) error { return row.Scan(&b.Now) })
	scanOrders := func(rows pgx.Rows) error {
		_, err := scanReservations(rows, b)
		return err
	}
	switch {
	case len(w.orders) == 0:
	case w.always != nil:
		u.Read(lockReservationsOrHeld, w.orders, w.always).Query(scanOrders)
	default:
		u.Read(lockReservations, w.orders).Query(scanOrders)
	}
	if len(w.lines) == 0 && len(w.freed) == 0 {
		return
	}
	subjects := make([]string, len(w.lines))
	for i, k := range w.lines {
		subjects[i] = k.Subject()
	}
	slices.Sort(subjects)
	subjects = slices.Compact(subjects)
	scan := func(rows pgx.Rows) error { return scanProducts(rows, b) }
	if len(w.freed) == 0 {
		u.Read(lockProducts, subjects).Query(scan)
		return
	}
	u.Read(lockProductsOf, subjects, w.freed).Query(scan)
}

// scanReservations puts the rows into the book and returns them.
func scanReservations(rows pgx.Rows, b *stock.Book) ([]stock.Reservation, error) {
	var all []stock.Reservation
	var r stock.Reservation
	var products []string
	var quantities []int64
	var due *time.Time
	columns := []any{&r.OrderID, &r.Tenant, &r.State, &products, &quantities, &r.Total, &r.Currency, &r.Reason, &due, &r.EventSeq}
	_, err := pgx.ForEachRow(rows, columns, func() error {
		r.Items = make([]stock.Item, len(products))
		for i := range products {
			r.Items[i] = stock.Item{Product: products[i], Quantity: quantities[i]}
		}
		r.Due = time.Time{}
		if due != nil {
			r.Due = *due
		}
		b.PutReservation(r)
		all = append(all, r)
		return nil
	})
	return all, err
}

func scanProducts(rows pgx.Rows, b *stock.Book) error {
	var p stock.Product
	_, err := pgx.ForEachRow(rows, scanProduct(&p), func() error {
		b.PutProduct(p)
		return nil
	})
	return err
}

func scanProduct(p *stock.Product) []any {
	return []any{&p.Tenant, &p.Product, &p.Name, &p.Price, &p.Currency, &p.OnHand, &p.Reserved, &p.EventSeq}
}
