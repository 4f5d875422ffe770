package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/inventory/internal/recount"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

// Movement is a line of the ledger as it is shown.
type Movement struct {
	ID int64
	At time.Time
	stock.Move
}

// MovementFilter says which lines to list. Zero values do not restrict.
type MovementFilter struct {
	Tenant  int64
	Product string
	OrderID string
	Before  int64 // only lines below this id
	Limit   int
}

// Movements lists lines of the ledger, newest first.
func (s *Store) Movements(ctx context.Context, f MovementFilter) ([]Movement, error) {
	sql := `SELECT id, at, tenant, product_id, COALESCE(order_id, ''), COALESCE(document, ''), op, delta, balance, reason, actor
FROM stock_ledger WHERE tenant = $1`
	args := []any{f.Tenant}
	and := func(condition string, arg any) {
		args = append(args, arg)
		sql += fmt.Sprintf(" AND "+condition, len(args))
	}
	if f.Product != "" {
		and("product_id = $%d", f.Product)
	}
	if f.OrderID != "" {
		and("order_id = $%d", f.OrderID)
	}
	if f.Before > 0 {
		and("id < $%d", f.Before)
	}
	args = append(args, f.Limit)
	sql += fmt.Sprintf(" ORDER BY id DESC LIMIT $%d", len(args))
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("list movements: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m Movement, err error) {
		err = row.Scan(&m.ID, &m.At, &m.Tenant, &m.Product, &m.OrderID, &m.Document, &m.Op, &m.Delta, &m.Balance, &m.Reason, &m.Actor)
		return m, err
	})
	if err != nil {
		return nil, fmt.Errorf("list movements: %w", err)
	}
	return out, nil
}

// KindBelowReserved is the intervention for a count that is lower than what orders were promised.
const KindBelowReserved = "count_below_reserved"

// UnknownProducts says which counted products do not exist. Nothing of the stock-take was booked.
type UnknownProducts []string

func (u UnknownProducts) Error() string { return fmt.Sprintf("%d products do not exist", len(u)) }

// TakeStock compares a stock-take with the system's stock and books the differences, once per idempotency key.
func (s *Store) TakeStock(ctx context.Context, t recount.Take, key inbox.Request, render func(recount.Take, []recount.Line) *inbox.Response, raise Interventions) (take recount.Take, lines []recount.Line, replayed *inbox.Response, err error) {
	var w wants
	var products []string
	for _, c := range t.Counts {
		w.lines = append(w.lines, stock.Key{Tenant: t.Tenant, Product: c.Product})
		products = append(products, c.Product)
	}
	err = again(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		take, lines = t, nil
		b := stock.NewBook(s.terms)
		since := map[string]int64{}
		load(u, b, w)
		if !t.CountedAt.IsZero() {
			u.Read(`SELECT product_id, sum(delta)::bigint FROM stock_ledger WHERE tenant = $1 AND product_id = ANY($2) AND at > $3 GROUP BY product_id`,
				t.Tenant, products, t.CountedAt).Query(func(rows pgx.Rows) error {
				var id string
				var sum int64
				_, err := pgx.ForEachRow(rows, []any{&id, &sum}, func() error { since[id] = sum; return nil })
				return err
			})
		}
		kept := findResponses(u, []inbox.Request{key})
		if err := u.Fetch(ctx); err != nil {
			return fmt.Errorf("lock products: %w", err)
		}
		var err error
		if replayed, err = kept.get(key); replayed != nil || err != nil {
			return err
		}
		if take.CountedAt.IsZero() {
			take.CountedAt = b.Now
		}
		if lines, err = book(u, b, take, since, raise); err != nil {
			return err
		}
		shown, err := json.Marshal(lines)
		if err != nil {
			return fmt.Errorf("encode stock-take: %w", err)
		}
		u.Write(`INSERT INTO stocktakes (id, tenant, actor, reason, counted_at, lines) VALUES ($1, $2, $3, $4, $5, $6)`,
			take.ID, take.Tenant, take.Actor, take.Reason, take.CountedAt, shown)
		kept.put(key, render(take, lines))
		kept.store(u)
		s.save(ctx, u, b)
		return nil
	})
	if err != nil {
		return recount.Take{}, nil, nil, fmt.Errorf("take stock: %w", err)
	}
	return take, lines, replayed, nil
}

// book compares each count and adjusts the stock.
func book(u *pg.Unit, b *stock.Book, t recount.Take, since map[string]int64, raise Interventions) ([]recount.Line, error) {
	var unknown UnknownProducts
	var lines []recount.Line
	for _, c := range t.Counts {
		k := stock.Key{Tenant: t.Tenant, Product: c.Product}
		p, ok := b.Product(k)
		if !ok {
			unknown = append(unknown, c.Product)
			continue
		}
		l := recount.Compare(c, recount.Stock{OnHand: p.OnHand, Reserved: p.Reserved, Since: since[c.Product]})
		lines = append(lines, l)
		switch l.Outcome {
		case recount.Booked:
			a := stock.Adjustment{Key: k, Document: t.ID, Op: stock.Counted, Delta: l.Difference, Reason: t.Reason, Actor: t.Actor}
			if _, err := b.Adjust(a); err != nil {
				return nil, fmt.Errorf("book difference of %s: %w", c.Product, err)
			}
		case recount.BelowReserved:
			raise.Raise(u, inbox.Intervention{
				Kind: KindBelowReserved, Subject: k.Subject(), Tenant: t.Tenant,
				Reason: "fewer were counted than are reserved for orders; nothing was booked",
				Detail: map[string]any{"stocktake": t.ID, "product_id": c.Product, "counted": l.Counted, "on_hand": p.OnHand, "reserved": p.Reserved},
			})
		}
	}
	if len(unknown) > 0 {
		return nil, unknown
	}
	return lines, nil
}

// KindDrift is the intervention for a product whose row is not what ledger and reservations say.
const KindDrift = "stock_drift"

// One statement is one snapshot: no transaction can be half in it.
const findDrift = `
SELECT p.tenant, p.product_id, p.on_hand, COALESCE(l.sum, 0)::bigint, p.reserved, COALESCE(r.sum, 0)::bigint
FROM products p
LEFT JOIN (SELECT tenant, product_id, sum(delta) FROM stock_ledger GROUP BY tenant, product_id) l USING (tenant, product_id)
LEFT JOIN (SELECT o.tenant, i.product_id, sum(i.quantity)
           FROM reservations o, unnest(o.product_ids, o.quantities) AS i(product_id, quantity)
           WHERE o.due_at IS NOT NULL -- HELD and PINNED, by the CHECK, through the index
           GROUP BY o.tenant, i.product_id) r USING (tenant, product_id)
WHERE p.on_hand <> COALESCE(l.sum, 0) OR p.reserved <> COALESCE(r.sum, 0)
ORDER BY p.tenant, p.product_id LIMIT 100`

// readDrift queues findDrift, or a statement about it. The whole ledger is summed: 0.2 s a million lines.
func readDrift(u *pg.Unit, sql string) *pgx.QueuedQuery {
	u.Survey(time.Minute)
	return u.Read(sql)
}

// Comparison finds drift and keeps interventions of it.
type Comparison struct {
	Store *Store
	Raise Interventions
}

// Drift compares all products with ledger and reservations. It returns at most 100: more are one defect, not many.
func (c Comparison) Drift(ctx context.Context) ([]recount.Drift, error) {
	var found []recount.Drift
	err := pg.Do(ctx, c.Store.pool, func(ctx context.Context, u *pg.Unit) error {
		readDrift(u, findDrift).Query(func(rows pgx.Rows) error {
			var err error
			found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[recount.Drift])
			return err
		})
		if err := u.Fetch(ctx); err != nil {
			return fmt.Errorf("compare stock with ledger: %w", err)
		}
		for _, d := range found {
			c.Raise.Raise(u, inbox.Intervention{
				Kind: KindDrift, Subject: stock.Key{Tenant: d.Tenant, Product: d.Product}.Subject(), Tenant: d.Tenant,
				Reason: "the product's row is not what ledger and reservations say", Detail: d,
			})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find drift: %w", err)
	}
	return found, nil
}
