// Package statsd receives StatsD lines over UDP and TCP.
package statsd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/wire"
)

const (
	// datagram is the largest UDP can carry.
	datagram = 64 << 10
	// buffer is what the kernel may hold for us: some 50,000 lines. What comes beyond it is lost before anybody sees it.
	buffer = 4 << 20
	// connections bounds TCP; more wait.
	connections = 64
	// idle is how long a connection may be silent.
	idle = 5 * time.Minute
	// longestLine bounds a line over TCP.
	longestLine = 64 << 10
)

// Server listens on one address over both protocols. StatsD knows no authentication, so the address is a loopback one.
type Server struct {
	udp net.PacketConn
	tcp net.Listener
	new func() *wire.StatsD
}

// Listen opens the ports. Port 0 is chosen once for both.
func Listen(addr string, decoder func() *wire.StatsD) (*Server, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("read StatsD address: %w", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("StatsD address %s is not a loopback one: the protocol knows no authentication", addr)
	}
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("open StatsD over TCP: %w", err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open StatsD over UDP: %w", err), tcp.Close())
	}
	if c, ok := udp.(*net.UDPConn); ok {
		_ = c.SetReadBuffer(buffer) // the kernel may give less
	}
	return &Server{udp, tcp, decoder}, nil
}

// Addr is the address of both.
func (s *Server) Addr() string { return s.tcp.Addr().String() }

// Unseen is how many datagrams the kernel has dropped because nobody read them in time; 0 where it does not tell.
func (s *Server) Unseen() uint64 {
	c, ok := s.udp.(*net.UDPConn)
	if !ok {
		return 0
	}
	return kernelDrops(c)
}

// Run receives until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.udp.Close(); _ = s.tcp.Close() })
	defer stop()
	var running sync.WaitGroup
	running.Go(s.datagrams)
	slots := make(chan struct{}, connections)
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			_ = s.udp.Close()
			running.Wait()
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept StatsD connection: %w", err)
		}
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			s.connection(ctx, conn)
		})
	}
}

func (s *Server) datagrams() {
	d, b := s.new(), make([]byte, datagram)
	for {
		n, _, err := s.udp.ReadFrom(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of somebody else's datagram
		}
		_ = d.Decode(b[:n]) // books what it cannot read
	}
}

// connection reads lines. While they are aggregated nothing is read: TCP has the sender wait.
func (s *Server) connection(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	d, r := s.new(), bufio.NewReaderSize(conn, longestLine)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(idle))
		if _, err := r.Peek(1); err != nil {
			return
		}
		b, _ := r.Peek(r.Buffered())
		end := bytes.LastIndexByte(b, '\n')
		if end < 0 { // wait for the rest of a line
			more, err := r.Peek(len(b) + 1)
			if err != nil {
				if errors.Is(err, bufio.ErrBufferFull) {
					return // no line of ours is as long
				}
				_ = d.Decode(more) // the last line may have no end
				return
			}
			continue
		}
		_ = d.Decode(b[:end+1])
		_, _ = r.Discard(end + 1)
	}
}
