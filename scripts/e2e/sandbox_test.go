package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"
)

// entry is a line of the sandbox's ledger: what provider and carrier really did.
type entry struct {
	Seq      int64  `json:"seq"`
	Kind     string `json:"kind"`
	Key      string `json:"key"`
	OrderID  string `json:"order_id"`
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
}

type mail struct {
	Seq       int64    `json:"seq"`
	To        []string `json:"to"`
	Subject   string   `json:"subject"`
	MessageID string   `json:"message_id"`
	Text      string   `json:"text"`
}

func sandboxGet(ctx context.Context, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, platform.sandbox+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// ledger reads all lines, by order.
func ledger(t testing.TB) map[string][]entry {
	t.Helper()
	of := map[string][]entry{}
	for after := int64(0); ; {
		var page struct {
			Items []entry
			Last  int64
		}
		if err := sandboxGet(t.Context(), fmt.Sprintf("/ledger?after=%d", after), &page); err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Items {
			of[e.OrderID] = append(of[e.OrderID], e)
			after = e.Seq
		}
		if len(page.Items) == 0 || after >= page.Last {
			return of
		}
	}
}

// count tells how often something happened.
func count(es []entry, kind string) (n int) {
	for _, e := range es {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// net is what provider and customer have exchanged in the end.
func net(es []entry) (cents int64) {
	for _, e := range es {
		switch e.Kind {
		case "capture":
			cents += e.Amount
		case "refund":
			cents -= e.Amount
		}
	}
	return cents
}

func mails(ctx context.Context, to string) ([]mail, error) {
	var page struct{ Items []mail }
	err := sandboxGet(ctx, "/mailbox?to="+url.QueryEscape(to), &page)
	return page.Items, err
}

// toldWithin is more than the two minutes for which a notification process that was
// killed keeps the messages that it was about to send.
const toldWithin = 150 * time.Second

// told waits until the customer has a mail more than before and returns all of them.
// Delivery is at least once, so copies of one message are one.
func told(t testing.TB, to string, atLeast int) (got []mail) {
	t.Helper()
	eventually(t, toldWithin, func(ctx context.Context) error {
		all, err := mails(ctx, to)
		if err != nil {
			return err
		}
		got = nil
		for _, m := range all {
			if !slices.ContainsFunc(got, func(o mail) bool { return o.MessageID == m.MessageID }) {
				got = append(got, m)
			}
		}
		if len(got) < atLeast {
			return fmt.Errorf("%s has %d mails, want %d", to, len(got), atLeast)
		}
		return nil
	})
	return got
}

// checkMoney compares what the provider has really charged with what the order's status
// promises, and with what the payment service says.
func checkMoney(t testing.TB, o order, lines []entry) {
	t.Helper()
	if n := count(lines, "capture"); n > 1 {
		t.Errorf("order %s was charged %d times", o.OrderID, n)
	}
	want := int64(0)
	if o.Status == "completed" {
		want = minor(o.Amount)
	}
	if o.Status != "attention" && net(lines) != want {
		t.Errorf("order %s is %s (%s), and %d cents were kept of it, want %d", o.OrderID, o.Status, o.Reason, net(lines), want)
	}
}
