package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/order/internal/order"
)

// ErrNotFound says that there is no such order, or none that the asker may see.
var ErrNotFound = errors.New("order not found")

// Store reads orders.
type Store struct{ Pool *pgxpool.Pool }

// Viewer is whose eyes an order is seen with: everyone's orders, one tenant's, or one customer's.
type Viewer struct {
	All      bool
	Tenant   int64
	Customer string // empty: the whole tenant's
}

// Sees says whether the viewer may know of the order.
func (v Viewer) Sees(o *order.Order) bool {
	return v.All || (v.Tenant == o.Tenant && (v.Customer == "" || v.Customer == o.Customer))
}

// Order reads one order with its timeline.
func (s Store) Order(ctx context.Context, id string, v Viewer) (*order.Order, []Line, error) {
	var o *order.Order
	var lines []Line
	b := &pgx.Batch{}
	b.Queue(`SELECT `+columns+` FROM orders WHERE order_id = $1`, id).QueryRow(func(row pgx.Row) (err error) {
		if o, err = scanOrder(row); errors.Is(err, pgx.ErrNoRows) {
			return ErrNotFound
		}
		return err
	})
	b.Queue(history+` WHERE order_id = $1 ORDER BY id`, id).Query(func(rows pgx.Rows) (err error) {
		lines, err = scanLines(rows)
		return err
	})
	if err := s.Pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, nil, fmt.Errorf("read order: %w", err)
	}
	if !v.Sees(o) {
		return nil, nil, ErrNotFound
	}
	return o, lines, nil
}

// Head reads one order without its timeline.
func (s Store) Head(ctx context.Context, id string, v Viewer) (*order.Order, error) {
	o, err := scanOrder(s.Pool.QueryRow(ctx, `SELECT `+columns+` FROM orders WHERE order_id = $1`, id))
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, ErrNotFound
	case err != nil:
		return nil, fmt.Errorf("read order: %w", err)
	case !v.Sees(o):
		return nil, ErrNotFound
	}
	return o, nil
}

const history = `SELECT id, order_id, at, event, status, detail FROM order_history`

func scanLines(rows pgx.Rows) ([]Line, error) {
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Line, err error) {
		err = row.Scan(&l.ID, &l.OrderID, &l.At, &l.Event, &l.Status, &l.Detail)
		return l, err
	})
}

const linesAfter = `SELECT h.id, h.order_id, h.at, h.event, h.status, h.detail
FROM unnest($1::text[], $2::bigint[]) AS w(order_id, after)
CROSS JOIN LATERAL (SELECT * FROM order_history h WHERE h.order_id = w.order_id AND h.id > w.after ORDER BY h.id LIMIT 200) h
ORDER BY h.order_id, h.id`

// After reads the entries of many timelines, each after its own id, in order.
func (s Store) After(ctx context.Context, ids []string, after []int64) ([]Line, error) {
	rows, err := s.Pool.Query(ctx, linesAfter, ids, after)
	if err != nil {
		return nil, fmt.Errorf("read timelines: %w", err)
	}
	lines, err := scanLines(rows)
	if err != nil {
		return nil, fmt.Errorf("read timelines: %w", err)
	}
	return lines, nil
}

// Filter narrows a list.
type Filter struct {
	Viewer
	Status, Reason string
	From, To       time.Time // created at or after, before; zero: any
	// Before is where the last page ended; zero: at the newest.
	Before   time.Time
	BeforeID string
	Limit    int
}

// listOrders reads a page. A customer's orders and a tenant's have an index each. A viewer of all tenants gets the newest of each,
// merged: tenants are found by stepping through the index, one probe each, so no order is read that is not shown or
// filtered out.
func listOrders(customer bool) string {
	own := "$2::text IS NULL" // keeps the numbers of the parameters
	if customer {
		own = "customer = $2::text"
	}
	return `WITH RECURSIVE tenants AS (
	SELECT coalesce($1::bigint, (SELECT min(tenant) FROM orders)) AS tenant
	UNION ALL
	SELECT (SELECT min(o.tenant) FROM orders o WHERE o.tenant > t.tenant) FROM tenants t WHERE t.tenant IS NOT NULL AND $1::bigint IS NULL)
SELECT o.* FROM tenants t CROSS JOIN LATERAL (
	SELECT ` + columns + ` FROM orders
	WHERE tenant = t.tenant AND ` + own + `
		AND ($3::text IS NULL OR status = $3) AND ($4::text IS NULL OR reason = $4)
		AND created_at >= coalesce($5::timestamptz, '-infinity') AND created_at < coalesce($6::timestamptz, 'infinity')
		AND (created_at, order_id) < (coalesce($7::timestamptz, 'infinity'), coalesce($8::text, ''))
	ORDER BY created_at DESC, order_id DESC LIMIT $9) o
ORDER BY created_at DESC, order_id DESC LIMIT $9`
}

// List reads orders, newest first.
func (s Store) List(ctx context.Context, f Filter) ([]*order.Order, error) {
	null := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	var tenant *int64
	if !f.All {
		tenant = &f.Tenant
	}
	rows, err := s.Pool.Query(ctx, listOrders(f.Customer != ""),
		tenant, null(f.Customer), null(f.Status), null(f.Reason), at(f.From), at(f.To), at(f.Before), null(f.BeforeID), f.Limit)
	if err != nil {
		return nil, fmt.Errorf("list orders: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*order.Order, error) { return scanOrder(row) })
	if err != nil {
		return nil, fmt.Errorf("list orders: %w", err)
	}
	return out, nil
}

// Taken is an order that has the id or the key of a request.
type Taken struct {
	*order.Order
	Key         string
	Fingerprint [32]byte
}

// findTaken is two searches, each by its index; one condition with OR would read the whole table. An order that both find
// comes twice.
const findTaken = `SELECT coalesce(key, ''), fingerprint, ` + columnsAsMade + ` FROM orders WHERE order_id = ANY($1)
UNION ALL
SELECT coalesce(key, ''), fingerprint, ` + columnsAsMade + `
FROM unnest($2::bigint[], $3::text[], $4::text[]) AS by(by_tenant, by_customer, by_key)
JOIN orders ON tenant = by_tenant AND customer = by_customer AND key = by_key`

// FindTaken queues the search for orders by id, and by the keys of callers. The slice is filled when the unit fetches.
func FindTaken(u *pg.Unit, orders []*order.Order) *[]Taken {
	taken := new([]Taken)
	n := len(orders)
	ids, tenants, customers, keys := make([]string, n), make([]int64, n), make([]string, n), make([]*string, n)
	for i, o := range orders {
		ids[i], tenants[i], customers[i] = o.ID, o.Tenant, o.Customer
		if o.Key != "" {
			keys[i] = &o.Key
		}
	}
	u.Read(findTaken, ids, tenants, customers, keys).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			t := Taken{}
			var print []byte
			o, err := scanOrder(prefixed{rows, []any{&t.Key, &print}})
			if err != nil {
				return err
			}
			t.Order = o
			copy(t.Fingerprint[:], print)
			*taken = append(*taken, t)
		}
		return rows.Err()
	})
	return taken
}

// prefixed scans columns before those of an order.
type prefixed struct {
	row   pgx.Row
	first []any
}

func (p prefixed) Scan(dest ...any) error { return p.row.Scan(append(p.first, dest...)...) }

// Due is an order that the sweeper found waiting.
type Due struct {
	*order.Order
	Late bool // past its deadline
}

const (
	dueWatches = `SELECT due_at, order_id FROM order_watch WHERE due_at <= now() ORDER BY due_at, order_id LIMIT $1 FOR UPDATE SKIP LOCKED`
	stillOpen  = `SELECT ` + columns + ` FROM orders WHERE order_id = ANY($1) AND status IN ('pending', 'paying')`
	unwatch    = `DELETE FROM order_watch w USING unnest($1::timestamptz[], $2::text[]) AS d(due_at, order_id)
WHERE w.due_at = d.due_at AND w.order_id = d.order_id`
)

// Sweep moves the watch on, in one transaction: entries of orders that have left pending and paying are deleted, those of
// pending orders come again after ask, those of paying ones at their deadline, and what is past its deadline after ask as
// well, until it has moved. It returns the pending and the late ones. Replicas take different entries.
func (s Store) Sweep(ctx context.Context, ask time.Duration, limit int) (due []Due, more bool, err error) {
	err = pg.Do(ctx, s.Pool, func(ctx context.Context, u *pg.Unit) error {
		due = nil
		var stamps []time.Time
		var ids []string
		var now time.Time
		u.Read(`SELECT now()`).QueryRow(func(row pgx.Row) error { return row.Scan(&now) })
		u.Read(dueWatches, limit).Query(func(rows pgx.Rows) error {
			var at time.Time
			var id string
			_, err := pgx.ForEachRow(rows, []any{&at, &id}, func() error {
				stamps, ids = append(stamps, at), append(ids, id)
				return nil
			})
			return err
		})
		if err := u.Fetch(ctx); err != nil {
			return err
		}
		more = len(ids) == limit
		if len(ids) == 0 {
			return nil
		}
		// Not locked: an order never comes back to pending or paying, and whoever acts on what was seen here looks again.
		u.Read(stillOpen, ids).Query(func(rows pgx.Rows) error {
			for rows.Next() {
				o, err := scanOrder(rows)
				if err != nil {
					return err
				}
				due = append(due, Due{o, !o.Deadline.After(now)})
			}
			return rows.Err()
		})
		if err := u.Fetch(ctx); err != nil {
			return err
		}
		u.Write(unwatch, stamps, ids)
		var orders []*order.Order
		var next []time.Time
		for _, d := range due {
			at := now.Add(ask)
			if !d.Late && (d.Status == order.Paying || d.Deadline.Before(at)) {
				at = d.Deadline
			}
			orders, next = append(orders, d.Order), append(next, at)
		}
		if len(orders) > 0 {
			Watch(u, orders, next)
		}
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("sweep watched orders: %w", err)
	}
	kept := due[:0]
	for _, d := range due {
		if d.Late || d.Status == order.Pending {
			kept = append(kept, d)
		}
	}
	return kept, more, nil
}

// Census counts the watched orders that wait for stock or for money.
func (s Store) Census(ctx context.Context) (map[order.Status]int64, error) {
	rows, err := s.Pool.Query(ctx, `SELECT o.status, count(*) FROM order_watch w JOIN orders o USING (order_id)
WHERE o.status IN ('pending', 'paying') GROUP BY 1`)
	if err != nil {
		return nil, fmt.Errorf("count open orders: %w", err)
	}
	out := map[order.Status]int64{}
	var status order.Status
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&status, &n}, func() error { out[status] = n; return nil }); err != nil {
		return nil, fmt.Errorf("count open orders: %w", err)
	}
	return out, nil
}
