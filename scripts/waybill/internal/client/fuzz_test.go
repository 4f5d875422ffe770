package client

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// FuzzEvents reads a stream, whole and in pieces: the same events.
func FuzzEvents(f *testing.F) {
	f.Add("id: 1\nevent: x\ndata: {}\n\n:comment\n\ndata:a\ndata: b\n\n")
	f.Add("data: cut")
	f.Add("\n\n\r\ndata\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		all := func(r io.Reader) (es []Event) {
			err := Events(r, func(e Event) error { es = append(es, e); return nil })
			if err == nil {
				t.Fatal("a stream ended without saying so")
			}
			return es
		}
		whole := all(strings.NewReader(text))
		pieces := all(&slow{strings.NewReader(text)})
		if len(whole) != len(pieces) {
			t.Fatalf("%d events, in pieces %d", len(whole), len(pieces))
		}
		for i := range whole {
			if whole[i] != pieces[i] {
				t.Fatalf("%+v, in pieces %+v", whole[i], pieces[i])
			}
		}
		stop := errors.New("stop")
		if len(whole) > 0 {
			if err := Events(strings.NewReader(text), func(Event) error { return stop }); !errors.Is(err, stop) {
				t.Fatalf("stopped with %v", err)
			}
		}
	})
}

// slow gives a byte at a time.
type slow struct{ r io.Reader }

func (s *slow) Read(p []byte) (int, error) {
	if len(p) > 1 {
		p = p[:1]
	}
	return s.r.Read(p)
}
