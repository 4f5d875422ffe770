package postgres

import (
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/libs/testkit"
)

// Every statement that serves requests or events finds its rows by an index. A sequential scan is quick in every test and
// takes the service down a year later.
func TestStatementsUseIndexes(t *testing.T) {
	t.Parallel()
	pool, _ := testkit.Postgres(t, Migrations)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), `INSERT INTO orders (event_seq, status, tenant, amount, created_at, deadline_at, order_id, customer, currency, method, traceparent, key, fingerprint)
SELECT 1, 'pending', n % 3, 1, now() - n * interval '1 s', now(), 'o-' || n, 'c-' || n % 100, 'EUR', 'card', '', CASE WHEN n % 5 = 0 THEN 'k-' || n END, sha256('')
FROM generate_series(1, 5000) n`); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		`INSERT INTO order_history (order_id, at, event, status) SELECT order_id, created_at, 'order.created', status FROM orders`,
		`INSERT INTO order_watch (due_at, order_id) SELECT created_at, order_id FROM orders`,
		`ANALYZE`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ sql, args, index string }{
		"lock":          {lockOrders, `ARRAY['o-1','o-2'], ARRAY['o-2']`, "orders_pkey"},
		"save":          {saveOrders, `ARRAY['o-1'], ARRAY['pending'], ARRAY[1], ARRAY['paying'], ARRAY[''], ARRAY[''], ARRAY[''], ARRAY[0], ARRAY[0], ARRAY[2], NULL`, "orders_pkey"},
		"taken":         {findTaken, `ARRAY['o-1'], ARRAY[1], ARRAY['c-1'], ARRAY['k-5']`, "orders_key"},
		"list, tenant":  {listOrders(false), `1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 50`, "orders_newest"},
		"list, all":     {listOrders(false), `NULL, NULL, NULL, NULL, NULL, NULL, now(), 'o-1', 50`, "orders_newest"},
		"list, own":     {listOrders(true), `1, 'c-1', NULL, NULL, NULL, NULL, NULL, NULL, 50`, "orders_own"},
		"history":       {history + ` WHERE order_id = $1 ORDER BY id`, `'o-1'`, "order_history_pkey"},
		"lines after":   {linesAfter, `ARRAY['o-1','o-2'], ARRAY[0,1]`, "order_history_pkey"},
		"due":           {dueWatches, `100`, "order_watch_pkey"},
		"still open":    {stillOpen, `ARRAY['o-1','o-2']`, "orders_pkey"},
		"watch no more": {unwatch, `ARRAY[now()], ARRAY['o-1']`, "order_watch_pkey"},
	} {
		t.Run(name, func(t *testing.T) {
			plan := testkit.Plan(t, conn, c.sql, c.args)
			if strings.Contains(plan, "Seq Scan") || !strings.Contains(plan, c.index) {
				t.Errorf("not by %s:\n%s", c.index, plan)
			}
		})
	}
}
