package kafka_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/libs/testkit/kafka"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A process is killed while its first JoinGroup waits for another member. The session that it never had must end all the
// same, or its partitions have no reader for as long as the group lives.
func TestAMemberKilledWhileItJoinsTimesOut(t *testing.T) {
	t.Parallel()
	const session = 500 * time.Millisecond
	cluster, err := kafka.New(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.min.session.timeout.ms": "100"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	reader, killed := dial(t, cluster, session), dial(t, cluster, session)

	reader.begin()
	if got := reader.join(); len(got.Members) != 1 {
		t.Fatalf("joined with %d members, want to be alone", len(got.Members))
	}
	reader.sync()

	killed.begin()
	killed.send(killed.joining())
	reader.beat(kerr.RebalanceInProgress)
	killed.kill()
	for range 200 { // the broker sees the end meanwhile
		reader.beat(nil, kerr.RebalanceInProgress)
	}
	if got := reader.join(); len(got.Members) != 2 {
		t.Fatalf("joined with %d members, want the killed one, too", len(got.Members))
	}
	reader.sync()

	reader.beat(kerr.RebalanceInProgress)
	if got := reader.join(); len(got.Members) != 1 {
		t.Errorf("joined with %d members, want to be alone again", len(got.Members))
	}
}

// An answer that nobody reads must not keep a connection, nor one that never comes the cluster.
func TestAConnectionEndsWithItsLastAnswer(t *testing.T) {
	t.Parallel()
	cluster, err := kafka.New(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	idle, waiting := dial(t, cluster, time.Minute), dial(t, cluster, time.Minute)
	idle.begin()
	idle.shut()
	if _, err := idle.conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("an idle connection: %v, want its end", err)
	}

	arrived := make(chan struct{})
	cluster.ControlKey(kmsg.JoinGroup.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		close(arrived)
		return nil, nil, true
	})
	waiting.send(waiting.joining())
	<-arrived
	waiting.shut() // goleak tells whether the cluster's end is this one's, too
}

// member speaks for one member of a group, as a client does.
type member struct {
	*testing.T
	conn    net.Conn
	session time.Duration
	id      string
	joined  kmsg.JoinGroupResponse
}

func dial(t *testing.T, cluster *kfake.Cluster, session time.Duration) *member {
	t.Helper()
	conn, err := net.Dial("tcp", cluster.ListenAddrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &member{T: t, conn: conn, session: session}
}

func (m *member) send(r kmsg.Request) {
	m.Helper()
	if _, err := m.conn.Write(kmsg.NewRequestFormatter().AppendRequest(nil, r, 1)); err != nil {
		m.Fatal(err)
	}
}

func (m *member) ask(r kmsg.Request, into kmsg.Response) {
	m.Helper()
	m.send(r)
	var size [4]byte
	if _, err := io.ReadFull(m.conn, size[:]); err != nil {
		m.Fatalf("%T: %v", r, err)
	}
	answer := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(m.conn, answer); err != nil {
		m.Fatalf("%T: %v", r, err)
	}
	into.SetVersion(r.GetVersion())
	if err := into.ReadFrom(answer[4:]); err != nil { // behind its number
		m.Fatalf("%T: %v", r, err)
	}
}

func (m *member) joining() kmsg.Request {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Version = 5 // the last one before flexible headers
	r.Group, r.MemberID, r.ProtocolType = "readers", m.id, "consumer"
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = int32(m.session.Milliseconds()), 10_000
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name = "sticky"
	r.Protocols = append(r.Protocols, p)
	return r
}

// begin asks for a member id.
func (m *member) begin() {
	m.Helper()
	m.ask(m.joining(), &m.joined)
	if m.joined.ErrorCode != kerr.MemberIDRequired.Code {
		m.Fatalf("a member without an id is told %v", kerr.ErrorForCode(m.joined.ErrorCode))
	}
	m.id = m.joined.MemberID
}

func (m *member) join() kmsg.JoinGroupResponse {
	m.Helper()
	m.joined = kmsg.NewJoinGroupResponse()
	m.ask(m.joining(), &m.joined)
	if err := kerr.ErrorForCode(m.joined.ErrorCode); err != nil || m.joined.LeaderID != m.id {
		m.Fatalf("join: %v, led by %q, want this member (%q) to lead", err, m.joined.LeaderID, m.id)
	}
	return m.joined
}

// sync gives every member something.
func (m *member) sync() {
	m.Helper()
	r := kmsg.NewPtrSyncGroupRequest()
	r.Version = 3
	r.Group, r.MemberID, r.Generation = "readers", m.id, m.joined.Generation
	for i, other := range m.joined.Members {
		a := kmsg.NewSyncGroupRequestGroupAssignment()
		a.MemberID, a.MemberAssignment = other.MemberID, fmt.Append(nil, "partition ", i)
		r.GroupAssignment = append(r.GroupAssignment, a)
	}
	synced := kmsg.NewSyncGroupResponse()
	m.ask(r, &synced)
	if err := kerr.ErrorForCode(synced.ErrorCode); err != nil || len(synced.MemberAssignment) == 0 {
		m.Fatalf("sync: %v, assigned %q", err, synced.MemberAssignment)
	}
}

// beat sends heartbeats until the answer is one of those.
func (m *member) beat(until ...error) {
	m.Helper()
	r := kmsg.NewPtrHeartbeatRequest()
	r.Version = 3
	r.Group, r.MemberID, r.Generation = "readers", m.id, m.joined.Generation
	for {
		beaten := kmsg.NewHeartbeatResponse()
		m.ask(r, &beaten)
		err := kerr.ErrorForCode(beaten.ErrorCode)
		for _, u := range until {
			if err == u {
				return
			}
		}
		if err != nil {
			m.Fatalf("heartbeat: %v", err)
		}
	}
}

// shut ends what is sent, and leaves open what is received.
func (m *member) shut() {
	m.Helper()
	if err := m.conn.(*net.TCPConn).CloseWrite(); err != nil {
		m.Fatal(err)
	}
}

func (m *member) kill() {
	m.Helper()
	if err := m.conn.Close(); err != nil {
		m.Fatal(err)
	}
}
