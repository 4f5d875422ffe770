// Package mailbox is where the platform's mail ends up: an SMTP sink that keeps what it gets for reading.
//
// The last 10,000 messages stay in memory, and in two files that take turns, so that they survive kill -9 and neither
// memory nor disk grows with the length of a run.
package mailbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// keep is how many messages can be read: about 10 MB of them.
	keep = 10_000
	// fileSize is where a file is full: two of them hold more than keep messages of a kilobyte.
	fileSize = 16 << 20
	// maxMessage is the largest message taken; an order's mail has two kilobytes.
	maxMessage = 256 << 10
)

// Message is a mail that was taken. Seq counts from 1 in the order of arrival.
type Message struct {
	Seq       int64     `json:"seq"`
	At        time.Time `json:"at"`
	From      string    `json:"from"`
	To        []string  `json:"to"`
	Subject   string    `json:"subject"`
	MessageID string    `json:"message_id"`
	Text      string    `json:"text"`
}

// Mailbox holds the messages. It is safe for concurrent use.
type Mailbox struct {
	mu   sync.Mutex
	dir  string
	file *os.File
	size int64
	last int64
	ring []Message // ring[seq%keep]
}

// Open opens the mailbox in dir.
func Open(dir string) (*Mailbox, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	m := &Mailbox{dir: dir, ring: make([]Message, keep)}
	if err := m.load(m.path(1)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(m.path(0), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open mailbox: %w", err)
	}
	m.file = f
	if err := m.load(m.path(0)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// A crash may have torn the last line; what is whole ends with a newline.
	if err := f.Truncate(m.size); err != nil {
		return nil, errors.Join(fmt.Errorf("cut a torn line off the mailbox: %w", err), f.Close())
	}
	return m, nil
}

func (m *Mailbox) path(age int) string {
	if age == 0 {
		return filepath.Join(m.dir, "mail.jsonl")
	}
	return filepath.Join(m.dir, fmt.Sprintf("mail.%d.jsonl", age))
}

func (m *Mailbox) load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open mailbox: %w", err)
	}
	defer f.Close()
	m.size = 0
	r := bufio.NewReaderSize(f, 1<<16)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return nil // the end, perhaps with a torn line before it
		}
		var x Message
		if err := json.Unmarshal(line, &x); err != nil {
			return fmt.Errorf("read mailbox %s at byte %d: %w", path, m.size, err)
		}
		m.size += int64(len(line))
		m.last = x.Seq
		m.ring[x.Seq%keep] = x
	}
}

// Put keeps a message and gives it its number and time.
func (m *Mailbox) Put(x Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	x.Seq, x.At = m.last+1, time.Now().UTC()
	line, err := json.Marshal(x)
	if err != nil {
		return fmt.Errorf("encode a message: %w", err)
	}
	if m.size >= fileSize {
		if err := m.turn(); err != nil {
			return err
		}
	}
	if _, err := m.file.WriteAt(append(line, '\n'), m.size); err != nil {
		return errors.Join(fmt.Errorf("write to the mailbox: %w", err), m.file.Truncate(m.size))
	}
	m.size += int64(len(line)) + 1
	m.last = x.Seq
	m.ring[x.Seq%keep] = x
	return nil
}

// turn begins a new file; the full one takes the place of the one before it.
func (m *Mailbox) turn() error {
	if err := os.Rename(m.path(0), m.path(1)); err != nil {
		return fmt.Errorf("turn the mailbox: %w", err)
	}
	f, err := os.OpenFile(m.path(0), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("turn the mailbox: %w", err)
	}
	err = m.file.Close()
	m.file, m.size = f, 0
	return err
}

// Read returns up to limit messages to the address (empty: to anyone) with a number above after, and the last number
// that there is.
func (m *Mailbox) Read(to string, after int64, limit int) ([]Message, int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []Message{}
	for seq := max(after+1, m.last-keep+1, 1); seq <= m.last && len(out) < limit; seq++ {
		x := m.ring[seq%keep]
		if x.Seq == seq && (to == "" || slices.ContainsFunc(x.To, func(a string) bool { return strings.EqualFold(a, to) })) {
			out = append(out, x)
		}
	}
	return out, m.last
}

// Close closes the file.
func (m *Mailbox) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.file.Close()
}

// lineEnds makes a body readable: mail has CRLF.
func lineEnds(b []byte) string { return string(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))) }
