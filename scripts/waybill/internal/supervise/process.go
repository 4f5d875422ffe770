// Package supervise keeps programs running: it starts them, starts them again when
// they end, and stops them.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Program is what to run.
type Program struct {
	Name string
	Path string
	Args []string
	Env  []string // beside ours
	Log  string   // file, appended to
	// Ready returns nil once the program can be used.
	Ready func(ctx context.Context) error
	// Quit is what asks it to stop.
	Quit syscall.Signal
}

const (
	// firstPause and lastPause are DESIGN's: a crash is over before a client's second
	// try, and a program that cannot start does not eat a core.
	firstPause = 200 * time.Millisecond
	lastPause  = 5 * time.Second
	// settled is how long a program must have run for its next end to count as a
	// first one.
	settled = 10 * time.Second
)

// Process is a program that is kept running.
type Process struct {
	Program
	say  func(format string, args ...any)
	quit chan struct{}
	once sync.Once
	done chan struct{}

	mu       sync.Mutex
	pid      int
	restarts int
	last     error
	changed  func()
}

// Start runs the program until Stop. say is told when it ends by itself; changed, where
// set, is called whenever its pid changes. The error is that of the first start: a
// program that is not there will not be there later either.
func Start(p Program, say func(format string, args ...any), changed func()) (*Process, error) {
	if p.Quit == 0 {
		p.Quit = syscall.SIGTERM
	}
	if changed == nil {
		changed = func() {}
	}
	s := &Process{Program: p, say: say, quit: make(chan struct{}), done: make(chan struct{}), changed: changed}
	first := make(chan error, 1)
	go s.run(first)
	if err := <-first; err != nil {
		<-s.done
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	return s, nil
}

func (s *Process) run(first chan<- error) {
	defer close(s.done)
	// The kernel sends a child its death signal when the thread that started it ends,
	// so that thread must live as long as the child.
	runtime.LockOSThread()
	pause := firstPause
	for started := false; ; started = true {
		begin := time.Now()
		cmd, err := s.launch()
		if !started {
			first <- err
			if err != nil {
				return
			}
		}
		if err == nil {
			err = cmd.Wait()
			s.set(0, err)
		}
		if s.stopping() {
			return
		}
		if time.Since(begin) >= settled {
			pause = firstPause
		}
		s.say("%s ended (%s); it is started again in %v; its log is %s", s.Name, reason(err), pause, s.Log)
		select {
		case <-s.quit:
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
		s.mu.Lock()
		s.restarts++
		s.mu.Unlock()
	}
}

func reason(err error) string {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "without an error"
	case errors.As(err, &exit):
		return exit.Error()
	default:
		return err.Error()
	}
}

func (s *Process) launch() (*exec.Cmd, error) {
	if err := os.MkdirAll(filepath.Dir(s.Log), 0o755); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = attributes(s.Quit)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping() {
		return nil, errors.New("stopped before it was started")
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.pid = cmd.Process.Pid
	go s.changed()
	return cmd, nil
}

func (s *Process) set(pid int, err error) {
	s.mu.Lock()
	s.pid, s.last = pid, err
	s.mu.Unlock()
	s.changed()
}

func (s *Process) stopping() bool {
	select {
	case <-s.quit:
		return true
	default:
		return false
	}
}

// PID is the process's, 0 while it does not run.
func (s *Process) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}

// Restarts counts how often it was started again.
func (s *Process) Restarts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restarts
}

// Await waits until the program is ready. Its error ends with what the program wrote
// last, which is where the reason is.
func (s *Process) Await(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; its log %s ends:\n%s", s.Name, err, s.Log, Tail(s.Log, 5))
		case <-tick.C:
		}
	}
}

// Stop asks the program to end, and ends it after grace.
func (s *Process) Stop(grace time.Duration) {
	s.once.Do(func() { close(s.quit) })
	s.signal(s.Quit)
	select {
	case <-s.done:
		return
	case <-time.After(grace):
	}
	s.say("%s did not end within %v and is killed", s.Name, grace)
	s.signal(syscall.SIGKILL)
	<-s.done
}

func (s *Process) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid != 0 {
		// Its group: a program may have started others.
		_ = syscall.Kill(-s.pid, sig)
	}
}

// Answers is a Ready for a program that answers 200 at url.
func Answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s %s", url, resp.Status, strings.TrimSpace(string(b)))
		}
		return nil
	}
}

// Tail is the end of a file, at most n lines.
func Tail(path string, n int) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const most = 16 << 10
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
