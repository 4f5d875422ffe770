package address

import (
	"net/http/httptest"
	"testing"
)

func TestClient(t *testing.T) {
	for _, c := range []struct {
		trusted []string
		remote  string
		forward []string
		want    string
	}{
		{nil, "203.0.113.7:1", nil, "203.0.113.7"},
		{nil, "203.0.113.7:1", []string{"10.1.1.1"}, "203.0.113.7"},
		{[]string{"10.0.0.0/8"}, "203.0.113.7:1", []string{"10.1.1.1"}, "203.0.113.7"},
		{[]string{"10.0.0.0/8"}, "10.0.0.1:1", []string{"203.0.113.7"}, "203.0.113.7"},
		{[]string{"10.0.0.0/8"}, "10.0.0.1:1", []string{"1.1.1.1, 203.0.113.7"}, "203.0.113.7"},
		{[]string{"10.0.0.0/8"}, "10.0.0.1:1", []string{"1.1.1.1, 203.0.113.7, 10.0.0.2"}, "203.0.113.7"},
		{[]string{"10.0.0.0/8"}, "10.0.0.1:1", []string{"1.1.1.1", "203.0.113.7"}, "203.0.113.7"},
		{[]string{"10.0.0.0/8"}, "10.0.0.1:1", []string{"1.1.1.1, rubbish, 10.0.0.2"}, "10.0.0.2"},
		{[]string{"10.0.0.0/8"}, "10.0.0.1:1", nil, "10.0.0.1"},
		{[]string{"10.0.0.0/8"}, "[::ffff:10.0.0.1]:1", []string{"::ffff:203.0.113.7"}, "203.0.113.7"},
		{nil, "[2001:db8::1%eth0]:1", nil, "2001:db8::1"},
	} {
		book, err := NewBook(c.trusted)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.remote
		r.Header["X-Forwarded-For"] = c.forward
		if got := book.Client(r).String(); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
	if _, err := NewBook([]string{"10.0.0.1"}); err == nil {
		t.Error("an address without a length is taken for a network")
	}
}

func TestKeyOfAnIPv6SubscriberIsTheirNetwork(t *testing.T) {
	var keys []string
	for _, remote := range []string{"[2001:db8::1]:1", "[2001:db8::ffff:1]:2", "[2001:db8:0:1::1]:1"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = remote
		keys = append(keys, Key(Peer(r)))
	}
	if keys[0] != "2001:db8::/64" || keys[1] != keys[0] || keys[2] == keys[0] {
		t.Errorf("got %v", keys)
	}
}
