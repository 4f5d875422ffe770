package oracle

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/history"
)

// corruption is a way in which a platform could have gone wrong, and the invariant that is meant to notice.
type corruption struct {
	what  string
	want  string
	spoil func(*victim) (*spoiler, error)
}

// corruptions has at least one for every invariant, each as small as it can be.
var corruptions = []corruption{
	{"the provider captured an order twice", "I-PAY-2", entries(completed, func(e Entry) []Entry {
		again := e
		again.Key += ":again"
		return []Entry{e, again}
	})},
	{"the provider never gave the money of a cancelled order back", "I-PAY-1", entries(refunded, func(e Entry) []Entry {
		if e.Kind == "refund" {
			return nil
		}
		return []Entry{e}
	})},
	{"money was captured for an order that does not exist", "I-PAY-1", entries(completed, func(e Entry) []Entry {
		phantom := e
		phantom.OrderID, phantom.Key = "o-phantom", "o-phantom:charge"
		return []Entry{e, phantom}
	})},
	{"a delivered order was never charged", "I-PAY-4", entries(completed, func(e Entry) []Entry { return nil })},
	{"our ledger has another amount than the provider", "I-PAY-4", sql(paymentDB, completed,
		`UPDATE ledger_entries SET debit = debit + CASE WHEN debit > 0 THEN 1 ELSE 0 END, credit = credit + CASE WHEN credit > 0 THEN 1 ELSE 0 END WHERE order_id = $id`)},
	{"one side of a booking has another amount", "I-PAY-5", sql(paymentDB, completed,
		`UPDATE ledger_entries SET credit = credit + 1 WHERE order_id = $id AND kind = 'capture' AND account = 'orders'`)},
	{"one side of a booking is missing", "I-PAY-5", sql(paymentDB, completed,
		`DELETE FROM ledger_entries WHERE order_id = $id AND kind = 'capture' AND account = 'orders'`)},
	{"the ledger can be changed", "I-PAY-5", sql(paymentDB, anything, `ALTER TABLE ledger_entries DISABLE TRIGGER ledger_append_only`)},
	{"the payment of a cancelled order is captured still", "I-PAY-3", sql(paymentDB, refunded,
		`UPDATE payments SET status = 'captured', refunded = 0 WHERE order_id = $id`)},
	{"a charge has no outcome", "I-PAY-6", sql(paymentDB, completed,
		`UPDATE payments SET status = 'unknown', sent = true, due_at = now() + interval '1 min', finished_at = NULL WHERE order_id = $id`)},

	{"stock is below zero", "I-STOCK-1", sql(inventoryDB, completed,
		`ALTER TABLE products DROP CONSTRAINT products_stock`, `UPDATE products SET on_hand = -1 WHERE `+itsProduct)},
	{"one piece is on hand that was never booked", "I-STOCK-1", sql(inventoryDB, completed, `UPDATE products SET on_hand = on_hand + 1 WHERE `+itsProduct)},
	{"a piece is reserved for nobody", "I-STOCK-2", sql(inventoryDB, completed,
		`ALTER TABLE products DROP CONSTRAINT products_stock`, `UPDATE products SET reserved = reserved + 1 WHERE `+itsProduct)},
	{"a reservation has one piece more than was sold", "I-STOCK-3", sql(inventoryDB, completed, `UPDATE reservations SET quantities[1] = quantities[1] + 1 WHERE order_id = $id`)},
	{"a sale was booked twice", "I-STOCK-4", sql(inventoryDB, completed, `DROP INDEX stock_ledger_once`,
		`INSERT INTO stock_ledger (tenant, product_id, order_id, op, delta, balance) SELECT tenant, product_id, order_id, op, delta, balance FROM stock_ledger WHERE order_id = $id`)},
	{"a sale is not in the ledger", "I-STOCK-3", sql(inventoryDB, completed, `DELETE FROM stock_ledger WHERE order_id = $id`)},
	{"a hold was never given up", "I-STOCK-5", sql(inventoryDB, completed,
		`INSERT INTO reservations (order_id, tenant, state, product_ids, quantities, due_at) SELECT 'o-held', tenant, 'HELD', product_ids, quantities, now() - interval '1 hour' FROM reservations WHERE order_id = $id`)},
	{"stock is pinned for an order that does not exist", "I-STOCK-5", sql(inventoryDB, completed,
		`INSERT INTO reservations (order_id, tenant, state, product_ids, quantities, due_at) SELECT 'o-pinned', tenant, 'PINNED', product_ids, quantities, now() + interval '1 hour' FROM reservations WHERE order_id = $id`)},

	{"an order never ended", "I-SAGA-1", sql(orderDB, completed, `UPDATE orders SET status = 'shipping', finished_at = NULL WHERE order_id = $id`)},
	{"a delivered order's stock was released", "I-SAGA-1", sql(inventoryDB, completed,
		`UPDATE reservations SET state = 'RELEASED', confirmed_at = NULL, closed_at = now() WHERE order_id = $id`, `DELETE FROM stock_ledger WHERE order_id = $id`)},
	{"nobody has a ticket for an order in attention", "I-SAGA-1", sql(orderDB, attention, `DELETE FROM raised_interventions WHERE subject = $id`)},
	{"a timeline jumps", "I-SAGA-2", sql(orderDB, completed, `DELETE FROM order_history WHERE order_id = $id AND status IN ('paying', 'paid')`)},
	{"an order is not where its timeline ends", "I-SAGA-2", sql(orderDB, completed, `UPDATE orders SET status = 'cancelled', reason = 'customer_request' WHERE order_id = $id`)},
	{"an order was made twice", "I-SAGA-2", sql(orderDB, completed,
		`INSERT INTO order_history (order_id, at, event, status) SELECT order_id, now(), event, 'completed' FROM order_history WHERE order_id = $id AND event = 'order.created'`)},
	{"an acknowledged order is lost", "I-SAGA-3", clients(func(*victim) history.Op {
		return history.Op{Op: history.Create, ID: "o-lost", Sent: "0", Type: history.OK, Status: 202}
	})},
	{"an order is not the one that was acknowledged", "I-SAGA-3", sql(orderDB, completed, `UPDATE orders SET quantities[1] = quantities[1] + 1 WHERE order_id = $id`)},
	{"an order exists that nobody asked for", "I-SAGA-4", sql(orderDB, completed,
		`INSERT INTO orders SELECT event_seq, finished_at, shipment, refund, status, reason, cause, goods, tenant, amount, now() + interval '1 min', deadline_at, 'o-phantom', customer,
			currency, method, email, product_ids, quantities, address, traceparent, key, fingerprint FROM orders WHERE order_id = $id`)},
	{"a reader saw an order go back in time", "I-SAGA-5", clients(func(v *victim) history.Op {
		return history.Op{Op: history.Get, ID: v.completed, Session: "1", Seen: 5, Type: history.OK, Status: 200}
	}, func(v *victim) history.Op {
		return history.Op{Op: history.Get, ID: v.completed, Session: "1", Seen: 3, Type: history.OK, Status: 200}
	})},

	{"the carrier took a parcel twice", "I-ADDR", parcels(func(e Entry) []Entry {
		if e.Kind == "ship" {
			return []Entry{e, e}
		}
		return []Entry{e}
	})},
	{"a parcel is on its way that nobody shipped", "I-ADDR", sql(shippingDB, completed, `DELETE FROM shipments WHERE order_id = $id`)},
	{"goods were sent without an address", "I-ADDR", sql(orderDB, completed, `ALTER TABLE orders DROP CONSTRAINT orders_address`, `UPDATE orders SET address = NULL WHERE order_id = $id`)},

	{"a row of an outbox was dropped", "I-EVT-1", sql(orderDB, anything, `DELETE FROM outbox WHERE id = (SELECT min(id) FROM outbox)`)},
	{"a row of an outbox was never published", "I-EVT-1", sql(paymentDB, anything, `UPDATE outbox SET published_at = NULL WHERE id = (SELECT max(id) FROM outbox)`)},
	{"a sequence was given twice", "I-EVT-1", sql(inventoryDB, anything, `INSERT INTO outbox (events, body, published_at) SELECT events, body, now() FROM outbox WHERE id = (SELECT max(id) FROM outbox)`)},
	{"an order was changed without an event", "I-EVT-1", sql(orderDB, completed, `UPDATE orders SET event_seq = event_seq + 1 WHERE order_id = $id`)},
	{"a record is not on its topic", "I-EVT-2", records(event.Payments, event.PaymentProcessed, func(m stream.Message) []stream.Message { return nil })},
	{"an event was written that no outbox has", "I-EVT-2", records(event.Shipping, event.ShippingCompleted, func(m stream.Message) []stream.Message {
		leaked := header(m, "ce_aggregateseq", func(v string) string {
			n, _ := strconv.Atoi(v)
			return strconv.Itoa(n + 1)
		})
		return []stream.Message{m, header(leaked, "ce_id", func(string) string { return uuid.Must(uuid.NewV7()).String() })}
	})},
	{"an event says something else on its topic", "I-EVT-2", records(event.Orders, event.OrderCompleted, func(m stream.Message) []stream.Message {
		m.Value = append(slices.Clone(m.Value), 0x7a, 0x01, 'x') // an unknown field
		return []stream.Message{m}
	})},
	{"two records stand in the wrong order", "I-EVT-3", records(event.Orders, event.OrderCreated, nil)},
	{"an aggregate has records in two partitions", "I-EVT-3", records(event.Orders, event.OrderCompleted, func(m stream.Message) []stream.Message {
		m.Partition++
		return []stream.Message{m}
	})},
	{"a reader has lost what it had applied", "I-EVT-4", sql(shippingDB, completed, `DELETE FROM inbox WHERE subject = $id`)},
	{"a reader has missed an order's last event", "I-EVT-4", sql(paymentDB, completed, `UPDATE inbox SET last_seq = last_seq - 1, was_seq = 0 WHERE subject = $id AND source = '/waybill/order'`)},
	{"a reader has applied what was never written", "I-EVT-4", sql(inventoryDB, completed, `UPDATE inbox SET last_seq = last_seq + 1 WHERE subject = $id AND source = '/waybill/order'`)},
	{"a reader has not committed what there is", "I-EVT-6", func(*victim) (*spoiler, error) {
		return &spoiler{behind: map[string]int64{"order-service on payments": 1}}, nil
	}},
	{"another event came under a sequence that was there", "I-EVT-7", records(event.Orders, event.OrderCompleted, func(m stream.Message) []stream.Message {
		return []stream.Message{m, header(m, "ce_id", func(string) string { return uuid.Must(uuid.NewV7()).String() })}
	})},

	{"two orders were made under one key", "I-IDEM-1", sql(orderDB, completed, `DROP INDEX orders_key`,
		`UPDATE orders SET key = 'k', tenant = 1, customer = 'c' WHERE order_id IN ($id, $other)`)},
	{"a key was answered differently the second time", "I-IDEM-1", clients(func(v *victim) history.Op {
		return history.Op{Op: history.Cancel, ID: v.refunded, Key: "k", Caller: "1/c", BodyHash: "1", Type: history.OK, Status: 202}
	}, func(v *victim) history.Op {
		return history.Op{Op: history.Cancel, ID: v.refunded, Key: "k", Caller: "1/c", BodyHash: "2", Type: history.OK, Status: 202}
	})},
	{"a payment was acknowledged and not made", "I-IDEM-1", sql(paymentDB, anything,
		`INSERT INTO idempotency_keys (caller, route, key, fingerprint, status, content_type, location, body)
			VALUES ('1/c', 'POST /payments', 'k', decode(repeat('00', 32), 'hex'), 202, 'application/json', '', convert_to('{"order_id":"o-unmade"}', 'UTF8'))`)},
	{"a failure of ours is kept under a key", "I-IDEM-2", sql(shippingDB, anything,
		`INSERT INTO idempotency_keys (caller, route, key, fingerprint, status, content_type, location, body)
			VALUES ('1/c', 'POST /shipping', 'k', decode(repeat('00', 32), 'hex'), 503, 'application/problem+json', '', '')`)},

	{"an event is parked and its key is not", "I-DLQ-1", sql(paymentDB, completed,
		`INSERT INTO parked_events (grp, source, subject, seq, event_id, type, tenant, at, traceparent, data)
			VALUES ('payment-service', '/waybill/order', $id, 99, gen_random_uuid(), 'order.completed', 1, now(), '', '')`)},
	{"a parked key has passed what it waits with", "I-DLQ-1", sql(paymentDB, completed,
		`INSERT INTO parked_keys (id, grp, source, subject, kind, type, tenant, reason, traceparent)
			VALUES (gen_random_uuid(), 'payment-service', '/waybill/order', $id, 'poison', 'order.created', 1, '', '')`,
		`INSERT INTO parked_events (grp, source, subject, seq, event_id, type, tenant, at, traceparent, data)
			VALUES ('payment-service', '/waybill/order', $id, 1, gen_random_uuid(), 'order.created', 1, now(), '', '')`)},
	{"a dead letter was closed by nobody", "I-DLQ-1", sql(orderDB, anything,
		`INSERT INTO dead_letters (id, grp, topic, part, "offset", at, headers, reason, status, closed_at)
			VALUES (gen_random_uuid(), 'order-service', 'payments', 0, 1000000, now(), '[]', '', 'discarded', now())`)},
	{"a record that is no event is no dead letter", "I-DLQ-1", records(event.Shipping, event.ShippingCompleted, func(m stream.Message) []stream.Message {
		junk := m
		junk.Headers, junk.Offset = nil, 1<<40
		return []stream.Message{m, junk}
	})},

	{"analytics has lost an event", "I-AN-1", sql(analyticsDB, completed,
		`DELETE FROM events WHERE event_id = (SELECT min(event_id::text)::uuid FROM events WHERE payload->>'subject' = $id)`)},
	{"analytics has counted an event twice", "I-AN-1", sql(analyticsDB, completed,
		`INSERT INTO events SELECT tenant_id, created_at, gen_random_uuid(), processing_time, payload FROM events WHERE payload->>'subject' = $id AND payload->>'type' = 'order.created'`)},

	{"a mail never came", "I-NOT-1", mails(func(m Mail) []Mail { return nil })},
	{"a mail came twice, under another name", "I-NOT-1", mails(func(m Mail) []Mail {
		again := m
		again.MessageID = uuid.Must(uuid.NewV7()).String() + ".email@example.com"
		return []Mail{m, again}
	})},
	{"a customer was never told", "I-NOT-1", sql(notificationDB, completed, `DELETE FROM notices WHERE order_id = $id AND kind = 'completed'`)},
	{"a mail still waits", "I-NOT-1", sql(notificationDB, completed,
		`UPDATE notices SET status = 'pending', due_at = now() + interval '1 hour', finished_at = NULL, recipient = 'a@example.com' WHERE order_id = $id AND kind = 'completed'`)},
}

// itsProduct is the first product of an order, in inventory's database.
const itsProduct = `(tenant, product_id) = (SELECT tenant, product_ids[1] FROM reservations WHERE order_id = $id)`

// pick chooses the order that is corrupted.
type pick func(*victim) string

func completed(v *victim) string { return v.completed }
func refunded(v *victim) string  { return v.refunded }
func attention(v *victim) string { return v.attention }
func anything(*victim) string    { return "-" }

// sql changes a database.
func sql(database string, which pick, statements ...string) func(*victim) (*spoiler, error) {
	return func(v *victim) (*spoiler, error) {
		id := which(v)
		if id == "" {
			return nil, errNoVictim
		}
		s := &spoiler{sql: map[string][]string{}}
		for _, text := range statements {
			if strings.Contains(text, "$other") && v.other == "" {
				return nil, errNoVictim
			}
			// Order ids have no character that SQL would mind.
			text = strings.ReplaceAll(strings.ReplaceAll(text, "$id", "'"+id+"'"), "$other", "'"+v.other+"'")
			s.sql[database] = append(s.sql[database], text)
		}
		return s, nil
	}
}

// entries changes what the provider did with an order's money.
func entries(which pick, change func(Entry) []Entry) func(*victim) (*spoiler, error) {
	return facts(which, change, "capture", "refund")
}

// parcels changes what the carrier did with an order.
func parcels(change func(Entry) []Entry) func(*victim) (*spoiler, error) {
	return facts(completed, change, "ship", "deliver", "ship_failed")
}

func facts(which pick, change func(Entry) []Entry, kinds ...string) func(*victim) (*spoiler, error) {
	return func(v *victim) (*spoiler, error) {
		id := which(v)
		if id == "" {
			return nil, errNoVictim
		}
		return &spoiler{entries: func(e Entry) []Entry {
			if e.OrderID != id || !slices.Contains(kinds, e.Kind) {
				return []Entry{e}
			}
			return change(e)
		}}, nil
	}
}

// mails changes what the mail server took for an order.
func mails(change func(Mail) []Mail) func(*victim) (*spoiler, error) {
	return func(v *victim) (*spoiler, error) {
		if v.completed == "" {
			return nil, errNoVictim
		}
		return &spoiler{mails: func(m Mail) []Mail {
			if !strings.Contains(m.Subject, v.completed+" is complete") {
				return []Mail{m}
			}
			return change(m)
		}}, nil
	}
}

// clients adds to what clients were told.
func clients(ops ...func(*victim) history.Op) func(*victim) (*spoiler, error) {
	return func(v *victim) (*spoiler, error) {
		s := &spoiler{}
		for _, op := range ops {
			x := op(v)
			if x.ID == "" {
				return nil, errNoVictim
			}
			x.Invoke, x.Done = time.Now(), time.Now()
			s.told = append(s.told, x)
		}
		return s, nil
	}
}

// records changes the record of one event of the completed order. Without a change it is held back until the order's next
// record has passed.
func records(topic string, typ event.Type, change func(stream.Message) []stream.Message) func(*victim) (*spoiler, error) {
	return func(v *victim) (*spoiler, error) {
		if v.completed == "" {
			return nil, errNoVictim
		}
		var held *stream.Message
		return &spoiler{records: func(m stream.Message) []stream.Message {
			switch {
			case m.Topic != topic || string(m.Key) != v.completed:
				return []stream.Message{m}
			case held != nil:
				both := []stream.Message{m, *held}
				held = nil
				return both
			case !slices.ContainsFunc(m.Headers, func(h stream.Header) bool { return h.Key == "ce_type" && string(h.Value) == string(typ) }):
				return []stream.Message{m}
			case change == nil:
				held = &m
				return nil
			}
			return change(m)
		}}, nil
	}
}

// header is a copy of a record with another value of a header.
func header(m stream.Message, name string, change func(string) string) stream.Message {
	m.Headers = slices.Clone(m.Headers)
	for i, h := range m.Headers {
		if h.Key == name {
			m.Headers[i].Value = []byte(change(string(h.Value)))
		}
	}
	return m
}
