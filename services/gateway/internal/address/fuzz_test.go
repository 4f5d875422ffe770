package address

import (
	"net/http"
	"strings"
	"testing"
)

// Nobody who is not a proxy of ours decides what he is called: the client is the peer, or an address that a trusted hop wrote.
func FuzzClient(f *testing.F) {
	f.Add("10.0.0.1:4711", "203.0.113.7, 10.0.0.2")
	f.Add("192.0.2.1:80", "127.0.0.1")
	f.Add("[::ffff:10.0.0.1]:1", "2001:db8::1%eth0,,")
	f.Add("10.0.0.1:1", ",,,,")
	book, err := NewBook([]string{"10.0.0.0/8", "fd00::/8"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, peer, hops string) {
		r := &http.Request{RemoteAddr: peer, Header: http.Header{"X-Forwarded-For": {hops}}}
		got := book.Client(r)
		if p := Peer(r); !book.Contains(p) && got != p {
			t.Fatalf("%q, who is not trusted, is called %s for %q", peer, got, hops)
		}
		// Whatever a client puts in front, the last address that is not ours counts.
		if got.IsValid() && !book.Contains(got) {
			r.Header = http.Header{"X-Forwarded-For": {"198.51.100.1", hops}}
			if again := book.Client(r); again != got {
				t.Fatalf("%q, %q: %s, and with an address in front %s", peer, hops, got, again)
			}
		}
		if got.IsValid() && strings.ContainsAny(Key(got), " \n%") {
			t.Fatalf("%s is counted as %q", got, Key(got))
		}
	})
}
