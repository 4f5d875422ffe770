package stock

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var (
	noon  = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	terms = Terms{Hold: 15 * time.Minute, Lapse: time.Minute, Pin: 45 * time.Minute}
)

// shelves is a book with mug (10 at 5.00 EUR), lamp (3 at 20.00 EUR) and cup (5 at 4.00 USD) of tenant 1.
func shelves() *Book {
	b := NewBook(terms)
	b.Now = noon
	b.PutProduct(Product{Key: Key{1, "mug"}, Price: 500, Currency: "EUR", OnHand: 10})
	b.PutProduct(Product{Key: Key{1, "lamp"}, Price: 2000, Currency: "EUR", OnHand: 3})
	b.PutProduct(Product{Key: Key{1, "cup"}, Price: 400, Currency: "USD", OnHand: 5})
	return b
}

func pin(id string, amount int64, items ...Item) Ask {
	return Ask{OrderID: id, Tenant: 1, Items: items, Amount: amount, Currency: "EUR", Pin: true}
}

func hold(id string, items ...Item) Ask { return Ask{OrderID: id, Tenant: 1, Items: items} }

func news(f Fact, id string, items ...Item) News {
	return News{Fact: f, OrderID: id, Tenant: 1, Items: items}
}

// count is on_hand and reserved of a product of tenant 1.
func count(t *testing.T, b *Book, product string, onHand, reserved int64) {
	t.Helper()
	p, ok := b.Product(Key{1, product})
	if !ok || p.OnHand != onHand || p.Reserved != reserved {
		t.Errorf("%s: on hand %d, reserved %d; want %d, %d", product, p.OnHand, p.Reserved, onHand, reserved)
	}
}

func TestReserve(t *testing.T) {
	huge := Item{"mug", MaxQuantity}
	tests := []struct {
		name     string
		before   func(b *Book)
		ask      Ask
		outcome  Outcome
		reason   string
		total    int64
		reserved int64 // of mug, afterwards
	}{
		{"pinned", nil, pin("o", 1000, Item{"mug", 2}), OutcomePinned, "", 1000, 2},
		{"held", nil, hold("o", Item{"mug", 2}), OutcomeHeld, "", 1000, 2},
		{"the last one", nil, pin("o", 5000, Item{"mug", 10}), OutcomePinned, "", 5000, 10},
		{"one too many", nil, pin("o", 5500, Item{"mug", 11}), OutcomeRefused, ReasonOutOfStock, 5500, 0},
		{"one of two short", nil, pin("o", 8500, Item{"lamp", 4}, Item{"mug", 1}), OutcomeRefused, ReasonOutOfStock, 8500, 0},
		{"amount differs", nil, pin("o", 999, Item{"mug", 2}), OutcomeMismatch, ReasonAmountMismatch, 1000, 0},
		{"currency differs", nil, Ask{OrderID: "o", Tenant: 1, Items: []Item{{"mug", 2}}, Amount: 1000, Currency: "USD", Pin: true}, OutcomeMismatch, ReasonAmountMismatch, 1000, 0},
		{"two currencies", nil, pin("o", 900, Item{"cup", 1}, Item{"mug", 1}), OutcomeMismatch, ReasonAmountMismatch, 0, 0},
		{"unknown product", nil, pin("o", 500, Item{"car", 1}, Item{"mug", 1}), OutcomeRefused, ReasonUnknownProduct, 0, 0},
		{"another tenant's product", nil, Ask{OrderID: "o", Tenant: 2, Items: []Item{{"mug", 1}}, Amount: 500, Currency: "EUR", Pin: true}, OutcomeRefused, ReasonUnknownProduct, 0, 0},
		{"total beyond int64", func(b *Book) { b.products[Key{1, "mug"}].Price = 1 << 40 }, pin("o", 1, huge), OutcomeMismatch, ReasonAmountMismatch, 0, 0},
		{"asked again", func(b *Book) { b.Reserve(pin("o", 1000, Item{"mug", 2})) }, pin("o", 1000, Item{"mug", 2}), OutcomePinned, "", 1000, 2},
		{"held again", func(b *Book) { b.Reserve(hold("o", Item{"mug", 2})) }, hold("o", Item{"mug", 2}), OutcomeHeld, "", 1000, 2},
		{"held otherwise", func(b *Book) { b.Reserve(hold("o", Item{"mug", 2})) }, hold("o", Item{"mug", 3}), OutcomeDiffers, "", 0, 2},
		{"hold of a pinned order", func(b *Book) { b.Reserve(pin("o", 1000, Item{"mug", 2})) }, hold("o", Item{"mug", 2}), OutcomePinned, "", 1000, 2},
		{"hold taken over", func(b *Book) { b.Reserve(hold("o", Item{"mug", 2})) }, pin("o", 2500, Item{"mug", 5}), OutcomePinned, "", 2500, 5},
		{"takeover needs what the hold has", func(b *Book) { b.Reserve(hold("o", Item{"mug", 8})) }, pin("o", 4500, Item{"mug", 9}), OutcomePinned, "", 4500, 9},
		{"takeover of other products", func(b *Book) { b.Reserve(hold("o", Item{"mug", 8})) }, pin("o", 2000, Item{"lamp", 1}), OutcomePinned, "", 2000, 0},
		{"takeover refused leaves the hold", func(b *Book) { b.Reserve(hold("o", Item{"mug", 2})) }, pin("o", 5500, Item{"mug", 11}), OutcomeRefused, ReasonOutOfStock, 5500, 2},
		{"takeover with another amount", func(b *Book) { b.Reserve(hold("o", Item{"mug", 2})) }, pin("o", 1, Item{"mug", 2}), OutcomeMismatch, ReasonAmountMismatch, 1000, 2},
		{"pinned by a payment, amount differs", func(b *Book) {
			b.Reserve(hold("o", Item{"mug", 2}))
			b.Settle(news(PaymentStarted, "o"))
		}, pin("o", 1, Item{"mug", 2}), OutcomeMismatch, ReasonAmountMismatch, 1000, 2},
		{"pinned by a payment, with other items", func(b *Book) {
			b.Reserve(hold("o", Item{"mug", 2}))
			b.Settle(news(PaymentStarted, "o"))
		}, pin("o", 1500, Item{"mug", 3}), OutcomePinned, "", 1500, 3},
		{"after a release", func(b *Book) { b.Settle(news(Free, "o")) }, pin("o", 500, Item{"mug", 1}), OutcomeClosed, ReasonClosed, 0, 0},
		{"held after a release", func(b *Book) { b.Settle(news(Free, "o")) }, hold("o", Item{"mug", 1}), OutcomeClosed, ReasonClosed, 0, 0},
		{"after expiry", func(b *Book) {
			b.Reserve(hold("o", Item{"mug", 2}))
			b.Settle(news(Lapse, "o"))
		}, pin("o", 1000, Item{"mug", 2}), OutcomeClosed, ReasonClosed, 0, 0},
		{"another tenant's order", func(b *Book) { b.Reserve(hold("o", Item{"mug", 2})) }, Ask{OrderID: "o", Tenant: 2, Items: []Item{{"mug", 2}}, Pin: true}, OutcomeClosed, ReasonClosed, 0, 2},
		{"paid already", func(b *Book) {
			b.Reserve(pin("o", 1000, Item{"mug", 2}))
			b.Settle(news(Paid, "o", Item{"mug", 2}))
		}, pin("o", 1000, Item{"mug", 2}), OutcomePinned, "", 1000, 0},
		{"paid already, with other items", func(b *Book) {
			b.Reserve(pin("o", 1000, Item{"mug", 2}))
			b.Settle(news(Paid, "o", Item{"mug", 2}))
		}, pin("o", 500, Item{"mug", 1}), OutcomeClosed, ReasonClosed, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := shelves()
			if tt.before != nil {
				tt.before(b)
			}
			got := b.Reserve(tt.ask)
			if got.Outcome != tt.outcome || got.Reason != tt.reason || got.Total != tt.total {
				t.Errorf("got %s %q total %d, want %s %q total %d", got.Outcome, got.Reason, got.Total, tt.outcome, tt.reason, tt.total)
			}
			if p, _ := b.Product(Key{1, "mug"}); p.Reserved != tt.reserved {
				t.Errorf("%d mugs reserved, want %d", p.Reserved, tt.reserved)
			}
		})
	}
}

func TestRefusedOrderLeavesItsBatchAlone(t *testing.T) {
	b := shelves()
	var got []Outcome
	for i, n := range []int64{4, 20, 4, 3, 2} { // 10 there
		got = append(got, b.Reserve(pin(fmt.Sprint(i), 500*n, Item{"mug", n})).Outcome)
	}
	want := []Outcome{OutcomePinned, OutcomeRefused, OutcomePinned, OutcomeRefused, OutcomePinned}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	count(t, b, "mug", 10, 10)
	if n := len(b.Reservations()); n != 3 {
		t.Errorf("%d rows to write, want 3", n)
	}
	if diff := cmp.Diff([]ProductChange{{Key: Key{1, "mug"}, Reserved: 10}}, b.Products()); diff != "" {
		t.Error(diff)
	}
}

func TestShortageNamesEachProduct(t *testing.T) {
	b := shelves()
	got := b.Reserve(hold("o", Item{"lamp", 4}, Item{"mug", 11}))
	want := []Shortage{{"lamp", 4, 3}, {"mug", 11, 10}}
	if diff := cmp.Diff(want, got.Short); diff != "" {
		t.Error(diff)
	}
}

func TestDueTimes(t *testing.T) {
	b := shelves()
	due := func(want time.Time) {
		t.Helper()
		if r, _ := b.Reservation("o"); !r.Due.Equal(want) {
			t.Errorf("%s due %v, want %v", r.State, r.Due, want)
		}
	}
	b.Reserve(hold("o", Item{"mug", 1}))
	due(noon.Add(terms.Hold))
	b.Settle(news(PaymentStarted, "o"))
	due(noon.Add(terms.Pin))
	b.Settle(news(PaymentFailed, "o"))
	due(noon.Add(terms.Lapse))
	b.Settle(news(Lapse, "o"))
	due(time.Time{})
}

func TestConfirm(t *testing.T) {
	pinned := func(b *Book) { b.Reserve(pin("o", 1000, Item{"mug", 2})) }
	tests := []struct {
		name             string
		before           func(b *Book)
		items            []Item
		state            State
		short            bool
		onHand, reserved int64
	}{
		{"pinned", pinned, []Item{{"mug", 2}}, Confirmed, false, 8, 0},
		{"held", func(b *Book) { b.Reserve(hold("o", Item{"mug", 2})) }, []Item{{"mug", 2}}, Confirmed, false, 8, 0},
		{"twice", func(b *Book) { pinned(b); b.Settle(news(Paid, "o", Item{"mug", 2})) }, []Item{{"mug", 2}}, Confirmed, false, 8, 0},
		{"released: taken anew", func(b *Book) { pinned(b); b.Settle(news(Closed, "o")) }, []Item{{"mug", 2}}, Confirmed, false, 8, 0},
		{"expired: taken anew", func(b *Book) { b.Reserve(hold("o", Item{"mug", 2})); b.Settle(news(Lapse, "o")) }, []Item{{"mug", 2}}, Confirmed, false, 8, 0},
		{"never reserved", nil, []Item{{"mug", 2}}, Confirmed, false, 8, 0},
		{"expired and short", func(b *Book) {
			b.Reserve(hold("o", Item{"mug", 2}))
			b.Settle(news(Lapse, "o"))
			b.Reserve(hold("other", Item{"mug", 9}))
		}, []Item{{"mug", 2}}, Expired, true, 10, 9},
		{"never reserved and short", nil, []Item{{"mug", 11}}, Released, true, 10, 0},
		{"of a product that is gone", nil, []Item{{"car", 1}}, Released, true, 10, 0},
		{"other items than pinned", pinned, []Item{{"mug", 3}}, Confirmed, false, 7, 0},
		{"other items, short", pinned, []Item{{"mug", 11}}, Released, true, 10, 0},
		{"returned before", func(b *Book) {
			pinned(b)
			b.Settle(news(Paid, "o", Item{"mug", 2}))
			b.Settle(news(GoodsBack, "o"))
		}, []Item{{"mug", 2}}, Returned, false, 10, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := shelves()
			if tt.before != nil {
				tt.before(b)
			}
			done := b.Settle(news(Paid, "o", tt.items...))
			r, _ := b.Reservation("o")
			if r.State != tt.state || (len(done.Short) > 0) != tt.short {
				t.Errorf("state %s, short %v; want %s, %v", r.State, done.Short, tt.state, tt.short)
			}
			count(t, b, "mug", tt.onHand, tt.reserved)
			if tt.short != r.Owed() {
				t.Errorf("owed: %v", r.Owed())
			}
			if tt.short {
				if diff := cmp.Diff(tt.items, r.Items); diff != "" {
					t.Errorf("items are not kept for another try: %s", diff)
				}
			}
		})
	}
}

// An order that is owed its stock and then undone is owed nothing any more.
func TestUndoneWhileOwed(t *testing.T) {
	for _, f := range []Fact{Closed, GoodsBack} {
		b := shelves()
		b.Settle(news(Paid, "o", Item{"mug", 11}))
		if got := b.Settle(news(f, "o")); !got.Settled || got.State != Released {
			t.Errorf("%s: %+v", f, got)
		}
		if r, _ := b.Reservation("o"); r.Owed() {
			t.Errorf("%s: still owed", f)
		}
		if got := b.Settle(news(f, "o")); got.Settled {
			t.Errorf("%s again: %+v", f, got)
		}
		count(t, b, "mug", 10, 0)
	}
}

func TestTombstoneMakesNoEvent(t *testing.T) {
	b := shelves()
	for _, f := range []Fact{Closed, Free, GoodsBack} {
		if got := b.Settle(news(f, string(f))); got.State != Released || got.Verdict != Moves {
			t.Errorf("%s: %+v", f, got)
		}
	}
	if n := b.Notes(); len(n) != 0 {
		t.Errorf("%d events", len(n))
	}
	if n := len(b.Reservations()); n != 3 {
		t.Errorf("%d tombstones", n)
	}
}

func TestGoodsBack(t *testing.T) {
	b := shelves()
	b.Reserve(pin("o", 3000, Item{"lamp", 1}, Item{"mug", 2}))
	b.Settle(news(Paid, "o", Item{"lamp", 1}, Item{"mug", 2}))
	if got := b.Settle(news(Closed, "o")); got.State != Confirmed { // goods lost
		t.Errorf("lost goods: %+v", got)
	}
	count(t, b, "mug", 8, 0)
	if got := b.Settle(news(GoodsBack, "o")); got.State != Returned {
		t.Errorf("returned goods: %+v", got)
	}
	count(t, b, "mug", 10, 0)
	count(t, b, "lamp", 3, 0)
	var ops []string
	for _, m := range b.Moves() {
		ops = append(ops, fmt.Sprintf("%s %s %+d = %d", m.Op, m.Product, m.Delta, m.Balance))
	}
	want := []string{"confirmed lamp -1 = 2", "confirmed mug -2 = 8", "returned lamp +1 = 3", "returned mug +2 = 10"}
	if diff := cmp.Diff(want, ops); diff != "" {
		t.Error(diff)
	}
}

func TestNotesAreContiguous(t *testing.T) {
	b := shelves()
	b.PutReservation(Reservation{OrderID: "o", Tenant: 1, State: Held, Items: []Item{{"mug", 1}}, Due: noon, EventSeq: 7})
	b.products[Key{1, "mug"}].Reserved = 1
	b.Settle(news(PaymentStarted, "o"))
	b.Settle(news(PaymentFailed, "o")) // says nothing: the order hears of its payment from the payment service
	b.Settle(news(PaymentStarted, "o"))
	b.Settle(news(Closed, "o"))
	var got []string
	for _, n := range b.Notes() {
		got = append(got, fmt.Sprintf("%d %d %s", n.Seq, n.Kind, n.State))
	}
	want := []string{"8 0 PINNED", "9 0 PINNED", "10 1 RELEASED"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestForeignNews(t *testing.T) {
	b := shelves()
	b.Reserve(hold("o", Item{"mug", 2}))
	for _, f := range []Fact{Closed, Free, Paid, GoodsBack, PaymentStarted} {
		n := News{Fact: f, OrderID: "o", Tenant: 2, Items: []Item{{"mug", 2}}}
		if got := b.Settle(n); !got.Foreign || got.State != Held {
			t.Errorf("%s of another tenant: %+v", f, got)
		}
	}
	count(t, b, "mug", 10, 2)
}

func TestAdjust(t *testing.T) {
	tests := []struct {
		name   string
		delta  int64
		err    error
		onHand int64
	}{
		{"more", 5, nil, 15},
		{"less", -5, nil, 5},
		{"down to what is reserved", -8, nil, 2},
		{"below what is reserved", -9, ErrBelowReserved, 10},
		{"up to the limit", MaxStock - 10, nil, MaxStock},
		{"above the limit", MaxStock - 9, ErrTooMuchStock, 10},
		{"nothing", 0, nil, 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := shelves()
			b.Reserve(hold("o", Item{"mug", 2}))
			before := len(b.Notes())
			p, err := b.Adjust(Adjustment{Key: Key{1, "mug"}, Document: "d", Op: Restocked, Delta: tt.delta})
			if !errors.Is(err, tt.err) || p.OnHand != tt.onHand {
				t.Errorf("%d, %v; want %d, %v", p.OnHand, err, tt.onHand, tt.err)
			}
			changed := err == nil && tt.delta != 0
			if got := len(b.Moves()) == 1 && len(b.Notes()) == before+1; got != changed {
				t.Errorf("%d moves and %d notes", len(b.Moves()), len(b.Notes()))
			}
		})
	}
	if _, err := shelves().Adjust(Adjustment{Key: Key{2, "mug"}, Delta: 1}); !errors.Is(err, ErrUnknownProduct) {
		t.Errorf("another tenant's product: %v", err)
	}
}

// Whatever is asked, told, repeated and mixed up, in whatever order: stock is conserved, nothing is promised twice, events
// are contiguous, and a tombstone is never revived by a reservation.
func TestBookConservesStock(t *testing.T) {
	products := []string{"cup", "lamp", "mug"}
	prices := map[string]int64{"cup": 400, "lamp": 2000, "mug": 500}
	rapid.Check(t, func(t *rapid.T) {
		b := NewBook(terms)
		b.Now = noon
		initial := map[string]int64{}
		for _, p := range products {
			initial[p] = rapid.Int64Range(0, 12).Draw(t, "stock of "+p)
			b.PutProduct(Product{Key: Key{1, p}, Price: prices[p], Currency: "EUR", OnHand: initial[p]})
		}
		seqs := map[string]int64{}
		dead := map[string]bool{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "order")
			var raw []Item
			for range rapid.IntRange(1, 3).Draw(t, "lines") {
				raw = append(raw, Item{rapid.SampledFrom(products).Draw(t, "product"), rapid.Int64Range(1, 5).Draw(t, "quantity")})
			}
			items, err := Sum(raw)
			if err != nil {
				t.Fatal(err)
			}
			var amount int64
			for _, it := range items {
				amount += prices[it.Product] * it.Quantity
			}
			switch f := rapid.SampledFrom(Facts()).Draw(t, "fact"); f {
			case Hold, Pin:
				ans := b.Reserve(Ask{OrderID: id, Tenant: 1, Items: items, Amount: amount, Currency: "EUR", Pin: f == Pin})
				if dead[id] && ans.Outcome != OutcomeClosed {
					t.Fatalf("%s of a dead order: %s", f, ans.Outcome)
				}
			default:
				b.Settle(News{Fact: f, OrderID: id, Tenant: 1, Items: items})
			}
			r, _ := b.Reservation(id)
			dead[id] = r.State == Released || r.State == Expired || r.State == Returned
			checkBook(t, b, initial)
		}
		for _, n := range b.Notes() {
			seqs[n.Subject]++
			if n.Seq != seqs[n.Subject] {
				t.Fatalf("event %d of %s has sequence %d", seqs[n.Subject], n.Subject, n.Seq)
			}
		}
	})
}

func checkBook(t *rapid.T, b *Book, initial map[string]int64) {
	reserved, sold := map[string]int64{}, map[string]int64{}
	for _, c := range b.Reservations() {
		for _, it := range c.Items {
			switch c.State {
			case Held, Pinned:
				reserved[it.Product] += it.Quantity
			case Confirmed:
				sold[it.Product] += it.Quantity
			}
		}
		if (c.State == Held || c.State == Pinned) == c.Due.IsZero() {
			t.Fatalf("%s is due %v", c.State, c.Due)
		}
	}
	moved := map[string]int64{}
	once := map[string]bool{}
	for _, m := range b.Moves() {
		moved[m.Product] += m.Delta
		if got := initial[m.Product] + moved[m.Product]; got != m.Balance {
			t.Fatalf("ledger of %s says %d, its sum is %d", m.Product, m.Balance, got)
		}
		key := m.Product + "/" + m.OrderID + "/" + string(m.Op)
		if once[key] {
			t.Fatalf("ledger has %s twice", key)
		}
		once[key] = true
	}
	for name, n := range initial {
		p, _ := b.Product(Key{1, name})
		switch {
		case p.Reserved < 0 || p.Reserved > p.OnHand:
			t.Fatalf("%s: %d reserved of %d", name, p.Reserved, p.OnHand)
		case p.Reserved != reserved[name]:
			t.Fatalf("%s: %d reserved, reservations have %d", name, p.Reserved, reserved[name])
		case p.OnHand != n-sold[name]:
			t.Fatalf("%s: %d on hand, was %d and %d are sold", name, p.OnHand, n, sold[name])
		case p.OnHand != n+moved[name]:
			t.Fatalf("%s: %d on hand, ledger says %d", name, p.OnHand, n+moved[name])
		}
	}
}
