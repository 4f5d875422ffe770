// Package history is the log of a load process: what it asked for and what it was told, one JSON object per line.
//
// It is the client's side of the truth. What was acknowledged must be in the databases, what was refused must not, and of
// what nobody answered either may be true, but only one of the two. The form follows Jepsen's histories
// (https://github.com/jepsen-io/history): an operation ends ok, fail or info, and info means unknown.
//
//	{"op":"create","id":"o-1","key":"k-1","caller":"1/customer","sent":"9f…","invoke":"…","done":"…","type":"ok","status":202,"body_hash":"3c…"}
package history

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Kind is what was asked for.
type Kind string

// The operations. Others may be written; the oracle counts them and concludes nothing.
const (
	Create   Kind = "create"   // POST /orders; a retry is another line with the same id and key
	Cancel   Kind = "cancel"   // POST /orders/{id}/cancel
	Get      Kind = "get"      // GET /orders/{id}
	Restock  Kind = "restock"  // POST /inventory/restock; the id is the document
	Redrive  Kind = "redrive"  // POST /interventions/{service}/{id}/redrive
	Resolve  Kind = "resolve"  // POST /orders/{id}/resolve
	Settings Kind = "settings" // anything that prepares the load, such as PUT /products/{id}
)

// Type is how it ended, as far as the caller can know.
type Type string

// The three ends.
const (
	OK   Type = "ok"   // answered with 2xx: it has happened
	Fail Type = "fail" // answered with a definite no (4xx but for 408, 425, 429): it has not and will not
	// Info is everything else: a time-out, a broken connection, 408, 425, 429 or 5xx. It may have happened or not.
	Info Type = "info"
)

// TypeOf reads an answer's status; 0 stands for no answer.
func TypeOf(status int) Type {
	switch {
	case status >= 200 && status < 300:
		return OK
	case status == 408 || status == 425 || status == 429 || status < 400 || status >= 500:
		return Info
	}
	return Fail
}

// Op is one operation, written when it has ended.
type Op struct {
	Op  Kind   `json:"op"`
	ID  string `json:"id"`            // what it was about: the order id, the document
	Key string `json:"key,omitempty"` // Idempotency-Key, where one was sent
	// Caller is who asked, as tenant/subject: another caller's same key is another key.
	Caller string `json:"caller,omitempty"`
	// Sent says what was asked for: of a create Order.Hash, of anything else any hash of the request's body.
	Sent   string    `json:"sent,omitempty"`
	Invoke time.Time `json:"invoke"`
	Done   time.Time `json:"done"`
	Type   Type      `json:"type"`
	Status int       `json:"status,omitempty"` // 0: no answer
	// BodyHash is BodyHash of the answer's body.
	BodyHash string `json:"body_hash,omitempty"`
	// Replayed: the answer carried Idempotent-Replayed.
	Replayed bool `json:"replayed,omitempty"`
	// Problem is the last part of a problem document's type, such as order-exists.
	Problem string `json:"problem,omitempty"`
	// Session and Seen belong to a get: one reader, and how many lines the timeline had that it was shown.
	Session string `json:"session,omitempty"`
	Seen    int    `json:"seen,omitempty"`
}

// Order is what a create asks for, as far as the order's row keeps it.
type Order struct {
	ID       string
	Amount   int64 // minor units
	Currency string
	Method   string
	Email    string
	Items    map[string]int64 // quantity by product
}

// Hash is the same for two requests that ask for the same order, and can be made from the order's row.
func (o Order) Hash() string {
	if len(o.Items) == 0 {
		o.Items = nil // no items are no items
	}
	b, err := json.Marshal(o) // of maps the keys are sorted
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return BodyHash(b)
}

// BodyHash is a short name of an answer's body: 64 bits are enough to tell a few million apart.
func BodyHash(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:8])
}

// syncEvery bounds what a power cut can take from a history.
const syncEvery = time.Second

// Writer appends operations to a file. It is safe for concurrent use.
type Writer struct {
	mu     sync.Mutex
	file   *os.File
	buf    *bufio.Writer
	synced time.Time
}

// NewWriter begins a history, or goes on with one.
func NewWriter(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the history: %w", err)
	}
	return &Writer{file: f, buf: bufio.NewWriterSize(f, 1<<16), synced: time.Now()}, nil
}

// Append writes an operation that has ended.
func (w *Writer) Append(op Op) error {
	line, err := json.Marshal(op)
	if err != nil {
		return fmt.Errorf("encode an operation: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.buf.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	if time.Since(w.synced) > syncEvery {
		return w.sync()
	}
	return nil
}

func (w *Writer) sync() error {
	w.synced = time.Now()
	if err := w.buf.Flush(); err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("sync the history: %w", err)
	}
	return nil
}

// Close writes what is left.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.sync(); err != nil {
		return err
	}
	return w.file.Close()
}

// Read shows each operation of a history, in the order in which they ended.
func Read(r io.Reader, each func(Op) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 1<<16), 1<<20)
	for n := 1; s.Scan(); n++ {
		if len(s.Bytes()) == 0 {
			continue
		}
		var op Op
		if err := json.Unmarshal(s.Bytes(), &op); err != nil {
			return fmt.Errorf("history, line %d: %w", n, err)
		}
		switch op.Type {
		case OK, Fail, Info:
		default:
			return fmt.Errorf("history, line %d: type %q is not ok, fail or info", n, op.Type)
		}
		if err := each(op); err != nil {
			return err
		}
	}
	return s.Err()
}

// ReadFile is Read of a file.
func ReadFile(path string, each func(Op) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the history: %w", err)
	}
	defer f.Close()
	return Read(f, each)
}
