package proxy

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

const (
	pieceBytes = 16 << 10
	// inFlight is how many pieces a direction holds back: half a megabyte, about what two
	// sockets' buffers would.
	inFlight   = 32
	slicePause = time.Millisecond
)

var pieces = sync.Pool{New: func() any { return new([pieceBytes]byte) }}

// piece is what was read at once.
type piece struct {
	buffer *[pieceBytes]byte
	n      int
	at     time.Time
}

var errLimit = errors.New("the toxic's limit is reached")

// link is a connection and its other side.
type link struct {
	edge   interface{ condition() *condition }
	caller net.Conn
	callee net.Conn
}

// run carries both directions until both have ended, one has failed, or ctx is over.
func (l *link) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { reset(l.caller); reset(l.callee) })
	var ways sync.WaitGroup
	carry := func(way Direction, from, to net.Conn) {
		if err := l.carry(ctx, way, from, to); err != nil {
			cancel() // half a connection is of use to nobody
		}
	}
	ways.Go(func() { carry(Requests, l.caller, l.callee) })
	ways.Go(func() { carry(Responses, l.callee, l.caller) })
	aging := make(chan struct{})
	go func() { defer close(aging); l.age(ctx, cancel) }()
	ways.Wait()
	cancel()
	<-aging
	l.caller.Close()
	l.callee.Close()
}

// reset has the peer see RST instead of an orderly end.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// age ends the connection when a toxic says that it is old enough.
func (l *link) age(ctx context.Context, end func()) {
	opened := time.Now()
	for {
		c := l.edge.condition()
		var due <-chan time.Time
		if c.requests.ResetAfterMS > 0 {
			from := c.since
			if opened.After(from) {
				from = opened
			}
			due = time.After(time.Until(from.Add(time.Duration(c.requests.ResetAfterMS) * time.Millisecond)))
		}
		select {
		case <-due:
			end()
			return
		case <-c.changed:
		case <-ctx.Done():
			return
		}
	}
}

// carry brings one direction over. nil: the sender has ended it in order.
func (l *link) carry(ctx context.Context, way Direction, from, to net.Conn) error {
	// The reader ends when its connection is closed, which the end of ctx does, or when
	// nobody takes what it reads any more.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	queue := make(chan piece, inFlight)
	var failed error
	go func() {
		defer close(queue)
		for {
			p := piece{buffer: pieces.Get().(*[pieceBytes]byte)}
			var err error
			p.n, err = from.Read(p.buffer[:])
			p.at = time.Now()
			if p.n > 0 {
				select {
				case queue <- p:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				if err != io.EOF {
					failed = err
				}
				return
			}
		}
	}()
	passed, under := 0, (*condition)(nil)
	for {
		p, more := <-queue
		if !more {
			p.at = time.Now()
		}
		c, err := l.delay(ctx, way, p.at)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if c != under { // a limit counts from when it was set
			passed, under = 0, c
		}
		if err := l.pass(ctx, c.of(way), to, p.buffer[:p.n], &passed); err != nil {
			return err
		}
		pieces.Put(p.buffer)
	}
	if failed != nil {
		return failed
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return io.EOF
}

// delay waits until what was sent at a moment may arrive, and returns the condition then.
func (l *link) delay(ctx context.Context, way Direction, at time.Time) (*condition, error) {
	for {
		c := l.edge.condition()
		t := c.of(way)
		var due <-chan time.Time
		if !t.Blackhole {
			late := time.Duration(t.LatencyMS) * time.Millisecond
			if t.JitterMS > 0 {
				late += rand.N(time.Duration(t.JitterMS) * time.Millisecond)
			}
			wait := time.Until(at.Add(late))
			if late == 0 || wait <= 0 {
				return c, nil
			}
			due = time.After(wait)
		}
		select {
		case <-due:
			return c, nil
		case <-c.changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// pass writes as fast as the toxic lets it.
func (l *link) pass(ctx context.Context, t Toxic, to net.Conn, b []byte, passed *int) error {
	for len(b) > 0 {
		n, pause := len(b), time.Duration(0)
		if t.SliceBytes > 0 {
			n, pause = min(n, t.SliceBytes), slicePause
		}
		if t.BytesPerSecond > 0 {
			n = min(n, max(t.BytesPerSecond/10, 1))
			pause = max(pause, time.Duration(n)*time.Second/time.Duration(t.BytesPerSecond))
		}
		if t.LimitBytes > 0 {
			if n = min(n, t.LimitBytes-*passed); n <= 0 {
				return errLimit
			}
		}
		if _, err := to.Write(b[:n]); err != nil {
			return err
		}
		*passed += n
		b = b[n:]
		if pause == 0 || len(b) == 0 && t.BytesPerSecond == 0 {
			continue
		}
		c := l.edge.condition()
		select {
		case <-time.After(pause):
		case <-c.changed: // the rest goes as the new condition says, at the next piece
			if c = l.edge.condition(); c.requests.BytesPerSecond == 0 && c.responses.BytesPerSecond == 0 {
				t = Toxic{}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
