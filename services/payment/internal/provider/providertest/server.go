// Package providertest is a payment provider for tests, written by hand: it speaks the provider's HTTP interface, keeps a
// ledger of what it really did, and misbehaves on demand. What callers are told and what has happened are two things.
package providertest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/services/payment/internal/provider"
)

// Call names an operation.
type Call string

// The operations.
const (
	Charge     Call = "charge"
	FindCharge Call = "find_charge"
	Void       Call = "void"
	Refund     Call = "refund"
	FindRefund Call = "find_refund"
)

// Fault is how one call goes wrong.
type Fault struct {
	Status int           // answer this instead; 0 together with Hang or Delay
	After  bool          // the effect happens all the same: the caller is told something else
	Hang   bool          // no answer until the caller gives up
	Delay  time.Duration // answer late
	Body   string        // answer this with 200
	Refuse bool          // of a refund: the definite no
	Gate   <-chan struct{}
}

// Entry is a line of the ledger.
type Entry struct {
	Kind, Key, OrderID string
	Amount             int64
	Currency           string
}

// Server is the provider.
type Server struct {
	URL string

	mu      sync.Mutex
	charges map[string]provider.Charge // by key
	refunds map[string]provider.Refund
	faults  map[string][]Fault // by call and order
	calls   map[string]int
	ledger  []Entry
}

// New starts a provider.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{charges: map[string]provider.Charge{}, refunds: map[string]provider.Refund{}, faults: map[string][]Fault{}, calls: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /provider/charges", s.charge)
	mux.HandleFunc("GET /provider/charges/{key}", s.findCharge)
	mux.HandleFunc("POST /provider/charges/{key}/void", s.void)
	mux.HandleFunc("POST /provider/refunds", s.refund)
	mux.HandleFunc("GET /provider/refunds/{key}", s.findRefund)
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		server.CloseClientConnections() // who hangs goes too
		server.Close()
	})
	s.URL = server.URL
	return s
}

// Inject queues faults for the next calls about an order.
func (s *Server) Inject(call Call, orderID string, faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := string(call) + " " + orderID
	s.faults[at] = append(s.faults[at], faults...)
}

// Calls says how often an operation was called about an order.
func (s *Server) Calls(call Call, orderID string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[string(call)+" "+orderID]
}

// Ledger lists what really happened to an order's money.
func (s *Server) Ledger(orderID string) []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Entry
	for _, e := range s.ledger {
		if e.OrderID == orderID {
			all = append(all, e)
		}
	}
	return all
}

// Kinds lists the kinds of Ledger.
func (s *Server) Kinds(orderID string) []string {
	var kinds []string
	for _, e := range s.Ledger(orderID) {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// begin counts the call and takes its fault; answered says that nothing is left to do.
func (s *Server) begin(w http.ResponseWriter, r *http.Request, call Call, orderID string) (f Fault, answered bool) {
	s.mu.Lock()
	at := string(call) + " " + orderID
	s.calls[at]++
	if len(s.faults[at]) > 0 {
		f, s.faults[at] = s.faults[at][0], s.faults[at][1:]
	}
	s.mu.Unlock()
	if f.Gate != nil {
		select {
		case <-f.Gate:
		case <-r.Context().Done():
			return f, true
		}
	}
	if !f.After {
		return f, s.misbehave(w, r, f)
	}
	return f, false
}

func (s *Server) misbehave(w http.ResponseWriter, r *http.Request, f Fault) bool {
	switch {
	case f.Hang:
		<-r.Context().Done()
		return true
	case f.Delay > 0:
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
		}
		return false
	case f.Body != "":
		_, _ = w.Write([]byte(f.Body))
		return true
	case f.Status != 0:
		w.WriteHeader(f.Status)
		return true
	}
	return false
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, f Fault, v any) {
	if f.After && s.misbehave(w, r, f) {
		return
	}
	_ = json.NewEncoder(w).Encode(v)
}

func (s *Server) charge(w http.ResponseWriter, r *http.Request) {
	var in provider.ChargeRequest
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	f, done := s.begin(w, r, Charge, in.OrderID)
	if done {
		return
	}
	s.mu.Lock()
	nth := s.calls[string(Charge)+" "+in.OrderID]
	c, known := s.charges[in.Key]
	switch {
	case known:
	case in.Method == "card_down", in.Method == "card_flaky" && nth <= 2:
		s.mu.Unlock()
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	default:
		c = provider.Charge{ID: "ch_" + in.OrderID, Key: in.Key, OrderID: in.OrderID, Amount: in.Amount, Currency: in.Currency, Status: provider.Captured}
		kind := "capture"
		if in.Method == "card_declined" {
			c.Status, c.Reason, kind = provider.Declined, "card_declined", "decline"
		}
		s.charges[in.Key] = c
		s.ledger = append(s.ledger, Entry{kind, in.Key, in.OrderID, in.Amount, in.Currency})
		if in.Method == "card_timeout" {
			f = Fault{After: true, Hang: true}
		}
	}
	s.mu.Unlock()
	s.answer(w, r, f, c)
}

func orderOf(key string) string { return key[:strings.IndexByte(key+":", ':')] }

func (s *Server) findCharge(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("key")
	f, done := s.begin(w, r, FindCharge, orderOf(key))
	if done {
		return
	}
	s.mu.Lock()
	c, known := s.charges[key]
	s.mu.Unlock()
	if !known {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	s.answer(w, r, f, c)
}

func (s *Server) void(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("key")
	f, done := s.begin(w, r, Void, orderOf(key))
	if done {
		return
	}
	s.mu.Lock()
	c, known := s.charges[key]
	if !known {
		c = provider.Charge{Key: key, OrderID: orderOf(key), Status: provider.Voided}
		s.charges[key] = c
		s.ledger = append(s.ledger, Entry{Kind: "void", Key: key, OrderID: c.OrderID})
	}
	s.mu.Unlock()
	s.answer(w, r, f, c)
}

func (s *Server) refund(w http.ResponseWriter, r *http.Request) {
	var in provider.RefundRequest
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	f, done := s.begin(w, r, Refund, in.OrderID)
	if done {
		return
	}
	s.mu.Lock()
	x, known := s.refunds[in.Key]
	if !known {
		x = provider.Refund{ID: "re_" + in.Key, Key: in.Key, Status: provider.Refunded}
		kind := "refund"
		if c := s.charges[in.ChargeKey]; f.Refuse || c.Status != provider.Captured || c.Amount < in.Amount {
			x.Status, x.Reason, kind = provider.Failed, "refund_refused", "refund_failed"
		}
		s.refunds[in.Key] = x
		s.ledger = append(s.ledger, Entry{kind, in.Key, in.OrderID, in.Amount, in.Currency})
	}
	s.mu.Unlock()
	s.answer(w, r, f, x)
}

func (s *Server) findRefund(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("key")
	f, done := s.begin(w, r, FindRefund, orderOf(key))
	if done {
		return
	}
	s.mu.Lock()
	x, known := s.refunds[key]
	s.mu.Unlock()
	if !known {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	s.answer(w, r, f, x)
}
