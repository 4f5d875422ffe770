// Package address finds out where a request comes from, without believing what the request says about it.
package address

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// Book knows which peers are proxies of ours.
type Book struct{ trusted []netip.Prefix }

// NewBook reads CIDRs. Empty means that nobody is believed.
func NewBook(cidrs []string) (Book, error) {
	var b Book
	for _, c := range cidrs {
		p, err := netip.ParsePrefix(strings.TrimSpace(c))
		if err != nil {
			return b, fmt.Errorf("read trusted network %q: %w", c, err)
		}
		b.trusted = append(b.trusted, p.Masked())
	}
	return b, nil
}

// Contains says whether an address is in one of the networks.
func (b Book) Contains(a netip.Addr) bool {
	for _, p := range b.trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Peer is the other end of the connection.
func Peer(r *http.Request) netip.Addr {
	p, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr().Unmap().WithZone("")
}

// Client is the address nearest to us that is not a proxy of ours. X-Forwarded-For is read from the right, because a client
// can write anything on the left, and only as long as whoever wrote the entry is trusted.
func (b Book) Client(r *http.Request) netip.Addr {
	client := Peer(r)
	if !b.Contains(client) {
		return client
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		a, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			return client
		}
		client = a.Unmap().WithZone("")
		if !b.Contains(client) {
			return client
		}
	}
	return client
}

// Key is the address as limits count it: an IPv6 subscriber owns at least a /64, so counting single addresses would count nothing.
func Key(a netip.Addr) string {
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}
