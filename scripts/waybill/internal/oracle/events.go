package oracle

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/outbox"
	"github.com/waybill-dev/waybill/libs/stream"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
)

// writer is who writes a topic: the one database whose outbox feeds it.
type writer struct {
	topic, database string
	// rows lists the aggregates with the last sequence that their rows know.
	rows []string
}

// source is what the events of a topic name as theirs.
func (w writer) source() string { return "/waybill/" + w.database }

var writers = []writer{
	{event.Orders, orderDB, []string{`SELECT order_id, event_seq FROM orders`}},
	{event.Payments, paymentDB, []string{`SELECT order_id, event_seq FROM payments`}},
	{event.Inventory, inventoryDB, []string{`SELECT order_id, event_seq FROM reservations WHERE event_seq > 0`,
		`SELECT 'stock:' || tenant || ':' || product_id, event_seq FROM products WHERE event_seq > 0`}},
	{event.Shipping, shippingDB, []string{`SELECT order_id, event_seq FROM orders WHERE event_seq > 0`}},
}

// consumers are the groups with an inbox, and whose database it is in. They are bits of subject.applied. The unordered ones
// keep no sequences (ADR 0010): I-AN-1 and I-NOT-1 compare their effects with the events.
var consumers = []struct {
	group, database string
	unordered       bool
}{
	{"order-service", orderDB, false}, {"payment-service", paymentDB, false}, {"inventory-service", inventoryDB, false},
	{"shipping-service", shippingDB, false}, {"analytics-service", analyticsDB, true}, {"notification-service", notificationDB, true},
}

// cell is one event of a subject: what was found of it where. 0 says that it was not found.
type cell struct {
	outbox, kafka uint64 // fingerprints of the whole event
	id            uint64 // its id's random part
	tells         bool   // it owes the customer a message
}

// subject is what one topic holds about one thing. With its key and three events it takes some 250 bytes.
type subject struct {
	partition int32
	last      int64 // highest sequence of the topic so far
	row       bool  // it has a row
	applied   uint8 // the consumers that know it
	cells     []cell
}

// maxSeq bounds what a damaged sequence can cost in memory.
const maxSeq = 1 << 20

func (s *subject) cell(seq int64) *cell {
	for int64(len(s.cells)) < seq {
		s.cells = append(s.cells, cell{})
	}
	return &s.cells[seq-1]
}

// fingerprint names an event with everything in it. 0 is left free.
func (c *check) fingerprint(e *event.Event) uint64 {
	b := append(c.scratch[:0], e.ID[:]...)
	b = binary.AppendVarint(b, e.Seq)
	b = binary.AppendVarint(b, e.Tenant)
	b = binary.AppendVarint(b, e.Time.UnixNano())
	b = binary.AppendVarint(b, e.Cause.UnixNano())
	for _, s := range []string{string(e.Type), e.Subject, e.Traceparent} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	b = append(b, e.Data...)
	c.scratch = b
	return max(maphash.Bytes(c.seed, b), 1)
}

// tail is the random part of a UUIDv7, as far as 64 bits go.
func tail(id uuid.UUID) uint64 { return binary.BigEndian.Uint64(id[8:]) }

// day is where analytics counts an event.
type day struct {
	tenant int64
	date   string
}

// tally counts events and adds up their ids, so that one can be compared with another set without keeping either.
type tally struct {
	n   int64
	sum int64 // of the last 48 bits of each id, modulo 2^48: 65,000 events of a day would not fit otherwise
}

func (t *tally) add(id uuid.UUID) {
	t.n++
	t.sum = (t.sum + int64(binary.BigEndian.Uint64(id[8:])&(1<<48-1))) & (1<<48 - 1)
}

// topic compares one topic with the outbox that feeds it, with the aggregates' rows, and with the inboxes that read it.
type topic struct {
	*check
	writer
	subjects map[string]*subject
	oldest   time.Time // events before this may have left the outbox
	cut      bool      // the topic has lost its oldest records by retention
	begin    string    // the day of the first event that is left
}

func (c *check) checkTopic(ctx context.Context, w writer) error {
	t := &topic{check: c, writer: w, subjects: map[string]*subject{}}
	for _, s := range c.spans[w.topic] {
		t.cut = t.cut || s.start > 0
	}
	for _, step := range []func(context.Context) error{t.readOutbox, t.readKafka, t.compare, t.readRows, t.readInboxes} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if t.cut {
		c.countFrom = max(c.countFrom, t.begin+"~") // the days after it are whole
	}
	if w.topic == event.Orders {
		return t.readNotices(ctx)
	}
	return nil
}

func (t *topic) subject(id string) *subject {
	s := t.subjects[id]
	if s == nil {
		s = &subject{partition: -1}
		t.subjects[strings.Clone(id)] = s
	}
	return s
}

// kept is how long the outbox keeps what was published, and slack how much earlier than its event a transaction may begin.
const kept, slack = 72 * time.Hour, 10 * time.Minute

type outboxRow struct {
	ID          int64
	Body        []byte
	Unpublished bool
}

func (t *topic) readOutbox(ctx context.Context) error {
	d := t.db[t.database]
	// Partitions are named after the hour that they begin with. A platform younger than what is kept has lost none.
	var first *string
	err := d.tx.QueryRow(ctx, `SELECT min(c.relname::text) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'outbox'::regclass AND c.relname LIKE 'outbox\_p%'`).Scan(&first)
	if err != nil {
		return fmt.Errorf("read database %s: %w", d.name, err)
	}
	if first != nil {
		if h, err := time.Parse("outbox_p2006010215", *first); err == nil && t.now.Sub(h) > kept {
			t.oldest = h.Add(slack)
		}
	}
	return each(ctx, d, func(r *outboxRow) error {
		events, err := outbox.Unpack(r.Body)
		if err != nil {
			t.found.broken("I-EVT-1", "", "row %d of the outbox of %s: %v", r.ID, t.database, err)
			return nil
		}
		for i := range events {
			e := &events[i]
			e.Source = t.source()
			t.found.looked("I-EVT-1", 1)
			t.counts["outbox.events"]++
			if r.Unpublished {
				t.found.broken("I-EVT-1", e.Subject, "%s, sequence %d, was not published (row %d of the outbox of %s)", e.Type, e.Seq, r.ID, t.database)
			}
			if e.Type.Topic() != t.writer.topic || e.Seq < 1 || e.Seq > maxSeq {
				t.found.broken("I-EVT-1", e.Subject, "%s, sequence %d, does not belong into the outbox of %s", e.Type, e.Seq, t.database)
				continue
			}
			c := t.subject(e.Subject).cell(e.Seq)
			if c.outbox != 0 {
				t.found.broken("I-EVT-1", e.Subject, "sequence %d was given twice by %s, the second time to %s %s", e.Seq, t.database, e.Type, e.ID)
				continue
			}
			c.outbox = t.fingerprint(e)
		}
		return nil
	}, `SELECT id, body, published_at IS NULL FROM outbox ORDER BY id`)
}

func (t *topic) readKafka(ctx context.Context) error {
	return t.readTopic(ctx, t.writer.topic, func(m stream.Message) error {
		t.counts["kafka.records"]++
		t.found.looked("I-EVT-2", 1)
		e, err := stream.DecodeMessage(m)
		if err != nil || e.Seq > maxSeq {
			t.letters(m)
			return nil
		}
		if e.Source != t.source() || e.Type.Topic() != t.writer.topic {
			t.found.broken("I-EVT-2", e.Subject, "%s of %s does not belong on topic %s (%d@%d)", e.Type, e.Source, m.Topic, m.Partition, m.Offset)
			return nil
		}
		s := t.subject(e.Subject)
		c := s.cell(e.Seq)
		print := t.fingerprint(&e)
		switch {
		case s.partition == -1:
			s.partition = m.Partition
		case s.partition != m.Partition:
			t.found.broken("I-EVT-3", e.Subject, "topic %s has it in partitions %d and %d", m.Topic, s.partition, m.Partition)
		}
		t.found.looked("I-EVT-3", 1)
		if c.kafka != 0 {
			t.counts["kafka.duplicates"]++
			t.found.expect(c.kafka == print, "I-EVT-7", e.Subject, "sequence %d on topic %s is %s %s, and was another event before (%d@%d)",
				e.Seq, m.Topic, e.Type, e.ID, m.Partition, m.Offset)
			return nil
		}
		c.kafka, c.id = print, tail(e.ID)
		if e.Seq != s.last+1 && (s.last > 0 || !t.cut) {
			t.found.broken("I-EVT-3", e.Subject, "topic %s has sequence %d after %d (%d@%d)", m.Topic, e.Seq, s.last, m.Partition, m.Offset)
		}
		s.last = max(s.last, e.Seq)
		if c.outbox == 0 && e.Time.After(t.oldest) {
			t.found.broken("I-EVT-2", e.Subject, "%s %s, sequence %d, is on topic %s and in no outbox (%d@%d)", e.Type, e.ID, e.Seq, m.Topic, m.Partition, m.Offset)
		} else if c.outbox != 0 && c.outbox != print {
			t.found.broken("I-EVT-2", e.Subject, "%s %s, sequence %d, on topic %s is not what the outbox has (%d@%d)", e.Type, e.ID, e.Seq, m.Topic, m.Partition, m.Offset)
		}
		if t.writer.topic == event.Orders {
			if c.tells, err = tells(e); err != nil {
				t.found.broken("I-EVT-2", e.Subject, "%v", err)
			}
			c.tells = c.tells && !t.unapplied[letter{"notification-service", m.Topic, m.Partition, m.Offset}]
		}
		if t.unapplied[letter{"analytics-service", m.Topic, m.Partition, m.Offset}] {
			return nil
		}
		k := day{e.Tenant, e.Time.UTC().Format(time.DateOnly)}
		if t.days[k] == nil {
			t.days[k] = &tally{}
		}
		t.days[k].add(e.ID)
		if t.begin == "" || k.date < t.begin {
			t.begin = k.date
		}
		return nil
	})
}

// letters says that a record which is no event must be a dead letter of everybody who reads the topic.
func (t *topic) letters(m stream.Message) {
	t.counts["kafka.unreadable"]++
	for _, c := range consumers {
		if reads(c.group, t.writer.topic) {
			t.found.expect(t.dead[letter{c.group, m.Topic, m.Partition, m.Offset}], "I-DLQ-1", string(m.Key),
				"the record %s %d@%d is no event, and %s has no dead letter of it", m.Topic, m.Partition, m.Offset, c.group)
		}
	}
}

func reads(group, topic string) bool {
	for _, t := range readers[group] {
		if t == topic {
			return true
		}
	}
	return false
}

// tells says whether an event owes the customer a message: all that SPEC has somebody told about, where there is an address.
func tells(e event.Event) (bool, error) {
	switch e.Type {
	case event.OrderPaymentProcessed: // without items the order is complete in the same moment
		var m orderv1.OrderPaymentProcessed
		err := e.Decode(&m)
		return m.Email != "" && len(m.Items) > 0, err
	case event.OrderRefundRequested: // a repeated refund is the platform's own affair
		var m orderv1.OrderRefundRequested
		err := e.Decode(&m)
		return m.Email != "" && m.Attempt <= 1, err
	case event.OrderShippingRequested:
		var m orderv1.OrderShippingRequested
		err := e.Decode(&m)
		return m.Email != "", err
	case event.OrderCompleted:
		var m orderv1.OrderCompleted
		err := e.Decode(&m)
		return m.Email != "", err
	case event.OrderFailed:
		var m orderv1.OrderFailed
		err := e.Decode(&m)
		return m.Email != "", err
	case event.OrderCancelled:
		var m orderv1.OrderCancelled
		err := e.Decode(&m)
		return m.Email != "", err
	case event.OrderAttention:
		var m orderv1.OrderAttention
		err := e.Decode(&m)
		return m.Email != "", err
	}
	return false, nil
}

// compare looks at each sequence: without a gap, and on the topic where it was in the outbox.
func (t *topic) compare(context.Context) error {
	for id, s := range t.subjects {
		first := true // what retention took lies before the first that is left
		for i, c := range s.cells {
			switch {
			case c.outbox == 0 && c.kafka == 0:
				if !first || (t.oldest.IsZero() && !t.cut) {
					t.found.broken("I-EVT-1", id, "sequence %d of %s is missing: the last is %d", i+1, t.database, len(s.cells))
				}
				continue
			case c.outbox == 0 && t.oldest.IsZero():
				t.found.broken("I-EVT-1", id, "sequence %d of %s is not in its outbox: the last is %d", i+1, t.database, len(s.cells))
			case c.kafka == 0 && (!t.cut || !first):
				t.found.broken("I-EVT-2", id, "sequence %d of %s is in its outbox and not on topic %s", i+1, t.database, t.writer.topic)
			}
			first = false
		}
	}
	return nil
}

type aggregate struct {
	ID  string
	Seq int64
}

// readRows compares the last sequence with what the aggregate's own row says.
func (t *topic) readRows(ctx context.Context) error {
	for _, sql := range t.rows {
		err := each(ctx, t.db[t.database], func(a *aggregate) error {
			s := t.subjects[a.ID]
			if s == nil {
				t.found.expect(t.cut || !t.oldest.IsZero(), "I-EVT-1", a.ID, "%s says that it has published up to sequence %d, and nothing is there", t.database, a.Seq)
				return nil
			}
			s.row = true
			t.found.expect(a.Seq == int64(len(s.cells)), "I-EVT-1", a.ID, "%s says that it has published up to sequence %d, and there are %d", t.database, a.Seq, len(s.cells))
			return nil
		}, sql)
		if err != nil {
			return err
		}
	}
	for id, s := range t.subjects {
		if !s.row {
			t.found.broken("I-EVT-1", id, "%s has published %d events about it and has no row of it", t.database, len(s.cells))
		}
	}
	return nil
}

type applied struct {
	Subject string
	Last    int64
}

// readInboxes compares what was written with what each consumer has applied.
func (t *topic) readInboxes(ctx context.Context) error {
	for bit, c := range consumers {
		if c.unordered || !reads(c.group, t.writer.topic) {
			continue
		}
		known := 0
		err := each(ctx, t.db[c.database], func(a *applied) error {
			s := t.subjects[a.Subject]
			if s == nil {
				t.found.expect(t.cut, "I-EVT-4", a.Subject, "%s has applied up to sequence %d of %s, which was never written", c.group, a.Last, t.database)
				return nil
			}
			known++
			s.applied |= 1 << bit
			t.behind(c.group, c.database, a.Subject, s, a.Last)
			return nil
		}, `SELECT subject, last_seq FROM inbox WHERE grp = '`+c.group+`' AND source = '`+t.source()+`'`)
		if err != nil {
			return err
		}
		if known == len(t.subjects) {
			continue
		}
		for id, s := range t.subjects {
			if s.applied&(1<<bit) == 0 {
				t.behind(c.group, c.database, id, s, 0)
			}
		}
	}
	return nil
}

// behind checks the last sequence that a consumer has applied of a subject. What is missing must be parked.
func (t *topic) behind(group, database, id string, s *subject, last int64) {
	written := s.last
	parked := t.parked[key{database, group, t.source(), id}]
	if last < written && parked != nil {
		for seq := last + 1; seq <= written; seq++ {
			if parked.gap && !parked.seqs[seq] && seq < parked.first {
				continue // what it waits for
			}
			t.found.expect(parked.seqs[seq], "I-EVT-4", id, "%s is parked at sequence %d of %s, and sequence %d is neither applied nor parked", group, last, t.database, seq)
		}
		return
	}
	t.found.expect(last == written, "I-EVT-4", id, "%s has applied up to sequence %d of %s, and %d were written", group, last, t.database, written)
}

type notice struct {
	ID       uuid.UUID
	Channel  string
	Order    string
	Seq      int64
	Kind     string
	Status   string
	Finished *time.Time
}

// readNotices compares the messages to customers with the events that owe one, and with what the mail server took.
func (t *topic) readNotices(ctx context.Context) error {
	type told struct {
		subject string
		seq     int64
		channel string
	}
	var before told
	known := map[string]bool{} // messages of the mail server that somebody has sent
	err := each(ctx, t.db[notificationDB], func(n *notice) error {
		s := t.subjects[n.Order]
		now := told{n.Order, n.Seq, n.Channel}
		if now == before {
			t.found.broken("I-NOT-1", n.Order, "two messages about sequence %d over %s", n.Seq, n.Channel)
		}
		before = now
		switch {
		case s == nil || n.Seq < 1 || n.Seq > int64(len(s.cells)):
			t.found.expect(t.cut, "I-NOT-1", n.Order, "a message (%s) is about sequence %d, which was never written", n.Kind, n.Seq)
			return nil
		case s.cells[n.Seq-1].id != tail(n.ID) && s.cells[n.Seq-1].kafka != 0:
			t.found.broken("I-NOT-1", n.Order, "a message (%s) is about event %s, which is not the order's sequence %d", n.Kind, n.ID, n.Seq)
		}
		s.cells[n.Seq-1].tells = false // as owed
		id := n.ID.String() + "." + n.Channel
		t.counts["notices."+n.Status]++
		if t.mailed[id] > 0 {
			known[id] = true // also one that was superseded: it may have been taken before its sender died
		}
		switch n.Status {
		case "sent":
			// A message is taken before it is marked: what was marked after the oldest that is left must be there.
			if t.mailFrom.IsZero() || n.Finished != nil && n.Finished.After(t.mailFrom.Add(time.Minute)) {
				t.found.expect(t.mailed[id] > 0, "I-NOT-1", n.Order, "the message %s (%s) is marked as sent, and the mail server does not have it", id, n.Kind)
			}
		case "pending":
			t.found.broken("I-NOT-1", n.Order, "the message %s (%s) still waits to be sent", id, n.Kind)
		case "failed":
			t.found.expect(t.tickets[ticket{notificationDB, "mail_undelivered", n.Order}] != "", "I-NOT-1", n.Order, "the message %s (%s) was given up without an intervention", id, n.Kind)
		}
		return nil
	}, `SELECT event_id, channel, order_id, seq, kind, status, finished_at FROM notices ORDER BY order_id COLLATE "C", seq, channel`)
	if err != nil {
		return err
	}
	for id, s := range t.subjects {
		for i, c := range s.cells {
			if c.tells {
				t.found.broken("I-NOT-1", id, "there is no message about sequence %d", i+1)
			}
		}
	}
	for id, n := range t.mailed {
		t.found.expect(known[id], "I-NOT-1", "", "the mail server has the message %s, which nobody sent", id)
		if n > 1 {
			t.counts["mail.duplicates"] += int64(n - 1) // SMTP cannot do better; both copies have one id
		}
	}
	return nil
}
