package proxy

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A client that begins at the proxy never leaves it, not for its group's coordinator either.
func TestKafkaClientsStayOnTheProxy(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	p, err := Listen("order>kafka", "127.0.0.1:0", cluster.ListenAddrs(), Kafka())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var mu sync.Mutex
	dialled := map[string]bool{}
	cl, err := kgo.NewClient(kgo.SeedBrokers(p.Addr), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DefaultProduceTopic("orders"), kgo.Dialer(func(ctx context.Context, network, host string) (net.Conn, error) {
			mu.Lock()
			dialled[host] = true
			mu.Unlock()
			return (&net.Dialer{}).DialContext(ctx, network, host)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	const records = 50
	for range records {
		cl.Produce(t.Context(), kgo.StringRecord("hello"), func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	for got := 0; got < records; {
		fetches := cl.PollFetches(t.Context())
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		got += fetches.NumRecords()
	}
	if err := cl.CommitUncommittedOffsets(t.Context()); err != nil {
		t.Error(err)
	}
	if len(dialled) != 1 || !dialled[p.Addr] {
		t.Errorf("the client went to %v, not only to the proxy at %s", dialled, p.Addr)
	}
}

// Every version that a client may speak is rewritten, and nothing but the addresses changes.
func TestRewriteEveryVersion(t *testing.T) {
	b := &broker{host: "127.0.0.1", port: 4711}
	for _, key := range []kmsg.Key{kmsg.Metadata, kmsg.FindCoordinator, kmsg.DescribeCluster} {
		for version := range kmsg.RequestForKey(key.Int16()).MaxVersion() + 1 {
			answer := func(host string, port int32) []byte {
				asked := kmsg.RequestForKey(key.Int16())
				asked.SetVersion(version)
				response := asked.ResponseKind()
				switch m := response.(type) {
				case *kmsg.MetadataResponse:
					m.Default()
					m.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 3, Host: host, Port: port}}
				case *kmsg.FindCoordinatorResponse:
					m.Default()
					m.Host, m.Port = host, port
					m.Coordinators = []kmsg.FindCoordinatorResponseCoordinator{{Key: "g", NodeID: 3, Host: host, Port: port}}
				case *kmsg.DescribeClusterResponse:
					m.Default()
					m.Brokers = []kmsg.DescribeClusterResponseBroker{{NodeID: 3, Host: host, Port: port}}
				}
				head := []byte{0, 0, 0, 0, 0, 0, 0, 9}
				if response.IsFlexible() {
					head = append(head, 0)
				}
				out := response.AppendTo(head)
				binary.BigEndian.PutUint32(out, uint32(len(out)-4))
				return out
			}
			got, err := b.rewrite(request{key.Int16(), version}, answer("kafka.example.com", 9092))
			if err != nil {
				t.Errorf("%s version %d: %v", key.Name(), version, err)
			} else if want := answer("127.0.0.1", 4711); string(got) != string(want) {
				t.Errorf("%s version %d:\n got %q\nwant %q", key.Name(), version, got, want)
			}
		}
	}
}

// Requests are followed however they are cut into writes.
func TestRequestsInPieces(t *testing.T) {
	frame := func(key, version int16, id int32, body int) []byte {
		f := binary.BigEndian.AppendUint32(nil, uint32(8+body))
		f = binary.BigEndian.AppendUint16(f, uint16(key))
		f = binary.BigEndian.AppendUint16(f, uint16(version))
		f = binary.BigEndian.AppendUint32(f, uint32(id))
		return append(f, make([]byte, body)...)
	}
	var all []byte
	all = append(all, frame(0, 9, 1, 300)...)
	all = append(all, frame(3, 12, 2, 17)...)
	all = append(all, frame(10, 4, 3, 0)...)
	all = append(all, frame(1, 13, 4, 1)...)
	for size := 1; size <= len(all); size++ {
		b := &broker{asked: map[int32]request{}}
		for from := 0; from < len(all); from += size {
			b.listen(all[from:min(from+size, len(all))])
		}
		if len(b.asked) != 2 || b.asked[2] != (request{3, 12}) || b.asked[3] != (request{10, 4}) {
			t.Fatalf("in pieces of %d: %v", size, b.asked)
		}
	}
}
