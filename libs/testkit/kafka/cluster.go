// Package kafka starts franz-go's kfake, the embedded broker, for tests and for the
// development stack, and mends what would make it differ from Apache Kafka there.
//
// A broker answers a JoinGroup when the group's rebalance ends, and the member's session
// begins with that answer. kfake (v0.0.0-20260918054303, its last release in November
// 2026) begins it only where the connection still stands. So a new member whose process
// is killed while it waits never times out: it keeps the partitions that it is given for
// as long as the group lives, and they have no reader. Apache Kafka begins the session in
// any case. The connections here stay open to kfake until it has answered what was asked
// on them, and so it does, too.
package kafka

import (
	"net"

	"github.com/twmb/franz-go/pkg/kfake"
)

// New is kfake.NewCluster on Listen. An option with another listener must build that on
// Listen as well.
func New(options ...kfake.Opt) (*kfake.Cluster, error) {
	return kfake.NewCluster(append([]kfake.Opt{kfake.ListenFn(Listen)}, options...)...)
}

// Listen is net.Listen with connections whose end a reader learns only after the answers.
func Listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	return listener{l}, nil
}

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newConnection(c), nil
}
