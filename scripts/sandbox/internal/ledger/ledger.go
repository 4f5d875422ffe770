// Package ledger keeps what the sandbox really did: an append-only file, one JSON line per fact.
//
// A line is handed to the operating system before the caller hears of the fact, so it survives kill -9 of the sandbox.
// It is not synced to the disk: a simulated provider does not have to outlive a power cut, and 3,000 charges a second
// would otherwise each wait for the disk. A line torn by a crash is cut off at the next start.
//
// Memory holds no lines, only the file offset of every 512th public fact, so a run of a million orders costs 16 KiB here.
package ledger

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Kind says what a fact is.
type Kind string

// The public kinds: money and parcels that really moved, or were definitely refused to.
const (
	Capture      Kind = "capture"
	Decline      Kind = "decline"
	Void         Kind = "void"
	Refund       Kind = "refund"
	RefundFailed Kind = "refund_failed"
	Ship         Kind = "ship"
	Deliver      Kind = "deliver"
	ShipFailed   Kind = "ship_failed"
)

// The private kinds: needed to find the state again after a restart, and no business of a reader of the ledger.
const (
	ChargeAttempt Kind = "charge_attempt" // a charge that was answered 503
	ShipAttempt   Kind = "ship_attempt"   // a shipment that was answered 503
	Transit       Kind = "transit"
	Refuse        Kind = "refuse"
)

var public = map[Kind]bool{
	Capture: true, Decline: true, Void: true, Refund: true, RefundFailed: true,
	Ship: true, Deliver: true, ShipFailed: true,
}

// Entry is one fact. Seq counts the public facts from 1 without a gap; private ones have none.
type Entry struct {
	Seq      int64     `json:"seq,omitzero"`
	At       time.Time `json:"at"`
	Kind     Kind      `json:"kind"`
	Key      string    `json:"key"`
	OrderID  string    `json:"order_id,omitzero"`
	Amount   int64     `json:"amount,omitzero"`
	Currency string    `json:"currency,omitzero"`
	ID       string    `json:"id,omitzero"`
	Of       string    `json:"of,omitzero"` // the charge that a refund is of
	Attempt  int       `json:"attempt,omitzero"`
	Reason   string    `json:"reason,omitzero"`
	Lost     bool      `json:"lost,omitzero"` // a parcel that will not arrive
}

// every is the distance of the offsets in memory: a page of 1,000 lines reads at most 511 lines too many.
const every = 512

// Ledger is the open file. It is safe for concurrent use.
type Ledger struct {
	mu    sync.Mutex
	file  *os.File
	size  int64
	seq   int64
	index []int64 // index[i]: offset of the public fact i*every+1
}

// Open opens the ledger in dir and shows replay every fact that it holds, oldest first.
func Open(dir string, replay func(Entry)) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "ledger.jsonl"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &Ledger{file: f}
	if err := l.load(replay); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

func (l *Ledger) load(replay func(Entry)) error {
	r := bufio.NewReaderSize(l.file, 1<<16)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break // what is left has no newline: torn
		}
		if err != nil {
			return fmt.Errorf("read ledger: %w", err)
		}
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read ledger at byte %d: %w", l.size, err)
		}
		l.note(e, l.size)
		l.size += int64(len(line))
		replay(e)
	}
	if err := l.file.Truncate(l.size); err != nil {
		return fmt.Errorf("cut a torn line off the ledger: %w", err)
	}
	return nil
}

func (l *Ledger) note(e Entry, offset int64) {
	if e.Seq == 0 {
		return
	}
	l.seq = e.Seq
	if (e.Seq-1)%every == 0 {
		l.index = append(l.index, offset)
	}
}

// Append writes facts in order, all or none, and gives the public ones their numbers.
func (l *Ledger) Append(es ...Entry) error {
	if len(es) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var b bytes.Buffer
	offsets := make([]int64, len(es))
	seq := l.seq
	for i := range es {
		if public[es[i].Kind] {
			seq++
			es[i].Seq = seq
		}
		offsets[i] = l.size + int64(b.Len())
		line, err := json.Marshal(es[i])
		if err != nil {
			return fmt.Errorf("encode a fact: %w", err)
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	if n, err := l.file.WriteAt(b.Bytes(), l.size); err != nil {
		if n > 0 {
			err = errors.Join(err, l.file.Truncate(l.size))
		}
		return fmt.Errorf("append to the ledger: %w", err)
	}
	l.size += int64(b.Len())
	for i, e := range es {
		l.note(e, offsets[i])
	}
	return nil
}

// Read returns up to limit public facts with a number above after, and the number of the last fact that there is.
func (l *Ledger) Read(after int64, limit int) ([]Entry, int64, error) {
	l.mu.Lock()
	size, last := l.size, l.seq
	start := size
	if after = max(after, 0); after < last {
		start = l.index[after/every]
	}
	l.mu.Unlock()

	// Written bytes never change, so reading needs no lock.
	s := bufio.NewScanner(io.NewSectionReader(l.file, start, size-start))
	s.Buffer(make([]byte, 0, 1<<16), 1<<20)
	out := []Entry{}
	for len(out) < limit && s.Scan() {
		var e Entry
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			return nil, 0, fmt.Errorf("read ledger: %w", err)
		}
		if e.Seq > after {
			out = append(out, e)
		}
	}
	return out, last, s.Err()
}

// Close closes the file.
func (l *Ledger) Close() error { return l.file.Close() }
