package proxy

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Kafka makes the proxy name itself where a broker names its address, which clients follow
// after their first question: without it they would go around the proxy, or all processes
// would have to share one. For clusters of one broker.
func Kafka() Option {
	return func(p *Proxy) {
		host, port, _ := net.SplitHostPort(p.Addr)
		n, _ := strconv.Atoi(port)
		p.wrap = func(callee net.Conn) net.Conn {
			return &broker{Conn: callee, host: host, port: int32(n), answers: bufio.NewReaderSize(callee, pieceBytes), asked: map[int32]request{}}
		}
	}
}

// maxAnswer bounds the answers that are rewritten: a few topics' metadata have some kilobytes.
const maxAnswer = 8 << 20

// requestHead is length, key, version and correlation id.
const requestHead = 12

type request struct{ key, version int16 }

// broker is the connection to a broker: writes are requests, reads are answers.
type broker struct {
	net.Conn
	host string
	port int32

	head []byte // of the request that is being written, until it is whole
	rest int    // bytes of it after the head

	mu    sync.Mutex
	asked map[int32]request // those whose answers name brokers

	answers *bufio.Reader
	pass    int    // bytes of the answer that go as they are
	ready   []byte // of the one that was rewritten
}

func (b *broker) CloseWrite() error {
	if half, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

func (b *broker) Write(p []byte) (int, error) {
	b.listen(p)
	return b.Conn.Write(p)
}

// listen follows the requests and remembers those that matter, before they are sent.
func (b *broker) listen(p []byte) {
	for len(p) > 0 {
		if b.rest > 0 {
			n := min(b.rest, len(p))
			b.rest -= n
			p = p[n:]
			continue
		}
		n := min(requestHead-len(b.head), len(p))
		b.head = append(b.head, p[:n]...)
		p = p[n:]
		if len(b.head) < requestHead {
			return
		}
		size := int(int32(binary.BigEndian.Uint32(b.head)))
		r := request{int16(binary.BigEndian.Uint16(b.head[4:])), int16(binary.BigEndian.Uint16(b.head[6:]))}
		switch kmsg.Key(r.key) {
		case kmsg.Metadata, kmsg.FindCoordinator, kmsg.DescribeCluster:
			b.mu.Lock()
			b.asked[int32(binary.BigEndian.Uint32(b.head[8:]))] = r
			b.mu.Unlock()
		}
		b.rest = max(size-(requestHead-4), 0)
		b.head = b.head[:0]
	}
}

func (b *broker) Read(p []byte) (int, error) {
	for {
		if len(b.ready) > 0 {
			n := copy(p, b.ready)
			b.ready = b.ready[n:]
			return n, nil
		}
		if b.pass > 0 {
			n, err := b.answers.Read(p[:min(len(p), b.pass)])
			b.pass -= n
			return n, err
		}
		head, err := b.answers.Peek(8)
		if err != nil {
			if len(head) > 0 && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		size, id := int(int32(binary.BigEndian.Uint32(head))), int32(binary.BigEndian.Uint32(head[4:]))
		b.mu.Lock()
		r, ours := b.asked[id]
		delete(b.asked, id)
		b.mu.Unlock()
		if !ours {
			b.pass = 4 + size
			continue
		}
		if size < 4 || size > maxAnswer {
			return 0, fmt.Errorf("an answer of %d bytes", size)
		}
		answer := make([]byte, 4+size)
		if _, err := io.ReadFull(b.answers, answer); err != nil {
			return 0, err
		}
		if b.ready, err = b.rewrite(r, answer); err != nil {
			return 0, err
		}
	}
}

// rewrite puts the proxy's address in the place of every broker's.
func (b *broker) rewrite(r request, answer []byte) ([]byte, error) {
	asked := kmsg.RequestForKey(r.key)
	if asked == nil || r.version > asked.MaxVersion() {
		return nil, fmt.Errorf("%s version %d is not known here", kmsg.NameForKey(r.key), r.version)
	}
	asked.SetVersion(r.version)
	response := asked.ResponseKind()
	head := 8
	if response.IsFlexible() {
		head++ // the number of tagged fields of the header: Kafka defines none
		if answer[8] != 0 {
			return nil, fmt.Errorf("%s with tagged fields in its header", kmsg.NameForKey(r.key))
		}
	}
	if err := response.ReadFrom(answer[head:]); err != nil {
		return nil, fmt.Errorf("read %s: %w", kmsg.NameForKey(r.key), err)
	}
	switch m := response.(type) {
	case *kmsg.MetadataResponse:
		for i := range m.Brokers {
			m.Brokers[i].Host, m.Brokers[i].Port = b.host, b.port
		}
	case *kmsg.FindCoordinatorResponse:
		m.Host, m.Port = b.host, b.port
		for i := range m.Coordinators {
			m.Coordinators[i].Host, m.Coordinators[i].Port = b.host, b.port
		}
	case *kmsg.DescribeClusterResponse:
		for i := range m.Brokers {
			m.Brokers[i].Host, m.Brokers[i].Port = b.host, b.port
		}
	}
	out := response.AppendTo(append([]byte{}, answer[:head]...))
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out, nil
}
