// Package oracle proves from the stores alone that nothing was lost, doubled, oversold or left half done: it reads every
// service's database, the four topics from their beginning and the books of the sandbox, and compares. What a service says
// of itself counts for nothing.
//
// It writes nothing, and holds in memory what it needs of one topic at a time: some 150 bytes per order.
package oracle

import (
	"fmt"
	"strings"
	"time"
)

// Target says what is checked.
type Target struct {
	Postgres string   // URL without a database name, of a role that may read everything
	Kafka    []string // brokers, host:port
	Sandbox  string   // URL of the sandbox, which plays provider, carrier and mail server
	// History is the file that a load process wrote; empty: there was none. It must hold whatever was ordered since its
	// first line.
	History string
	// Wait bounds how long the platform may take to come to rest; 2 min unless set.
	Wait time.Duration
}

// Violation is one breach of an invariant.
type Violation struct {
	Order  string `json:"order,omitempty"` // or product, or whatever it is about
	Detail string `json:"detail"`
	// Timeline of the order; of the first few orders only.
	Timeline []Line `json:"timeline,omitempty"`
}

// Line is a line of an order's timeline.
type Line struct {
	At     time.Time `json:"at"`
	From   string    `json:"from"` // the service that says so, or provider, carrier, mail
	Event  string    `json:"event"`
	Status string    `json:"status,omitempty"`
	Detail string    `json:"detail,omitempty"`
}

// Finding is the result of one invariant.
type Finding struct {
	Name    string `json:"name"` // as RELIABILITY.md 5 has it, such as I-PAY-1
	Says    string `json:"says"`
	Checked int64  `json:"checked"` // how many things were looked at; 0: it proves nothing here
	// Violated counts all; Violations has the first 20.
	Violated   int64       `json:"violated"`
	Violations []Violation `json:"violations,omitempty"`
}

// Report is what a check has found.
type Report struct {
	Started  time.Time `json:"started"`
	Settled  float64   `json:"settled_after_seconds"`
	Seconds  float64   `json:"seconds"` // in all
	Clean    bool      `json:"clean"`
	Findings []Finding `json:"invariants"`
	// Counts are for gates against vacuity: orders by status ("orders.completed"), "payments.late_refunds", "inbox.parked",
	// "kafka.duplicates" and so on. See docs/verify.md.
	Counts map[string]int64 `json:"counts"`
}

// Unsettled says that the platform did not come to rest, so that nothing can be said.
type Unsettled struct {
	Waited time.Duration
	Open   []string // orders that are not final, the first 20
	Why    []string // what was still moving: orders by status, outbox rows, lag
}

// Error tells what holds it up.
func (u *Unsettled) Error() string {
	s := fmt.Sprintf("the platform did not come to rest within %s: %s", u.Waited, strings.Join(u.Why, "; "))
	if len(u.Open) > 0 {
		s += "; orders " + strings.Join(u.Open, ", ")
	}
	return s
}
