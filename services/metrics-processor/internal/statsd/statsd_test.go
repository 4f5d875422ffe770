package statsd

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/libs/testkit"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t *testing.T, src *aggregate.Source) (*aggregate.Aggregator, *Server) {
	a, err := aggregate.New(aggregate.Options{Series: 100}, src)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	s, err := Listen("127.0.0.1:0", func() *wire.StatsD { return wire.NewStatsD(a, src) })
	if err != nil {
		t.Fatal(err)
	}
	return a, s
}

func dial(t *testing.T, network string, s *Server) net.Conn {
	c, err := net.Dial(network, s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// Lines that are cut anywhere, one without an end, and datagrams beside them.
func TestBothProtocols(t *testing.T) {
	src := &aggregate.Source{Name: "statsd"}
	a, s := listen(t, src)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	tcp, udp := dial(t, "tcp", s), dial(t, "udp", s)
	for _, part := range []string{"a:1|", "c\na:2", "|c\n", "a:3|c\na:4|c"} {
		send(t, tcp, part)
	}
	_ = tcp.Close()
	send(t, udp, "a:10|c\na:20|c")
	testkit.Eventually(t, 10*time.Second, func() bool { return a.Ledger()[0].Aggregated == 6 }, "lines are missing")
	a.Sums(aggregate.Matcher{Name: "a"}, func(x aggregate.Sum) bool {
		if x.Sum != 40 {
			t.Errorf("%+v", x)
		}
		return true
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestOnlyLoopback(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "x"} {
		if s, err := Listen(addr, nil); err == nil {
			t.Errorf("%s is listened on", s.Addr())
		}
	}
}

// What the kernel drops while nobody reads is told apart from what is accepted: sent is both.
func TestKernelDropsAreTold(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED: only Linux tells what it drops")
	}
	src := &aggregate.Source{Name: "statsd"}
	a, s := listen(t, src)
	src.Unseen = s.Unseen
	if err := s.udp.(*net.UDPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	udp := dial(t, "udp", s)
	const sent = 2000
	for i := range sent {
		send(t, udp, fmt.Sprintf("a:%d|c", i))
	}
	unseen := a.Ledger()[0].Unseen
	if unseen == 0 || unseen >= sent {
		t.Fatalf("%d of %d unseen", unseen, sent)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	testkit.Eventually(t, 10*time.Second, func() bool {
		l := a.Ledger()[0]
		return l.Accepted+l.Unseen == sent
	}, "what was sent is neither accepted nor unseen")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
