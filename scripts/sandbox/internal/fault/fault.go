// Package fault makes the sandbox misbehave on request.
//
// A rule names a target, may be narrowed to orders by the beginning of their id, and says what goes wrong: an answer
// with a status, a delay, silence, or a business outcome. With AfterEffect the thing is done first and the caller is told
// otherwise: "did happen, caller told time-out", the fault that sagas die of.
//
// Rules live in memory: a restarted sandbox behaves well.
package fault

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Target is a thing that can go wrong.
type Target string

// The targets.
const (
	Charge       Target = "provider.charge"
	ChargeGet    Target = "provider.get"
	ChargeVoid   Target = "provider.void"
	RefundCreate Target = "provider.refund"
	ShipCreate   Target = "carrier.create"
	ShipGet      Target = "carrier.get"
	Mail         Target = "smtp"
	Webhook      Target = "webhook"
)

// Outcomes lists for each target the business outcomes that a rule may ask for.
var Outcomes = map[Target][]string{
	Charge:       {"declined"},
	ChargeGet:    nil,
	ChargeVoid:   nil,
	RefundCreate: {"failed"},
	ShipCreate:   {"refused", "lost"},
	ShipGet:      nil,
	Mail:         nil,
	Webhook:      {"drop", "twice"},
}

// Rule is one fault.
type Rule struct {
	ID     string
	Target Target
	// Match narrows the rule to order ids (target smtp: recipients) that begin so. Empty: all.
	Match string
	// Status answers with this HTTP status (target smtp: reply code). 0: the usual answer.
	Status int
	// Delay comes before the answer.
	Delay time.Duration
	// Timeout never answers: the request is held until the caller leaves.
	Timeout bool
	// AfterEffect does the thing before it delays, answers or stays silent.
	AfterEffect bool
	// Outcome is one of Outcomes[Target].
	Outcome string
	// Count is how often the rule applies; 0: until it is deleted.
	Count int
	// Rate is the share of the calls that it applies to, in (0,1]; 0 means all.
	Rate float64
}

// Set is the rules in force. The zero value has none. It is safe for concurrent use.
type Set struct {
	mu    sync.Mutex
	last  int
	rules []*Rule
}

// Add puts a rule behind those that there are and returns it with its id.
func (s *Set) Add(r Rule) Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.add(r)
}

func (s *Set) add(r Rule) Rule {
	s.last++
	r.ID = strconv.Itoa(s.last)
	s.rules = append(s.rules, &r)
	return r
}

// Replace puts rules in the place of all that there are.
func (s *Set) Replace(rules []Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = nil
	for _, r := range rules {
		s.add(r)
	}
}

// Delete takes the rule away and says whether there was one.
func (s *Set) Delete(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.rules)
	s.rules = slices.DeleteFunc(s.rules, func(r *Rule) bool { return r.ID == id })
	return len(s.rules) < n
}

// List copies the rules in force. Count is what is left of it.
func (s *Set) List() []Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Rule, len(s.rules))
	for i, r := range s.rules {
		out[i] = *r
	}
	return out
}

// Take returns the first rule for this call, using up one of its count. The zero rule means: behave.
func (s *Set) Take(t Target, subject string) Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range s.rules {
		if r.Target != t || !strings.HasPrefix(subject, r.Match) || (r.Rate > 0 && rand.Float64() >= r.Rate) {
			continue
		}
		taken := *r
		if r.Count == 1 {
			s.rules = slices.Delete(s.rules, i, i+1)
		} else if r.Count > 1 {
			r.Count--
		}
		return taken
	}
	return Rule{}
}

// holdTime is how long a silent call is held where the caller does not leave: longer than any caller's patience (a
// charge has 5 s), shorter than the server's write time-out of 30 s.
const holdTime = 20 * time.Second

// Hold waits until the caller has left or the hold time is over.
func Hold(ctx context.Context) { Wait(ctx, holdTime) }

// Wait waits for d or until the caller has left.
func Wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
