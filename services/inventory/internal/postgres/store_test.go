package postgres_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/outbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/testkit"
	inventoryv1 "github.com/waybill-dev/waybill/proto/gen/waybill/inventory/v1"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	paymentv1 "github.com/waybill-dev/waybill/proto/gen/waybill/payment/v1"
	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var terms = stock.Terms{Hold: 15 * time.Minute, Lapse: time.Minute, Pin: 45 * time.Minute}

// published is an outbox that keeps events in a table of the test's database, in the transaction of their cause.
type published struct{}

func (published) Add(u *pg.Unit, events ...event.Event) {
	for _, e := range events {
		u.Write(`INSERT INTO published (type, subject, tenant, seq, data) VALUES ($1, $2, $3, $4, $5)`, string(e.Type), e.Subject, e.Tenant, e.Seq, e.Data)
	}
}

// raised keeps interventions in a table in the transaction of their cause.
type raised struct{}

func (raised) Raise(u *pg.Unit, x inbox.Intervention) {
	u.Write(`INSERT INTO raised (kind, subject, reason) VALUES ($1, $2, $3)`, x.Kind, x.Subject, x.Reason)
}

func (raised) Resolve(u *pg.Unit, kind, subject, _ string) {
	u.Write(`DELETE FROM raised WHERE kind = $1 AND subject = $2`, kind, subject)
}

// stockroom is a database with mug (100 at 5.00 EUR), lamp (50 at 20.00) and cup (5 at 4.00) of tenant 1.
type stockroom struct {
	*postgres.Store
	t    testing.TB
	pool *pgxpool.Pool
	url  string
}

func open(t testing.TB) *stockroom {
	t.Helper()
	pool, url := testkit.Postgres(t, outbox.Migrations, inbox.Migrations, postgres.Migrations)
	s := &stockroom{t: t, pool: pool, url: url}
	s.exec(`CREATE TABLE published (n bigint GENERATED ALWAYS AS IDENTITY, type text, subject text, tenant bigint, seq bigint, data bytea, UNIQUE (subject, seq))`)
	s.exec(`CREATE TABLE raised (kind text, subject text, reason text)`)
	s.Store = postgres.New(pool, published{}, terms, prometheus.NewRegistry())
	var products []stock.Product
	for _, p := range []struct {
		name  string
		n     int64
		price int64
	}{{"mug", 100, 500}, {"lamp", 50, 2000}, {"cup", 5, 400}} {
		products = append(products, stock.Product{Key: stock.Key{Tenant: 1, Product: p.name}, Name: p.name, Price: p.price, Currency: "EUR", OnHand: p.n})
	}
	if err := s.Seed(t.Context(), products); err != nil {
		t.Fatal(err)
	}
	return s
}

// replica is another process on the same database.
func (s *stockroom) replica() *stockroom {
	s.t.Helper()
	pool, err := pg.Open(s.t.Context(), s.url, zap.NewNop())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(pool.Close)
	return &stockroom{t: s.t, pool: pool, url: s.url, Store: postgres.New(pool, published{}, terms, prometheus.NewRegistry())}
}

func (s *stockroom) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.pool.Exec(context.Background(), sql, args...); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

// one reads a single value.
func one[T any](s *stockroom, sql string, args ...any) (v T) {
	s.t.Helper()
	if err := s.pool.QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func (s *stockroom) state(orderID string) string {
	s.t.Helper()
	return one[string](s, `SELECT COALESCE((SELECT state FROM reservations WHERE order_id = $1), '')`, orderID)
}

// has checks on_hand and reserved of a product of tenant 1.
func (s *stockroom) has(product string, onHand, reserved int64) {
	s.t.Helper()
	got := one[string](s, `SELECT on_hand || '/' || reserved FROM products WHERE tenant = 1 AND product_id = $1`, product)
	if want := fmt.Sprintf("%d/%d", onHand, reserved); got != want {
		s.t.Errorf("%s: on hand/reserved %s, want %s", product, got, want)
	}
}

var prices = map[string]int64{"mug": 500, "lamp": 2000, "cup": 400}

func worth(items []stock.Item) (n int64) {
	for _, it := range items {
		n += prices[it.Product] * it.Quantity
	}
	return n
}

func pin(id string, items ...stock.Item) postgres.Ask {
	return postgres.Ask{Ask: stock.Ask{OrderID: id, Tenant: 1, Items: items, Amount: worth(items), Currency: "EUR", Pin: true}}
}

func hold(id string, items ...stock.Item) postgres.Ask {
	return postgres.Ask{Ask: stock.Ask{OrderID: id, Tenant: 1, Items: items}}
}

func mugs(n int64) stock.Item { return stock.Item{Product: "mug", Quantity: n} }

// reserve asks for one order.
func (s *stockroom) reserve(a postgres.Ask) postgres.Reply {
	s.t.Helper()
	replies, err := s.Reserve(context.Background(), []postgres.Ask{a})
	if err != nil {
		s.t.Fatal(err)
	}
	return replies[0]
}

// release asks as the API does.
func (s *stockroom) release(id string) stock.Settlement {
	s.t.Helper()
	done, _, err := s.Release(context.Background(), stock.News{Fact: stock.Free, OrderID: id, Tenant: 1}, false, nil, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return done
}

// follow hands events to the consumer's handler in a transaction, as the inbox does.
func (s *stockroom) follow(events ...event.Event) error {
	return pg.Do(context.Background(), s.pool, func(ctx context.Context, u *pg.Unit) error { return s.Follow(ctx, u, events, raised{}) })
}

func (s *stockroom) mustFollow(events ...event.Event) {
	s.t.Helper()
	if err := s.follow(events...); err != nil {
		s.t.Fatal(err)
	}
}

func tell(t event.Type, id string, m proto.Message) event.Event {
	return event.New(context.Background(), t, id, 1, 1, m)
}

func paid(id string, items ...stock.Item) event.Event {
	m := &orderv1.OrderPaymentProcessed{OrderId: id}
	for _, it := range items {
		m.Items = append(m.Items, &orderv1.Item{ProductId: it.Product, Quantity: it.Quantity})
	}
	return tell(event.OrderPaymentProcessed, id, m)
}

func cancelled(id, goods string) event.Event {
	return tell(event.OrderCancelled, id, &orderv1.OrderCancelled{OrderId: id, Goods: goods, Reason: "customer_request"})
}

func failed(id string) event.Event {
	return tell(event.OrderFailed, id, &orderv1.OrderFailed{OrderId: id, Reason: "out_of_stock"})
}

func initiated(id string) event.Event {
	return tell(event.PaymentInitiated, id, &paymentv1.PaymentInitiated{OrderId: id})
}

func paymentFailed(id string) event.Event {
	return tell(event.PaymentFailed, id, &paymentv1.PaymentFailed{OrderId: id})
}

// story is the events about an order, as they would be read.
func (s *stockroom) story(subject string) []string {
	s.t.Helper()
	rows, err := s.pool.Query(context.Background(), `SELECT type, seq, data FROM published WHERE subject = $1 ORDER BY n`, subject)
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var typ string
		var seq int64
		var data []byte
		if err := rows.Scan(&typ, &seq, &data); err != nil {
			s.t.Fatal(err)
		}
		line := fmt.Sprintf("%d %s", seq, typ)
		switch event.Type(typ) {
		case event.InventoryReserved:
			var m inventoryv1.InventoryReserved
			if err := proto.Unmarshal(data, &m); err != nil {
				s.t.Fatal(err)
			}
			line += fmt.Sprintf(" %s %d %s", m.State, m.Total, m.Currency)
		case event.InventoryReleased:
			var m inventoryv1.InventoryReleased
			if err := proto.Unmarshal(data, &m); err != nil {
				s.t.Fatal(err)
			}
			line += fmt.Sprintf(" %s %s", m.State, m.Reason)
		case event.InventoryUpdated:
			var m inventoryv1.InventoryUpdated
			if err := proto.Unmarshal(data, &m); err != nil {
				s.t.Fatal(err)
			}
			line += " " + m.Reason
			for _, c := range m.Changes {
				line += fmt.Sprintf(" %s%+d=%d/%d", c.ProductId, c.Delta, c.OnHand, c.Reserved)
			}
		}
		out = append(out, line)
	}
	if err := rows.Err(); err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *stockroom) tells(subject string, want ...string) {
	s.t.Helper()
	if diff := cmp.Diff(want, s.story(subject)); diff != "" {
		s.t.Errorf("events of %s: %s", subject, diff)
	}
}

// conserves checks the invariants of RELIABILITY 5, I-STOCK-1 to 4, and what the sequence of events promises.
func (s *stockroom) conserves() {
	s.t.Helper()
	for _, check := range []struct{ what, sql string }{
		{"I-STOCK-1: ledger does not explain on_hand", `
			SELECT count(*) FROM products p WHERE on_hand <> COALESCE((SELECT sum(delta) FROM stock_ledger l WHERE (l.tenant, l.product_id) = (p.tenant, p.product_id)), 0)`},
		{"I-STOCK-1: reserved is not within on_hand", `SELECT count(*) FROM products WHERE NOT (0 <= reserved AND reserved <= on_hand)`},
		{"I-STOCK-2: reservations do not explain reserved", `
			SELECT count(*) FROM products p WHERE reserved <> COALESCE((
				SELECT sum(q) FROM reservations r, unnest(r.product_ids, r.quantities) AS i(id, q)
				WHERE r.tenant = p.tenant AND i.id = p.product_id AND r.state IN ('HELD', 'PINNED')), 0)`},
		{"I-STOCK-3: what was sold is not what is confirmed", `
			SELECT count(*) FROM products p WHERE
				COALESCE((SELECT -sum(delta) FROM stock_ledger l WHERE (l.tenant, l.product_id) = (p.tenant, p.product_id) AND op IN ('confirmed', 'returned')), 0) <>
				COALESCE((SELECT sum(q) FROM reservations r, unnest(r.product_ids, r.quantities) AS i(id, q)
					WHERE r.tenant = p.tenant AND i.id = p.product_id AND r.state = 'CONFIRMED'), 0)`},
		{"I-STOCK-4: a movement twice", `SELECT count(*) FROM (SELECT 1 FROM stock_ledger GROUP BY tenant, product_id, order_id, document, op HAVING count(*) > 1) x`},
		{"I-STOCK-4: a balance that is not the running sum", `
			SELECT count(*) FROM (SELECT balance, sum(delta) OVER (PARTITION BY tenant, product_id ORDER BY id) AS sum FROM stock_ledger) x WHERE balance <> sum`},
		{"events with a gap", `
			SELECT count(*) FROM (SELECT seq, row_number() OVER (PARTITION BY subject ORDER BY n) AS want FROM published) x WHERE seq <> want`},
		{"a reservation that counts other events than were published", `
			SELECT count(*) FROM reservations r WHERE event_seq <> (SELECT count(*) FROM published e WHERE e.subject = r.order_id)`},
		{"dead-locks", `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`},
	} {
		if n := one[int64](s, check.sql); n != 0 {
			s.t.Errorf("%s: %d", check.what, n)
		}
	}
}

func newKey(route, key string, print byte) *inbox.Request {
	return &inbox.Request{Caller: "1/merchant", Route: route, Key: key, Fingerprint: [32]byte{print}}
}

func newID() string { return uuid.NewString() }
