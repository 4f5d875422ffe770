package oracle

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Entry is a fact of the sandbox's ledger: what provider and carrier really did.
type Entry struct {
	Seq      int64     `json:"seq"`
	At       time.Time `json:"at"`
	Kind     string    `json:"kind"`
	Key      string    `json:"key"`
	OrderID  string    `json:"order_id"`
	Amount   int64     `json:"amount"`
	Currency string    `json:"currency"`
	ID       string    `json:"id"`
	Attempt  int       `json:"attempt"`
}

// Mail is a message that the sandbox took.
type Mail struct {
	Seq       int64     `json:"seq"`
	At        time.Time `json:"at"`
	To        []string  `json:"to"`
	Subject   string    `json:"subject"`
	MessageID string    `json:"message_id"`
}

// booked is what provider and carrier did for one order.
type booked struct {
	money   []Entry // captures and refunds
	parcels []Entry // ship, deliver, ship_failed
	seen    bool    // the order was met in a database
}

// listed reads one of the sandbox's lists from its beginning.
func listed[T any](ctx context.Context, base, path string, seq func(*T) int64, f func(T)) error {
	client := &http.Client{Timeout: asking}
	for after := int64(0); ; {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s%s?limit=1000&after=%d", base, path, after), nil)
		if err != nil {
			return fmt.Errorf("read the sandbox: %w", err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("read the sandbox: %w", err)
		}
		var out struct {
			Items []T
			Last  int64
		}
		err = json.NewDecoder(resp.Body).Decode(&out)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("read the sandbox's %s: %s %w", path, resp.Status, err)
		}
		for _, x := range out.Items {
			after = seq(&x)
			f(x)
		}
		if len(out.Items) == 0 || after >= out.Last {
			return nil
		}
	}
}

// readSandbox takes in the ledger and the mailbox. The ledger takes some 300 bytes an order; the mailbox keeps the last
// 10,000 messages.
func (c *check) readSandbox(ctx context.Context) error {
	c.books = map[string]*booked{}
	take := func(e Entry) {
		b := c.books[e.OrderID]
		if b == nil {
			b = &booked{}
			c.books[e.OrderID] = b
		}
		switch e.Kind {
		case "capture", "refund":
			b.money = append(b.money, e)
		case "ship", "deliver", "ship_failed":
			b.parcels = append(b.parcels, e)
		}
		c.counts["sandbox."+e.Kind]++
	}
	err := listed(ctx, c.target.Sandbox, "/ledger", func(e *Entry) int64 { return e.Seq }, func(e Entry) {
		for _, e := range c.spoil.entry(e) {
			take(e)
		}
	})
	if err != nil {
		return err
	}
	c.mailed = map[string]int{}
	begun := false
	return listed(ctx, c.target.Sandbox, "/mailbox", func(m *Mail) int64 { return m.Seq }, func(m Mail) {
		if !begun && m.Seq > 1 {
			c.mailFrom = m.At // older ones were dropped
		}
		begun = true
		for _, m := range c.spoil.mail(m) {
			id, _, _ := strings.Cut(strings.Trim(m.MessageID, "<>"), "@")
			c.mailed[id]++
			c.counts["sandbox.mail"]++
		}
	})
}
