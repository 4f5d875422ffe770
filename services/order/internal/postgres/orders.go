// Package postgres keeps orders in PostgreSQL. Every statement works on a set: a batch of 256 orders costs as many round
// trips and plan starts as one.
package postgres

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/order/internal/order"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations is the schema of the service.
var Migrations = func() pg.Migrations {
	root, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err)
	}
	return pg.Migrations{Name: "order", FS: root}
}()

const (
	upToAddress  = `order_id, tenant, customer, amount, currency, method, email, product_ids, quantities, `
	afterAddress = `, traceparent, status, reason, cause, goods, shipment, refund, event_seq, created_at, deadline_at, finished_at`

	columns = upToAddress + `address` + afterAddress
	// columnsAsMade are the same with the address that the order was made with.
	columnsAsMade = upToAddress + `coalesce(first_address, address)` + afterAddress

	// Most steps of an order need neither its items nor its address, and those two are half of what a row costs to read.
	lockOrders = `SELECT order_id, tenant, customer, amount, currency, method, email,
	CASE WHEN w.whole THEN product_ids END, CASE WHEN w.whole THEN quantities END, CASE WHEN w.whole THEN address END, traceparent,
	status, reason, cause, goods, shipment, refund, event_seq, created_at, deadline_at, finished_at, cardinality(product_ids) = 0
FROM orders, LATERAL (SELECT status = 'pending' OR order_id = ANY($2) AS whole) w
WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE OF orders`
)

// address is the JSON of the column.
type address struct {
	Name       string `json:"name"`
	Line1      string `json:"line1"`
	Line2      string `json:"line2,omitempty"`
	City       string `json:"city"`
	Region     string `json:"region,omitempty"`
	PostalCode string `json:"postal_code"`
	Country    string `json:"country"`
}

func encodeAddress(a *order.Address) *string {
	if a == nil {
		return nil
	}
	raw, err := json.Marshal((*address)(a))
	if err != nil {
		panic(err) // seven strings
	}
	s := string(raw)
	return &s
}

func scanOrder(row pgx.Row, more ...any) (*order.Order, error) {
	o := new(order.Order)
	var products []string
	var quantities []int32
	var addr []byte
	var finished *time.Time
	err := row.Scan(append([]any{&o.ID, &o.Tenant, &o.Customer, &o.Amount, &o.Currency, &o.Method, &o.Email, &products, &quantities, &addr, &o.Traceparent,
		&o.Status, &o.Reason, &o.Cause, &o.Goods, &o.Shipment, &o.Refund, &o.EventSeq, &o.CreatedAt, &o.Deadline, &finished}, more...)...)
	if err != nil {
		return nil, err
	}
	o.Items = make([]order.Item, len(products))
	for i, p := range products {
		o.Items[i] = order.Item{ProductID: p, Quantity: int64(quantities[i])}
	}
	if addr != nil {
		o.Address = new(order.Address)
		if err := json.Unmarshal(addr, (*address)(o.Address)); err != nil {
			return nil, fmt.Errorf("read address of order %s: %w", o.ID, err)
		}
	}
	if finished != nil {
		o.FinishedAt = *finished
	}
	return o, nil
}

// Lock queues the lock of orders, by id, the order in which every unit locks them. The map is filled when the unit
// fetches; what is not in it then does not exist. Items and address are read of the orders in whole, and of pending ones,
// whose stock is compared.
func Lock(u *pg.Unit, ids, whole []string) map[string]*order.Order {
	locked := make(map[string]*order.Order, len(ids))
	if whole == nil {
		whole = []string{}
	}
	u.Read(lockOrders, ids, whole).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var chargeOnly bool
			o, err := scanOrder(rows, &chargeOnly)
			if err != nil {
				return err
			}
			o.Bare = !chargeOnly && len(o.Items) == 0
			locked[o.ID] = o
		}
		return rows.Err()
	})
	return locked
}

// Changed is an order with what its row said before.
type Changed struct {
	*order.Order
	Was    order.Status
	WasSeq int64
	Moved  bool // its address is another one
}

const saveOrders = `UPDATE orders o SET status = v.status, reason = v.reason, cause = v.cause, goods = v.goods,
	shipment = v.shipment, refund = v.refund, event_seq = v.event_seq, finished_at = v.finished_at
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[], $9::int[], $10::bigint[], $11::timestamptz[])
	AS v(order_id, was, was_seq, status, reason, cause, goods, shipment, refund, event_seq, finished_at)
WHERE o.order_id = v.order_id AND o.status = v.was AND o.event_seq = v.was_seq`

// Save queues the new state of locked orders. The guard can only fail where somebody writes without locking.
func Save(u *pg.Unit, changed []Changed) {
	n := len(changed)
	if n == 0 {
		return
	}
	ids, was, wasSeq := make([]string, n), make([]string, n), make([]int64, n)
	status, reason, cause, goods := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	shipment, refund, seq := make([]int32, n), make([]int32, n), make([]int64, n)
	finished := make([]*time.Time, n)
	for i, c := range changed {
		ids[i], was[i], wasSeq[i] = c.ID, string(c.Was), c.WasSeq
		status[i], reason[i], cause[i], goods[i] = string(c.Status), string(c.Reason), string(c.Cause), string(c.Goods)
		shipment[i], refund[i], seq[i] = int32(c.Shipment), int32(c.Refund), c.EventSeq
		if !c.FinishedAt.IsZero() {
			finished[i] = &c.FinishedAt
		}
		if c.Moved { // a person corrected it: one in thousands
			u.Write(`UPDATE orders SET first_address = coalesce(first_address, address), address = $2::text::jsonb WHERE order_id = $1`, c.ID, encodeAddress(c.Address))
		}
	}
	u.Guard(n, saveOrders,
		ids, was, wasSeq, status, reason, cause, goods, shipment, refund, seq, finished)
}

// Line is one entry of the timeline.
type Line struct {
	ID      int64 // given when it is stored
	OrderID string
	At      time.Time
	Event   string
	Status  order.Status
	Detail  string
}

// Append queues entries of the timeline of locked or new orders.
func Append(u *pg.Unit, lines []Line) {
	n := len(lines)
	if n == 0 {
		return
	}
	ids, at, events, status, detail := make([]string, n), make([]time.Time, n), make([]string, n), make([]string, n), make([]string, n)
	for i, l := range lines {
		ids[i], at[i], events[i], status[i], detail[i] = l.OrderID, l.At, l.Event, string(l.Status), l.Detail
	}
	u.Write(`INSERT INTO order_history (order_id, at, event, status, detail)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[])`, ids, at, events, status, detail)
}

const insert = `INSERT INTO orders (event_seq, status, tenant, amount, created_at, deadline_at, order_id, customer, currency,
	method, email, product_ids, quantities, address, traceparent, key, fingerprint)
SELECT v.event_seq, v.status, v.tenant, v.amount, v.created_at, v.deadline_at, v.order_id, v.customer, v.currency,
	v.method, v.email, v.product_ids::text[], v.quantities::int[], v.address::jsonb, v.traceparent, v.key, v.fingerprint
FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::timestamptz[], $7::text[], $8::text[], $9::text[],
	$10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::bytea[])
	AS v(event_seq, status, tenant, amount, created_at, deadline_at, order_id, customer, currency,
	method, email, product_ids, quantities, address, traceparent, key, fingerprint)`

// Insert queues new orders. One whose id or key is taken fails the unit with 23505.
func Insert(u *pg.Unit, orders []*order.Order) { u.Write(insert, insertArgs(orders)...) }

// InsertFree queues new orders and leaves out those whose id or key is taken, after waiting for whoever is just taking
// it. The map is filled when the unit flushes, with the ids that were stored.
func InsertFree(u *pg.Unit, orders []*order.Order) map[string]bool {
	stored := make(map[string]bool, len(orders))
	u.Write(insert+` ORDER BY v.order_id ON CONFLICT DO NOTHING RETURNING order_id`, insertArgs(orders)...).Query(func(rows pgx.Rows) error {
		var id string
		_, err := pgx.ForEachRow(rows, []any{&id}, func() error { stored[id] = true; return nil })
		return err
	})
	return stored
}

func insertArgs(orders []*order.Order) []any {
	n := len(orders)
	seq, tenant, amount := make([]int64, n), make([]int64, n), make([]int64, n)
	created, deadline := make([]time.Time, n), make([]time.Time, n)
	text := make([][]string, 9) // status, order_id, customer, currency, method, email, products, quantities, traceparent
	for i := range text {
		text[i] = make([]string, n)
	}
	addresses, keys, prints := make([]*string, n), make([]*string, n), make([][]byte, n)
	for i, o := range orders {
		seq[i], tenant[i], amount[i], created[i], deadline[i] = o.EventSeq, o.Tenant, o.Amount, o.CreatedAt, o.Deadline
		products, quantities := itemArrays(o.Items)
		for j, s := range []string{string(o.Status), o.ID, o.Customer, o.Currency, o.Method, o.Email, products, quantities, o.Traceparent} {
			text[j][i] = s
		}
		addresses[i], prints[i] = encodeAddress(o.Address), o.Fingerprint[:]
		if o.Key != "" {
			keys[i] = &o.Key
		}
	}
	return []any{seq, text[0], tenant, amount, created, deadline, text[1], text[2], text[3], text[4], text[5], text[6], text[7],
		addresses, text[8], keys, prints}
}

// itemArrays writes the two array columns in PostgreSQL's input syntax: unnest cannot carry arrays of different lengths.
// Product ids are [A-Za-z0-9._-], so quotes around them are all the quoting that there is; a bare NULL would be one.
func itemArrays(items []order.Item) (products, quantities string) {
	var p, q strings.Builder
	p.WriteByte('{')
	q.WriteByte('{')
	for i, it := range items {
		if i > 0 {
			p.WriteByte(',')
			q.WriteByte(',')
		}
		p.WriteByte('"')
		p.WriteString(it.ProductID)
		p.WriteByte('"')
		q.WriteString(strconv.FormatInt(it.Quantity, 10))
	}
	p.WriteByte('}')
	q.WriteByte('}')
	return p.String(), q.String()
}

// Watch queues that orders are looked at again at a time.
func Watch(u *pg.Unit, orders []*order.Order, due []time.Time) {
	ids := make([]string, len(orders))
	for i, o := range orders {
		ids[i] = o.ID
	}
	u.Write(`INSERT INTO order_watch (due_at, order_id) SELECT * FROM unnest($1::timestamptz[], $2::text[])`, due, ids)
}
