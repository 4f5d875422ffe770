package oracle

import (
	"context"
	"time"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/history"
)

// asked is what the load process knows about one order.
type asked struct {
	ok, info, fail int
	promised       string   // history.Order.Hash of what was acknowledged
	perhaps        []string // of what nobody answered
	cancelled      bool     // a cancellation was acknowledged
	seen           bool     // the order was met in a database
}

// first is the first answer under an idempotency key.
type first struct{ id, sent, body string }

// readHistory takes in what the clients were told. It holds some 300 bytes an order.
func (c *check) readHistory(context.Context) error {
	c.asked = map[string]*asked{}
	if c.target.History == "" {
		return nil
	}
	answers := map[string]first{} // by caller and key
	saw := map[string]int{}       // lines of the timeline, by session and order
	return history.ReadFile(c.target.History, func(op history.Op) error {
		if c.begun.IsZero() || op.Invoke.Before(c.begun) {
			c.begun = op.Invoke
		}
		c.counts["history.operations"]++
		c.counts["history."+string(op.Op)+"."+string(op.Type)]++
		if op.Problem != "" {
			c.counts["history.problem."+op.Problem]++
		}
		if op.Replayed {
			c.counts["history.replayed"]++
		}
		switch op.Op {
		case history.Create:
			c.create(op)
		case history.Cancel:
			if op.Type == history.OK {
				c.about(op.ID).cancelled = true
			}
		case history.Get:
			if op.Type == history.OK && op.Session != "" {
				at := op.Session + "\x00" + op.ID
				c.found.expect(op.Seen >= saw[at], "I-SAGA-5", op.ID, "a reader saw %d lines of its timeline, and then %d", saw[at], op.Seen)
				saw[at] = max(saw[at], op.Seen)
			}
		}
		if op.Type != history.OK || op.Key == "" || op.Op == history.Get {
			return nil
		}
		at := string(op.Op) + "\x00" + op.Caller + "\x00" + op.Key
		was, known := answers[at]
		if !known {
			answers[at] = first{op.ID, op.Sent, op.BodyHash}
			c.found.looked("I-IDEM-1", 1)
			return nil
		}
		c.found.expect(was.id == op.ID && was.sent == op.Sent, "I-IDEM-1", op.ID, "key %s was accepted for another request before (%s)", op.Key, was.id)
		c.found.expect(was.body == op.BodyHash, "I-IDEM-1", op.ID, "key %s was answered with another body the second time", op.Key)
		return nil
	})
}

func (c *check) about(id string) *asked {
	a := c.asked[id]
	if a == nil {
		a = &asked{}
		c.asked[id] = a
	}
	return a
}

func (c *check) create(op history.Op) {
	a := c.about(op.ID)
	switch op.Type {
	case history.OK:
		if a.ok > 0 {
			c.found.expect(a.promised == op.Sent, "I-SAGA-3", op.ID, "two different orders were acknowledged under its id")
		}
		a.ok++
		a.promised = op.Sent
	case history.Info:
		a.info++
		a.perhaps = append(a.perhaps, op.Sent)
	case history.Fail:
		a.fail++
	}
}

// clockSlack is how far a client's clock may be ahead of the order service's.
const clockSlack = 5 * time.Second

// promises compares an order with what its client was told.
func (c *check) promises(d *dossier) {
	if c.target.History == "" {
		return
	}
	a, o := d.asked, d.order
	if a == nil {
		if o != nil && o.CreatedAt.After(c.begun.Add(clockSlack)) {
			c.found.broken("I-SAGA-4", d.id, "nobody asked for it, and it was created at %s", o.CreatedAt.Format(time.RFC3339Nano))
		}
		return
	}
	c.found.looked("I-SAGA-3", 1)
	c.found.looked("I-SAGA-4", 1)
	switch {
	case a.ok > 0 && o == nil:
		c.found.broken("I-SAGA-3", d.id, "it was acknowledged, and it does not exist")
	case a.ok > 0 && o.asks().Hash() != a.promised:
		c.found.broken("I-SAGA-3", d.id, "it is not the order that was acknowledged")
	case a.ok == 0 && o != nil && a.info == 0 && a.fail > 0:
		c.found.broken("I-SAGA-3", d.id, "it was refused, and it exists")
	case a.ok == 0 && o != nil && a.info > 0:
		hash, known := o.asks().Hash(), false
		for _, sent := range a.perhaps {
			known = known || sent == hash
		}
		c.found.expect(known, "I-SAGA-3", d.id, "it is none of those that were asked for and not answered")
		c.counts["history.unknown_and_done"]++
	case a.ok == 0 && a.info > 0:
		c.counts["history.unknown_and_not_done"]++
	}
	if a.cancelled && o != nil {
		c.found.expect(o.Status == "cancelled" || o.Status == "attention", "I-SAGA-3", d.id, "its cancellation was acknowledged, and it is %s", o.Status)
	}
}

// readKeys checks what is stored under idempotency keys.
func (c *check) readKeys(ctx context.Context) error {
	type twice struct {
		Order string
		Key   string
		N     int
	}
	again, err := all[twice](ctx, c.db[orderDB], `SELECT min(order_id), key, count(*) FROM orders WHERE key IS NOT NULL GROUP BY tenant, customer, key HAVING count(*) > 1`)
	if err != nil {
		return err
	}
	for _, x := range again {
		c.found.broken("I-IDEM-1", x.Order, "%d orders were made under key %s", x.N, x.Key)
	}
	var made int64
	if err := c.db[orderDB].tx.QueryRow(ctx, `SELECT count(*) FROM orders WHERE key IS NOT NULL`).Scan(&made); err != nil {
		return err
	}
	c.found.looked("I-IDEM-1", made)
	// A stored 2xx about an order has its effect.
	effects := map[string]string{
		paymentDB:   `SELECT FROM payments e WHERE e.order_id = k.about`,
		shippingDB:  `SELECT FROM shipments e WHERE e.order_id = k.about`,
		inventoryDB: `SELECT FROM reservations e WHERE e.order_id = k.about`,
		orderDB:     `SELECT FROM orders e WHERE e.order_id = k.about`,
	}
	type stored struct {
		Route, Key string
		Status     int
		About      *string
		Effect     bool
	}
	for _, name := range databaseNames {
		effect := effects[name]
		if effect == "" {
			effect = `SELECT`
		}
		var has bool
		if err := c.db[name].tx.QueryRow(ctx, `SELECT to_regclass('idempotency_keys') IS NOT NULL`).Scan(&has); err != nil || !has {
			return err
		}
		err := each(ctx, c.db[name], func(s *stored) error {
			c.counts["idempotency.keys"]++
			definite := s.Status >= 200 && s.Status < 500
			switch s.Status {
			case 400, 401, 403, 408, 413, 415, 422, 425, 429:
				definite = false // nothing was executed, so nothing may be replayed
			}
			c.found.expect(definite, "I-IDEM-2", "", "%s keeps a %d under key %s of %s", name, s.Status, s.Key, s.Route)
			if s.About != nil && s.Status < 300 {
				c.found.expect(s.Effect, "I-IDEM-1", *s.About, "%s answered %s with %d under key %s, and there is no effect", name, s.Route, s.Status, s.Key)
			}
			return nil
		}, `SELECT k.route, k.key, k.status, k.about, EXISTS (`+effect+`) FROM (
			SELECT route, key, status, CASE WHEN content_type LIKE 'application/json%' AND status < 300 THEN convert_from(body, 'UTF8')::jsonb->>'order_id' END AS about
			FROM idempotency_keys) k`)
		if err != nil {
			return err
		}
	}
	// Each restock and each stock-take needs a key, so there are as many effects as keys, since the oldest key that is kept.
	for _, x := range []struct{ route, effects string }{
		{"%/inventory/restock", `SELECT count(*) FROM stock_ledger, oldest WHERE op = 'restocked' AND document LIKE 'restock:%' AND at >= first`},
		{"%/inventory/stocktakes", `SELECT count(*) FROM stocktakes, oldest WHERE booked_at >= first`},
	} {
		var keys, done int64
		err := c.db[inventoryDB].tx.QueryRow(ctx, `WITH oldest AS (SELECT count(*) AS keys, min(stored_at) AS first FROM idempotency_keys WHERE route LIKE $1 AND status < 300)
			SELECT keys, (`+x.effects+`) FROM oldest`, x.route).Scan(&keys, &done)
		if err != nil {
			return err
		}
		c.found.looked("I-IDEM-1", keys)
		if keys != done {
			c.found.broken("I-IDEM-1", "", "%d keys of %s were answered, and it was done %d times", keys, x.route[1:], done)
		}
	}
	return nil
}
