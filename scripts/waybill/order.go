package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/client"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/stack"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/terminal"
)

// kase is an order that takes a certain path. The values are the sandbox's test values.
type kase struct {
	name  string
	about string
	// method and city choose what provider and carrier do.
	method, city string
	chargeOnly   bool
	product      string
	surplus      string // added to the amount
	cancelAt     string // the status at which the customer cancels
	ends         string // the final status
	reason       string
}

// scarce is a product of which there is none.
const scarce = "sold-out"

// cases are all paths of the saga that a customer can bring about.
var cases = func() map[string]kase {
	all := map[string]kase{}
	for _, k := range []kase{
		{name: "ok", about: "paid and delivered", ends: "completed"},
		{name: "charge-only", about: "nothing to reserve or ship", chargeOnly: true, ends: "completed"},
		{name: "slow", about: "the provider answers after 2 s", method: "card_slow", ends: "completed"},
		{name: "flaky", about: "the provider fails twice, then captures", method: "card_flaky", ends: "completed"},
		{name: "timeout", about: "the provider charges and lets the caller time out: asked, not charged again", method: "card_timeout", ends: "completed"},
		{name: "declined", about: "the provider declines", method: "card_declined", ends: "cancelled", reason: "payment_declined"},
		{name: "down", about: "the provider fails every charge: three retries, then voided", method: "card_down", ends: "cancelled", reason: "payment_failed"},
		{name: "out-of-stock", about: "more than there is", product: scarce, ends: "failed", reason: "out_of_stock"},
		{name: "unknown-product", about: "not in the catalogue", product: "sku-none", ends: "failed", reason: "unknown_product"},
		{name: "mismatch", about: "the amount is not the catalogue's total", surplus: "0.01", ends: "failed", reason: "amount_mismatch"},
		{name: "delayed", about: "the carrier fails twice, then accepts", city: "Delayed", ends: "completed"},
		{name: "nowhere", about: "the carrier refuses for good: a ticket", city: "Nowhere", ends: "attention", reason: "shipping_failed"},
		{name: "lost", about: "the parcel gets lost: a ticket", city: "Lost", ends: "attention", reason: "shipping_failed"},
		{name: "cancel", about: "the customer cancels while the payment is under way", method: "card_slow", cancelAt: "paying", ends: "cancelled", reason: "customer_request"},
	} {
		if k.method == "" {
			k.method = "card"
		}
		if k.city == "" {
			k.city = "Berlin"
		}
		if k.product == "" {
			k.product = "sku-0001"
		}
		all[k.name] = k
	}
	return all
}()

func newOrder(c *common) *cobra.Command {
	var name, gateway, sandbox, user, password string
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "order",
		Short: "Place an order and print its timeline as it happens",
		Long:  "Place an order through the gateway and print its timeline as it happens, what was paid and\nshipped according to provider and carrier, and who was told.\n\nCases:\n" + caseList(),
		Example: `  waybill order
  waybill order --case declined
  waybill order --all                  # every case, one after another
  waybill order --case lost --json | jq .order.status`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names := []string{name}
			if all {
				names = caseNames()
			}
			if _, ok := cases[name]; !ok {
				return fmt.Errorf("--case %s: want one of %s", name, strings.Join(caseNames(), " "))
			}
			where, err := addressesOf(c.data, gateway, sandbox)
			if err != nil {
				return err
			}
			t := teller{
				out: c.out, quiet: asJSON, sandbox: where.sandbox,
				client: &client.Client{Base: where.gateway, User: user, Password: password},
			}
			var errs []error
			for _, n := range names {
				story, err := t.tell(cmd.Context(), cases[n])
				if asJSON && story.Order.OrderID != "" {
					b, _ := json.MarshalIndent(story, "", "  ")
					c.out.Line("%s", b)
				}
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "case", "ok", "what shall happen: "+strings.Join(caseNames(), ", "))
	f.BoolVar(&all, "all", false, "all cases, one after another")
	f.BoolVar(&asJSON, "json", false, "print the result as JSON")
	f.StringVar(&user, "user", "customer", "who orders")
	f.StringVar(&password, "password", "password", "that user's password")
	f.StringVar(&gateway, "gateway", "", "URL of the gateway (default: of the stack that runs here)")
	f.StringVar(&sandbox, "sandbox", "", "URL of the sandbox (default: of the stack that runs here)")
	return cmd
}

func caseNames() []string { return slices.Sorted(maps.Keys(cases)) }

func caseList() string {
	var b strings.Builder
	for _, n := range caseNames() {
		k := cases[n]
		end := k.ends
		if k.reason != "" {
			end += ", " + k.reason
		}
		fmt.Fprintf(&b, "  %-16s %s (%s)\n", n, k.about, end)
	}
	return b.String()
}

type where struct{ gateway, sandbox string }

// addressesOf are the flags', and where they are not given those of the stack here.
func addressesOf(data, gateway, sandbox string) (where, error) {
	w := where{gateway, sandbox}
	if w.gateway != "" {
		return w, nil
	}
	s, err := stack.Load(data)
	if err != nil {
		return w, fmt.Errorf("%w\n(or say where the gateway is with --gateway)", err)
	}
	w.gateway = s.Addresses["gateway"]
	if w.sandbox == "" {
		w.sandbox = s.Addresses["sandbox"]
	}
	return w, nil
}

// teller places an order and tells its story.
type teller struct {
	out     *terminal.Screen
	client  *client.Client
	sandbox string // empty: not known, so nothing of what it saw
	quiet   bool
}

// story is what became of an order, as far as the outside can see.
type story struct {
	Case    string          `json:"case"`
	Order   client.Order    `json:"order"`
	Payment *client.Payment `json:"payment,omitempty"`
	Ledger  []ledgerEntry   `json:"ledger"`
	Mails   []mail          `json:"mails"`
	Took    float64         `json:"seconds"`
}

type ledgerEntry struct {
	Seq      int64     `json:"seq"`
	At       time.Time `json:"at"`
	Kind     string    `json:"kind"`
	Key      string    `json:"key"`
	OrderID  string    `json:"order_id"`
	Amount   int64     `json:"amount"`
	Currency string    `json:"currency"`
}

type mail struct {
	Seq     int64     `json:"seq"`
	At      time.Time `json:"at"`
	To      []string  `json:"to"`
	Subject string    `json:"subject"`
}

const (
	// orderWithin is more than the longest case: card_timeout takes 5 s and an answer.
	orderWithin = 60 * time.Second
	// mailWithin is how long after the end a mail may come: consumer, outbox row, SMTP.
	mailWithin = 5 * time.Second
)

func (t teller) line(format string, args ...any) {
	if !t.quiet {
		t.out.Line(format, args...)
	}
}

func (t teller) tell(ctx context.Context, k kase) (story, error) {
	ctx, cancel := context.WithTimeout(ctx, orderWithin)
	defer cancel()
	s := story{Case: k.name, Ledger: []ledgerEntry{}, Mails: []mail{}}
	o, err := t.prepare(ctx, k)
	if err != nil {
		return s, err
	}
	ledgerFrom := t.lastSeq(ctx, "/ledger")
	begin := time.Now()
	if s.Order, err = t.client.Place(ctx, o); err != nil {
		return s, err
	}
	t.line("%s order %s: %s, %s %s", t.out.Paint(terminal.Cyan, "▶"), t.out.Paint(terminal.Bold, o.OrderID), k.about, o.Amount, o.Currency)
	cancelled := false
	err = t.client.Watch(ctx, o.OrderID, func(m client.Moment) bool {
		t.moment(begin, m)
		if k.cancelAt != "" && m.Status == k.cancelAt && !cancelled {
			cancelled = true
			t.line("  %s the customer cancels", t.out.Paint(terminal.Yellow, "✋"))
			if err := t.client.Do(ctx, http.MethodPost, "/orders/"+url.PathEscape(o.OrderID)+"/cancel", nil, nil); err != nil {
				t.line("  %v", err)
			}
		}
		return !client.Final(m.Status)
	})
	if err != nil {
		return s, fmt.Errorf("follow order %s: %w", o.OrderID, err)
	}
	s.Took = time.Since(begin).Seconds()
	if s.Order, err = t.client.Order(ctx, o.OrderID); err != nil {
		return s, err
	}
	if p, err := t.client.Payment(ctx, o.OrderID); err == nil {
		s.Payment = &p
	}
	t.outside(ctx, o, ledgerFrom, &s)
	t.summary(k, s)
	if s.Order.Status != k.ends || s.Order.Reason != k.reason {
		return s, fmt.Errorf("order %s ended %s %q, case %s ends %s %q", o.OrderID, s.Order.Status, s.Order.Reason, k.name, k.ends, k.reason)
	}
	return s, nil
}

// prepare asks the catalogue what the order costs.
func (t teller) prepare(ctx context.Context, k kase) (client.NewOrder, error) {
	id := strings.ToLower("o-" + rand.Text()[:12])
	o := client.NewOrder{OrderID: id, Amount: "19.90", Currency: "EUR", PaymentMethod: k.method, Email: id + "@example.com"}
	if k.chargeOnly {
		return o, nil
	}
	product := k.product
	if k.reason == "unknown_product" {
		product = "sku-0001"
	}
	if product == scarce {
		// The seeded products have more than one order may ask for.
		keeper := &client.Client{Base: t.client.Base, User: "merchant", Password: "password"}
		if err := keeper.Do(ctx, http.MethodPut, "/products/"+scarce, map[string]any{"name": "Sold out", "price": 29.95, "currency": "EUR"}, nil); err != nil {
			return o, fmt.Errorf("make a product without stock: %w", err)
		}
	}
	p, err := t.client.Product(ctx, product)
	if err != nil {
		return o, fmt.Errorf("look up the price: %w", err)
	}
	const quantity = 2
	price, ok := new(big.Rat).SetString(p.Price.String())
	if !ok {
		return o, fmt.Errorf("the price of %s is %q", p.ProductID, p.Price)
	}
	amount := price.Mul(price, big.NewRat(quantity, 1))
	if more, ok := new(big.Rat).SetString(k.surplus); ok {
		amount.Add(amount, more)
	}
	o.Amount, o.Currency = json.Number(amount.FloatString(2)), p.Currency
	o.Items = []client.Item{{ProductID: k.product, Quantity: quantity}}
	o.Address = &client.Address{Name: "A. Buyer", Line1: "1 Main St", City: k.city, PostalCode: "10115", Country: "DE"}
	return o, nil
}

func (t teller) moment(begin time.Time, m client.Moment) {
	colour := terminal.Dim
	switch m.Status {
	case "completed":
		colour = terminal.Green
	case "failed", "cancelled":
		colour = terminal.Red
	case "attention", "cancelling":
		colour = terminal.Yellow
	}
	t.line("  %8s  %-26s %-12s %s", fmt.Sprintf("+%d ms", max(0, m.At.Sub(begin).Milliseconds())), m.Event, t.out.Paint(colour, m.Status), t.out.Paint(terminal.Dim, m.Detail))
}

func (t teller) summary(k kase, s story) {
	money := "nothing charged"
	if p := s.Payment; p != nil {
		money = fmt.Sprintf("payment %s after %d attempt(s)", p.Status, p.Attempts)
		if p.Refunded != "" && p.Refunded != "0" && p.Refunded != "0.00" {
			money += fmt.Sprintf(", %s refunded", p.Refunded)
		}
	}
	t.line("  → %s in %.1f s; %s", t.out.Paint(terminal.Bold, strings.TrimSpace(s.Order.Status+" "+s.Order.Reason)), s.Took, money)
	for _, e := range s.Ledger {
		what := fmt.Sprintf("%d.%02d %s", e.Amount/100, e.Amount%100, e.Currency)
		if e.Amount == 0 {
			what = e.Key
		}
		t.line("    outside: %-12s %s", e.Kind, what)
	}
	for _, m := range s.Mails {
		t.line("    told:    %s: %s", strings.Join(m.To, ", "), m.Subject)
	}
}

// outside collects what the sandbox has seen of the order. Mail is sent after the end,
// so it is waited for.
func (t teller) outside(ctx context.Context, o client.NewOrder, from int64, s *story) {
	if t.sandbox == "" {
		return
	}
	end := time.Now()
	if n := len(s.Order.Timeline); n > 0 {
		end = s.Order.Timeline[n-1].At
	}
	for deadline := time.Now().Add(mailWithin); ; {
		var page struct{ Items []mail }
		if err := sandboxGet(ctx, t.sandbox+"/mailbox?to="+url.QueryEscape(o.Email), &page); err != nil {
			t.line("  the sandbox's mailbox cannot be read: %v", err)
			return
		}
		s.Mails = page.Items
		if n := len(s.Mails); n > 0 && !s.Mails[n-1].At.Before(end) || time.Now().After(deadline) || ctx.Err() != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for after := from; ; {
		var page struct {
			Items []ledgerEntry
			Last  int64
		}
		if err := sandboxGet(ctx, fmt.Sprintf("%s/ledger?after=%d", t.sandbox, after), &page); err != nil {
			t.line("  the sandbox's ledger cannot be read: %v", err)
			return
		}
		for _, e := range page.Items {
			if e.OrderID == o.OrderID {
				s.Ledger = append(s.Ledger, e)
			}
			after = e.Seq
		}
		if len(page.Items) == 0 || after >= page.Last {
			return
		}
	}
}

// lastSeq is where the sandbox's list ends now.
func (t teller) lastSeq(ctx context.Context, path string) int64 {
	if t.sandbox == "" {
		return 0
	}
	var page struct{ Last int64 }
	if err := sandboxGet(ctx, t.sandbox+path+"?limit=1", &page); err != nil {
		return 0
	}
	return page.Last
}

func sandboxGet(ctx context.Context, url string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}
