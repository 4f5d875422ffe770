package saga

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/testkit"
	inventoryv1 "github.com/waybill-dev/waybill/proto/gen/waybill/inventory/v1"
	shippingv1 "github.com/waybill-dev/waybill/proto/gen/waybill/shipping/v1"
	"github.com/waybill-dev/waybill/services/order/internal/order"
	"github.com/waybill-dev/waybill/services/order/internal/postgres"
)

// BenchmarkLife takes orders through their whole life, in batches of 64: stored, reserved, paid, shipped, delivered; eight events
// of other services each. It is this service's share of the platform's cost without HTTP, inbox and outbox.
func BenchmarkLife(b *testing.B) {
	pool, _ := testkit.Postgres(b, inbox.Migrations, postgres.Migrations)
	out := &records{tickets: map[string]string{}}
	s := New(Options{Pool: pool, Outbox: out, Log: zap.NewNop(), Registry: prometheus.NewRegistry()})
	s.SetTickets(out)
	w := &bench{t: b, pool: pool, saga: s, out: out, seq: map[string]int64{}}
	const size = 64
	cpu := func() (own, server float64) { // seconds; a busy machine changes the time, not these
		var ru syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
		own = float64(ru.Utime.Nano()+ru.Stime.Nano()) / 1e9
		rows, _ := pool.Query(b.Context(), `SELECT pid FROM pg_stat_activity WHERE datname = current_database()`)
		pids, _ := pgx.CollectRows(rows, pgx.RowTo[int])
		for _, pid := range pids {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); len(f) > 12 {
				user, _ := strconv.ParseFloat(f[11], 64)
				system, _ := strconv.ParseFloat(f[12], 64)
				server += (user + system) / 100
			}
		}
		return own, server
	}
	own, server := cpu()
	b.ResetTimer()
	for done := 0; done < b.N; done += size {
		orders := make([]*order.Order, size)
		answers := make([]Fact, size)
		var batches [4][]event.Event
		for i := range orders {
			id := fmt.Sprintf("o-%d", done+i)
			orders[i] = newOrder(id, one, order.Item{ProductID: "sku-2", Quantity: 1})
			answers[i] = Fact{Fact: order.Fact{Event: order.StockReserved}, OrderID: id}
			batches[0] = append(batches[0], w.event(event.InventoryReserved, id, &inventoryv1.InventoryReserved{OrderId: id, State: "pinned"}), w.initiated(id))
			batches[1] = append(batches[1], w.processed(id))
			batches[2] = append(batches[2], w.event(event.InventoryUpdated, id, &inventoryv1.InventoryUpdated{OrderId: id, Reason: "confirmed"}),
				w.event(event.ShippingRequested, id, &shippingv1.ShippingRequested{OrderId: id, Attempt: 1}),
				w.event(event.ShippingProgress, id, &shippingv1.ShippingProgress{OrderId: id, Attempt: 1, Status: "accepted"}))
			batches[3] = append(batches[3], w.event(event.ShippingProgress, id, &shippingv1.ShippingProgress{OrderId: id, Attempt: 1, Status: "in_transit"}),
				w.event(event.ShippingCompleted, id, &shippingv1.ShippingCompleted{OrderId: id, Attempt: 1}))
		}
		if err := s.Create(context.Background(), orders); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Apply(context.Background(), answers); err != nil {
			b.Fatal(err)
		}
		for _, events := range batches {
			if err := w.handle(events...); err != nil {
				b.Fatal(err)
			}
		}
		out.events = out.events[:0]
	}
	b.StopTimer()
	own2, server2 := cpu()
	b.ReportMetric((own2-own)*1e6/float64(b.N), "go-µs/op")
	b.ReportMetric((server2-server)*1e6/float64(b.N), "pg-µs/op")
	var hot, all int
	if err := pool.QueryRow(b.Context(), `SELECT coalesce(n_tup_hot_upd, 0), coalesce(n_tup_upd, 0) FROM pg_stat_user_tables WHERE relname = 'orders'`).Scan(&hot, &all); err == nil && all > 0 {
		b.ReportMetric(float64(hot)/float64(all), "hot/update")
	}
}
