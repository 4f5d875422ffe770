package terminal

import (
	"bytes"
	"strings"
	"testing"
)

func TestNoColourWhereNobodySees(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	s := New(&b)
	step := s.Step("working")
	step.Remark("half")
	step.Done("%d things", 3)
	step.Fail() // after the end it is nothing
	s.Table([][]string{{"NAME", "N"}, {s.Paint(Red, "a longer name"), "1"}})
	got := b.String()
	if strings.Contains(got, "\x1b") || strings.Contains(got, "\r") {
		t.Errorf("escapes in %q", got)
	}
	if !strings.Contains(got, "✓ working") || !strings.Contains(got, "3 things") || strings.Contains(got, "✗") {
		t.Errorf("got %q", got)
	}
	if !strings.Contains(got, "NAME           N\na longer name  1\n") {
		t.Errorf("the table is not aligned: %q", got)
	}
}

func TestNoColor(t *testing.T) {
	s := &Screen{w: &bytes.Buffer{}, colour: true}
	if got := s.Paint(Bold, "x"); got != "\x1b[1mx\x1b[0m" {
		t.Errorf("got %q", got)
	}
	t.Setenv("NO_COLOR", "1")
	if got := s.Paint(Bold, "x"); got != "x" {
		t.Errorf("got %q", got)
	}
}

// A line that is written while another moves must not be torn by it.
func TestLinesAndMovingLine(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	s := &Screen{w: &b, colour: true}
	step := s.Step("moving")
	s.Line("said meanwhile")
	step.Done("")
	for line := range strings.Lines(b.String()) {
		if strings.Contains(line, "said meanwhile") && !strings.HasSuffix(line, "said meanwhile\n") {
			t.Errorf("torn: %q", line)
		}
	}
}
