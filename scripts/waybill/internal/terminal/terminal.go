// Package terminal writes for people: colours only where somebody can see them,
// tables that line up, one line that is rewritten while something takes time.
package terminal

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// Screen is where a command writes.
type Screen struct {
	mu     sync.Mutex
	w      io.Writer
	colour bool
	line   string // the unfinished line, rewritten in place
}

// New writes to w, with colours and a moving line only where w is a terminal, and
// without colours where NO_COLOR (no-color.org) is set.
func New(w io.Writer) *Screen {
	s := &Screen{w: w}
	if f, ok := w.(*os.File); ok && os.Getenv("TERM") != "dumb" {
		info, err := f.Stat()
		s.colour = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return s
}

// Colour is a way to stress a word.
type Colour string

// The few that are readable on light and dark backgrounds alike.
const (
	Bold   Colour = "1"
	Dim    Colour = "2"
	Red    Colour = "31"
	Green  Colour = "32"
	Yellow Colour = "33"
	Cyan   Colour = "36"
)

// Paint colours text.
func (s *Screen) Paint(c Colour, text string) string {
	if !s.colour || os.Getenv("NO_COLOR") != "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// Line writes a line of its own.
func (s *Screen) Line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprintf(s.w, format+"\n", args...)
	s.redraw()
}

// Note writes a line where nobody sees the moving one: in a log.
func (s *Screen) Note(format string, args ...any) {
	if !s.colour {
		s.Line(format, args...)
	}
}

// Write lets the screen be used as a writer; unfinished lines are not supported.
func (s *Screen) Write(p []byte) (int, error) {
	s.Line("%s", strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

func (s *Screen) clear() {
	if s.line != "" {
		fmt.Fprint(s.w, "\r\x1b[K")
	}
}

func (s *Screen) redraw() {
	if s.line != "" {
		fmt.Fprint(s.w, s.line)
	}
}

func (s *Screen) replace(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	s.line = line
	s.redraw()
}

// Step announces something that takes a while and returns what ends it: with the
// time it took and a remark, or with a cross. On a terminal the line counts up.
func (s *Screen) Step(what string) *Step {
	step := &Step{s: s, what: what, begin: time.Now(), end: make(chan struct{}), ended: make(chan struct{})}
	if !s.colour {
		s.Line("… %s", what)
		close(step.ended)
		return step
	}
	go step.tick()
	return step
}

// Step is something under way.
type Step struct {
	s      *Screen
	what   string
	begin  time.Time
	mu     sync.Mutex
	remark string
	once   sync.Once
	end    chan struct{}
	ended  chan struct{}
}

// frame is how often the line moves: enough to look alive.
const frame = 120 * time.Millisecond

func (p *Step) tick() {
	defer close(p.ended)
	t := time.NewTicker(frame)
	defer t.Stop()
	spin := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
	for i := 0; ; i++ {
		p.mu.Lock()
		remark := p.remark
		p.mu.Unlock()
		line := fmt.Sprintf("%s %s %s %s", p.s.Paint(Cyan, string(spin[i%len(spin)])), p.what, p.s.Paint(Dim, seconds(time.Since(p.begin))), p.s.Paint(Dim, remark))
		p.s.replace(cut(line, 160))
		select {
		case <-p.end:
			p.s.replace("")
			return
		case <-t.C:
		}
	}
}

// cut keeps a line from wrapping: a wrapped one cannot be rewritten.
func cut(line string, width int) string {
	if utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:width]) + "\x1b[0m"
}

// Remark changes what stands behind the moving line.
func (p *Step) Remark(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remark = fmt.Sprintf(format, args...)
}

// Done ends the step well.
func (p *Step) Done(format string, args ...any) {
	p.finish(p.s.Paint(Green, "✓"), fmt.Sprintf(format, args...))
}

// Fail ends the step badly; the error itself is the caller's to print. After Done it
// does nothing, so that it can be deferred.
func (p *Step) Fail() { p.finish(p.s.Paint(Red, "✗"), "") }

func (p *Step) finish(mark, remark string) {
	p.once.Do(func() {
		close(p.end)
		<-p.ended
		p.s.Line("%s", strings.TrimRight(fmt.Sprintf("%s %s %s %s", mark, p.what, p.s.Paint(Dim, seconds(time.Since(p.begin))), remark), " "))
	})
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// Table writes rows in columns. The first row is the head.
func (s *Screen) Table(rows [][]string) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	w.Flush()
	for i, line := range strings.Split(strings.TrimRight(b.String(), "\n"), "\n") {
		line = strings.TrimRight(line, " ")
		if i == 0 {
			// Painted after the layout: tabwriter would count the escapes.
			line = s.Paint(Bold, line)
		}
		s.Line("%s", line)
	}
}
