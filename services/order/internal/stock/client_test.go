package stock

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill/services/order/internal/order"
)

func orders(n, items int) []*order.Order {
	out := make([]*order.Order, n)
	for i := range out {
		o := &order.Order{ID: fmt.Sprintf("o-%03d", i), Tenant: 1, Amount: 5990, Currency: "EUR", Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
		for j := range items {
			o.Items = append(o.Items, order.Item{ProductID: fmt.Sprintf("%064d", j), Quantity: 1})
		}
		out[i] = o
	}
	return out
}

func TestReserve(t *testing.T) {
	var sizes []int
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Reservations []reservation }
		if r.URL.Path != "/inventory/reservations" || r.Header.Get("Content-Type") != "application/json" || r.ContentLength > 4<<20 {
			t.Errorf("%s %v, %d bytes", r.URL, r.Header, r.ContentLength)
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		sizes = append(sizes, len(body.Reservations))
		if len(sizes) == 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var results []Answer
		for _, q := range body.Reservations {
			results = append(results, Answer{OrderID: q.OrderID, Outcome: Pinned, Total: q.Amount, Currency: q.Currency})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"results": results})
	}))
	defer server.Close()
	c := New(server.URL+"/", nil)
	answers, err := c.Reserve(t.Context(), orders(2, 1))
	if diff := cmp.Diff([]Answer{{"o-000", Pinned, "", 5990, "EUR"}, {"o-001", Pinned, "", 5990, "EUR"}}, answers); err != nil || diff != "" {
		t.Errorf("%v, want - got +\n%s", err, diff)
	}
	// 256 orders of 100 long items are 2.7 MB: two calls. The answers to the first count, though the second fails.
	answers, err = c.Reserve(t.Context(), orders(256, 100))
	if err != nil || len(sizes) != 3 || sizes[1]+sizes[2] != 256 || len(answers) != sizes[1] {
		t.Errorf("%d answers, %v, calls of %v", len(answers), err, sizes)
	}
}

func TestNoAnswerIsAnError(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"503": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		},
		"garbage": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("{"))
		},
	} {
		server := httptest.NewServer(h)
		if answers, err := New(server.URL, nil).Reserve(t.Context(), orders(1, 1)); err == nil {
			t.Errorf("%s: %v", name, answers)
		}
		server.Close()
	}
}
