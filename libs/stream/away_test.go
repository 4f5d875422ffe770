package stream

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/IBM/sarama"
)

// An outage of the brokers, however long, neither ends the process nor makes it unhealthy; a group that refuses its member does.
func TestBrokersThatAreAwayAreNotTheMembersTrouble(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	config := sarama.NewConfig()
	config.Metadata.Retry.Max = 0
	_, refused := sarama.NewClient([]string{nobody}, config)
	if refused == nil {
		t.Fatal("somebody answered")
	}
	for _, c := range []struct {
		err  error
		away bool
	}{
		{refused, true},
		{fmt.Errorf("join: %w", sarama.ErrConsumerCoordinatorNotAvailable), true},
		{&net.OpError{Op: "read", Err: errors.New("i/o timeout")}, true},
		{sarama.ErrUnknownMemberId, false},
		{sarama.ErrGroupAuthorizationFailed, false},
		{sarama.ErrInconsistentGroupProtocol, false},
	} {
		m := &Consumer{group: "g", unjoined: time.Now().Add(-time.Hour), joinErr: c.err}
		if got := away(c.err); got != c.away {
			t.Errorf("%v: away %v, want %v", c.err, got, c.away)
		}
		if healthy := m.Healthy() == nil; healthy != c.away {
			t.Errorf("%v for an hour: healthy %v, want %v", c.err, healthy, c.away)
		}
	}
	if m := (&Consumer{unjoined: time.Now().Add(-time.Hour)}); m.Healthy() == nil {
		t.Error("healthy although nothing has come of an hour of joining")
	}
	if m := (&Consumer{unjoined: time.Now().Add(-2 * time.Minute)}); m.Healthy() != nil {
		t.Error("unhealthy although it waits for the others of its group")
	}
}
