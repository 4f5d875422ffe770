package postgres_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

// cutter is a wire to the database that is cut at random: some answers, those to COMMIT among them, are lost after the
// server has done what it was asked.
type cutter struct {
	listener net.Listener
	target   string
	on       atomic.Bool
	cuts     atomic.Int64
	wg       sync.WaitGroup
}

func newCutter(t *testing.T, target string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: l, target: target}
	c.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.serve(client) })
		}
	})
	t.Cleanup(func() { l.Close(); c.wg.Wait() })
	return c
}

func (c *cutter) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	defer server.Close()
	c.wg.Go(func() {
		_, _ = io.Copy(server, client)
		server.Close()
	})
	buf := make([]byte, 32<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		// Answers come in a few reads per transaction, so one in ten cuts every third transaction or so.
		if c.on.Load() && rand.IntN(10) == 0 {
			c.cuts.Add(1)
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// Answers of the database are lost at random, also those to COMMIT. Whoever hears nothing asks again under the same order
// id: each order is reserved once and sold once.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	s := open(t)
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	c := newCutter(t, u.Host)
	u.Host = c.listener.Addr().String()
	pool, err := pgxpool.New(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	behind := &stockroom{t: t, pool: pool, Store: postgres.New(pool, published{}, terms, prometheus.NewRegistry())}
	c.on.Store(true)

	const orders = 40
	again := func(f func() error) {
		for try := 0; ; try++ {
			err := f()
			if err == nil {
				return
			}
			if !pg.Retryable(err) || try == 100 {
				t.Errorf("try %d: %v", try, err)
				return
			}
		}
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < orders; i += 4 {
				id := fmt.Sprint(i)
				again(func() error {
					replies, err := behind.Reserve(context.Background(), []postgres.Ask{pin(id, mugs(2))})
					if err == nil && replies[0].Outcome != stock.OutcomePinned {
						t.Errorf("order %s: %s", id, replies[0].Outcome)
					}
					return err
				})
				again(func() error {
					if i%2 == 0 {
						return behind.follow(paid(id, mugs(2)))
					}
					return behind.follow(cancelled(id, ""))
				})
			}
		})
	}
	wg.Wait()
	c.on.Store(false)
	if c.cuts.Load() < 10 {
		t.Errorf("only %d answers were lost: this proves nothing", c.cuts.Load())
	}
	s.has("mug", 100-orders, 0)
	if n := one[int](s, `SELECT count(*) FROM reservations WHERE event_seq = 2`); n != orders {
		t.Errorf("%d of %d orders have two events", n, orders)
	}
	s.conserves()
}
