package kafka

import (
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// answerWait is how long an answer is waited for: a rebalance lasts at most its members'
// time-out (a minute for sarama, five for Kafka's own client), and some requests have no
// answer (a produce without acknowledgement).
const answerWait = 5 * time.Minute

// connection hides that its peer is gone while requests are unanswered. kfake reads with one
// goroutine and writes each answer with one Write.
type connection struct {
	net.Conn
	requests requests     // read so far
	owed     atomic.Int64 // answers
	answered chan struct{}
	closed   chan struct{}
	close    func() error
}

func newConnection(c net.Conn) *connection {
	closed := make(chan struct{})
	return &connection{Conn: c, answered: make(chan struct{}, 1), closed: closed, close: sync.OnceValue(func() error {
		close(closed)
		return c.Close()
	})}
}

func (c *connection) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.owed.Add(c.requests.count(p[:n]))
	if err == nil {
		return n, nil
	}
	enough := time.NewTimer(answerWait)
	defer enough.Stop()
	for c.owed.Load() > 0 {
		select {
		case <-c.answered:
		case <-c.closed:
			return n, err
		case <-enough.C:
			return n, err
		}
	}
	return n, err
}

func (c *connection) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.owed.Add(-1)
	select {
	case c.answered <- struct{}{}:
	default:
	}
	return n, err
}

func (c *connection) Close() error { return c.close() }

// requests finds the ends of requests in what is read: each is its size, in four bytes, and as many bytes.
type requests struct {
	size [4]byte
	have int // bytes of the size
	left int // bytes of the request
}

func (r *requests) count(p []byte) (ended int64) {
	for len(p) > 0 {
		if r.have < len(r.size) {
			n := copy(r.size[r.have:], p)
			r.have, p = r.have+n, p[n:]
			if r.have < len(r.size) {
				return ended
			}
			r.left = int(binary.BigEndian.Uint32(r.size[:]))
		}
		n := min(r.left, len(p))
		r.left, p = r.left-n, p[n:]
		if r.left == 0 {
			r.have = 0
			ended++
		}
	}
	return ended
}
