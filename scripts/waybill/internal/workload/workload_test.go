package workload

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/client"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/history"
)

// gateway accepts everything, and answers the first try of each order with 503.
type gateway struct {
	mu     sync.Mutex
	orders map[string]int
	seen   map[string]int
	enough func() // called when an order was read and one was cancelled
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if strings.HasPrefix(r.URL.Path, "/orders/") {
		if g.seen[r.Method]++; g.seen[http.MethodGet] > 0 && g.seen[http.MethodPost] > 0 {
			g.enough()
		}
	}
	switch {
	case r.URL.Path == "/auth/login":
		_, _ = w.Write([]byte(`{"access_token":"t"}`))
	case r.Method == http.MethodPost && r.URL.Path == "/orders":
		var o client.NewOrder
		_ = json.NewDecoder(r.Body).Decode(&o)
		if g.orders[o.OrderID]++; g.orders[o.OrderID] == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	case first == "interventions" || r.Method == http.MethodGet && r.URL.Path == "/orders":
		_, _ = w.Write([]byte(`{"items":[]}`))
	default:
		_, _ = w.Write([]byte(`{"timeline":[{},{}]}`))
	}
}

// Everything that is sent is written down, once for each try, and what found no answer is
// sent again until it does.
func TestEveryTryIsInTheHistory(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g := &gateway{orders: map[string]int{}, seen: map[string]int{}, enough: cancel}
	server := httptest.NewServer(g)
	defer server.Close()
	path := filepath.Join(t.TempDir(), "history.jsonl")
	log, err := history.NewWriter(path)
	if err != nil {
		t.Fatal(err)
	}
	w := New(Options{Gateway: server.URL, History: log, Rate: 200, Seed: 1, Prefix: "t-", Stock: 10})
	if err := w.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	kinds := map[history.Kind]int{}
	tries, accepted := map[string]int{}, map[string]bool{}
	if err := history.ReadFile(path, func(op history.Op) error {
		kinds[op.Op]++
		if op.Op == history.Create {
			tries[op.ID]++
			accepted[op.ID] = accepted[op.ID] || op.Type == history.OK
			if op.Sent == "" || op.Caller == "" {
				t.Errorf("order %s: nobody knows what was asked for by whom", op.ID)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for id, n := range g.orders {
		if tries[id] != n || !accepted[id] {
			t.Errorf("order %s was sent %d times, written down %d times, accepted: %v", id, n, tries[id], accepted[id])
		}
	}
	c := w.Counts()
	if len(g.orders) == 0 || c.Orders != int64(len(g.orders)) || c.Accepted != c.Orders || c.Unknown != 0 {
		t.Errorf("%d orders arrived; counted %+v", len(g.orders), c)
	}
	for _, kind := range []history.Kind{history.Settings, history.Restock, history.Create, history.Get, history.Cancel} {
		if kinds[kind] == 0 {
			t.Errorf("no %s was written down: %v", kind, kinds)
		}
	}
}

// The mix is RELIABILITY's, within what chance does to 20,000 draws.
func TestOrdersAreMixed(t *testing.T) {
	t.Parallel()
	w := New(Options{})
	rnd := rand.New(rand.NewPCG(1, 1))
	seen := map[string]int{}
	const n = 20_000
	for range n {
		p := w.newOrder(rnd, "o", w.shopper(rnd))
		seen[p.order.Method]++
		if len(p.order.Items) == 0 {
			seen["charge only"]++
		} else if p.order.Items[productID(0)] > 0 {
			seen["most popular"]++
		}
		if p.shopper.tenant == 2 {
			seen["other tenant"]++
		}
		var in client.NewOrder
		if err := json.Unmarshal(p.body, &in); err != nil || in.OrderID != "o" || len(in.Items) != len(p.order.Items) {
			t.Fatalf("%s %v", p.body, err)
		}
	}
	for what, want := range map[string]float64{"card": .80, "card_declined": .08, "card_timeout": .05, "card_down": .01, "charge only": .145, "other tenant": .05, "most popular": .45} {
		if got := float64(seen[what]) / n; got < want*.7 || got > want*1.3 {
			t.Errorf("%s: %.3f, not about %.3f", what, got, want)
		}
	}
}

func TestOtherBodyIsAnotherOrder(t *testing.T) {
	t.Parallel()
	w := New(Options{})
	rnd := rand.New(rand.NewPCG(1, 1))
	p := w.newOrder(rnd, "o", w.customers[0])
	body, other := p.otherBody()
	if other.Hash() == p.order.Hash() || string(body) == string(p.body) || other.ID != p.id {
		t.Errorf("%s is not another order than %s", body, p.body)
	}
}
