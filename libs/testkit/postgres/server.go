package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options say where and how a server runs.
type Options struct {
	// Dir holds the data, the log and the socket. It is created, and found again by
	// a later Start.
	Dir string
	// Port on 127.0.0.1; 0 takes a free one.
	Port int
	// Fsync makes commits survive power loss. Without it they still survive the
	// death of every process, which is all that tests ask for, at a fraction of the
	// time.
	Fsync bool
	// Temporary has Dir removed when the server stops or its starter dies.
	Temporary bool
	// Progress, where set, is told of steps that take seconds.
	Progress func(string)
}

// Server is a running server.
type Server struct {
	// Port on 127.0.0.1.
	Port int
	// Log is the file the server writes to.
	Log string

	dir  string
	cmd  *exec.Cmd
	life io.Closer // our end of the guard's pipe
	exit chan struct{}
	once sync.Once
	stop sync.Once
}

// startWithin bounds a start. Recovery after kill -9 replays at most max_wal_size
// (1 GB), seconds on any disk; a fresh start takes 0.2 s.
const startWithin = 60 * time.Second

// Start initialises Dir where it is empty, starts a server on it and waits until it
// accepts connections. Errors say what failed, why, and what to do about it.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	owner, err := serverUser()
	if err != nil {
		return nil, err
	}
	dir, err := Place(o.Dir)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	major, err := release(data)
	if err != nil {
		return nil, err
	}
	bin, err := binaries(ctx, o, major)
	if err != nil {
		return nil, err
	}
	// Only the directory itself is private: the server's user must get through those
	// above it.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, fmt.Errorf("create PostgreSQL's directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create PostgreSQL's directory: %w", err)
	}
	if err := owner.reaches(dir); err != nil {
		return nil, fmt.Errorf("PostgreSQL cannot keep its data in %s: %w", dir, err)
	}
	if err := owner.owns(dir); err != nil {
		return nil, fmt.Errorf("give %s to user %s: %w", dir, owner.name, err)
	}
	if major == 0 {
		o.Progress("initialising PostgreSQL " + strconv.Itoa(bin.Major))
		if err := initialise(ctx, bin, owner, data); err != nil {
			return nil, err
		}
	}
	// A port that was free a moment ago may be taken by a neighbour's test process.
	for try := 0; ; try++ {
		s, err := launch(ctx, bin, owner, dir, o)
		if err == nil || o.Port != 0 || try == 4 || !errors.Is(err, ErrPortTaken) {
			return s, err
		}
	}
}

// ErrPortTaken says that something else listens on the port.
var ErrPortTaken = errors.New("port is taken")

// release reads which release wrote the data; 0 where there is none yet.
func release(data string) (int, error) {
	b, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read PostgreSQL's data: %w", err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("%s/PG_VERSION holds %q: the directory is damaged; remove it to start afresh", data, b)
	}
	return major, nil
}

func binaries(ctx context.Context, o Options, major int) (Binaries, error) {
	bin, err := Find(ctx, major)
	if err == nil || !errors.Is(err, ErrNoBinaries) {
		return bin, err
	}
	if major != 0 && major != fetchedMajor {
		return Binaries{}, fmt.Errorf("the data in %s was written by PostgreSQL %d and can be opened by no other: install that release, or remove the data\n%w", o.Dir, major, err)
	}
	o.Progress("fetching PostgreSQL " + fetchedVersion + " (once)")
	got, ferr := fetch(ctx)
	if ferr != nil {
		return Binaries{}, fmt.Errorf("%w\nand fetching it did not work either: %w\nInstall PostgreSQL %d or later (Debian, Ubuntu: apt install postgresql; Fedora: dnf install postgresql-server; macOS: brew install postgresql@17), point $%s at its bin directory, or use a server of your own", err, ferr, MinMajor, BinEnv)
	}
	return got, nil
}

// Place tells where a server with this Options.Dir keeps its data: there, or, where
// root asks for a directory that the server's user cannot reach (below /root, say),
// in a directory of the same identity below /var/lib/waybill.
func Place(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	owner, err := serverUser()
	if err != nil {
		return "", err
	}
	if owner.reaches(dir) == nil {
		return dir, nil
	}
	return filepath.Join(rootState, "postgres-"+fmt.Sprintf("%x", sha256.Sum256([]byte(dir)))[:12]), nil
}

// rootState holds what root keeps for the server's user. A variable only for tests.
var rootState = "/var/lib/waybill"

func initialise(ctx context.Context, bin Binaries, owner account, data string) error {
	// initdb refuses a directory with anything in it. No PG_VERSION means that an
	// earlier initdb was cut short, so nothing of value is lost.
	if err := os.RemoveAll(data); err != nil {
		return fmt.Errorf("clear a half-initialised %s: %w", data, err)
	}
	// Trust is sound only because the server listens on loopback and a private
	// socket. Locale C: index order and comparisons are the bytes', on any machine.
	// No sync: what initdb writes is worth nothing yet, and the kernel has it on disk
	// long before it is. That saves seconds of the first start.
	args := []string{"-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync"}
	cmd := exec.CommandContext(ctx, bin.path("initdb"), args...)
	cmd.SysProcAttr = owner.attributes()
	cmd.Dir = "/"
	cmd.Env = environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", bin.path("initdb"), err, bytes.TrimSpace(out))
	}
	return nil
}

// environment is ours without libpq's variables, which would lead initdb astray.
func environment() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") && !strings.HasPrefix(kv, "LC_") && !strings.HasPrefix(kv, "LANG") {
			env = append(env, kv)
		}
	}
	return append(env, "LC_ALL=C")
}

// running keeps every server from the garbage collector, which would close the guard's
// pipe where the caller needs the address only and drops the Server.
var running sync.Map

func launch(ctx context.Context, bin Binaries, owner account, dir string, o Options) (*Server, error) {
	port, err := freePort(o.Port)
	if err != nil {
		return nil, err
	}
	logPath := filepath.Join(dir, "postgres.log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	s := &Server{Port: port, Log: logPath, dir: dir, exit: make(chan struct{})}
	s.cmd = exec.Command(bin.path("postgres"), append([]string{"-D", filepath.Join(dir, "data")}, settings(dir, port, o.Fsync)...)...)
	s.cmd.Dir = "/"
	s.cmd.Env = environment()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = owner.attributes()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", bin.path("postgres"), err)
	}
	if err := s.guard(o.Temporary); err != nil {
		_ = s.cmd.Process.Kill()
		s.Wait()
		return nil, err
	}
	running.Store(s, nil)
	if err := s.ready(ctx, from); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// settings differ from PostgreSQL's own where a comment says why.
func settings(dir string, port int, fsync bool) []string {
	set := []string{
		"port=" + strconv.Itoa(port), "listen_addresses=127.0.0.1",
		// Nine processes with 4 connections each, twice with --replicas 2, a relay
		// each, the tests' pools.
		"max_connections=200",
		// Services forbid sequential scans, which PostgreSQL does by pricing them at
		// 10^10; the JIT takes that price for a reason to compile tiny statements.
		"jit=off",
		"logging_collector=off", "log_line_prefix=%m [%p] %d ", "timezone=UTC", "log_timezone=UTC",
	}
	// A socket's path may have 107 bytes at most.
	if socket := filepath.Join(dir, ".s.PGSQL.00000.lock"); len(socket) <= 107 {
		set = append(set, "unix_socket_directories="+dir)
	} else {
		set = append(set, "unix_socket_directories=")
	}
	if !fsync {
		// Without autovacuum, because no test lives long enough to need it and it takes
		// CPU from the others. Commits stay synchronous: a write without fsync costs
		// next to nothing, and survives kill -9.
		set = append(set, "fsync=off", "full_page_writes=off", "autovacuum=off")
	}
	var args []string
	for _, kv := range set {
		args = append(args, "-c", kv)
	}
	return args
}

func freePort(want int) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(want)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return 0, fmt.Errorf("PostgreSQL cannot listen on 127.0.0.1:%d: %w by another program; stop that program or choose another port", want, ErrPortTaken)
	}
	if err != nil {
		return 0, fmt.Errorf("PostgreSQL cannot listen on 127.0.0.1:%d: %w", want, err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// guardScript waits for the end of its input, which comes when our process ends in
// whatever way, then stops the server ($1: its pid, $2: its directory, $3: whether
// to remove that). The pid is checked against the server's own pid file first,
// because by then it may belong to somebody else.
const guardScript = `trap '' INT TERM HUP
while read -r _; do :; done
if [ "$(head -n 1 "$2/data/postmaster.pid" 2>/dev/null)" = "$1" ]; then
	if [ "$3" = remove ]; then kill -QUIT "$1" 2>/dev/null; else kill -INT "$1" 2>/dev/null; fi
fi
n=0
while kill -0 "$1" 2>/dev/null && [ $n -lt 600 ]; do sleep 0.1; n=$((n+1)); done
if [ "$3" = remove ]; then rm -rf -- "$2"; fi`

func (s *Server) guard(remove bool) error {
	then := "keep"
	if remove {
		then = "remove"
	}
	guard := exec.Command("/bin/sh", "-c", guardScript, "waybill-postgres-guard", strconv.Itoa(s.cmd.Process.Pid), s.dir, then)
	guard.Dir = "/"
	guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := guard.StdinPipe()
	if err != nil {
		return err
	}
	if err := guard.Start(); err != nil {
		return fmt.Errorf("start PostgreSQL's guard: %w", err)
	}
	s.life = closer(func() error {
		err := in.Close()
		// Its exit is only waited for so that it leaves no zombie and, where the
		// directory is temporary, so that it is gone when Stop returns.
		return errors.Join(err, guard.Wait())
	})
	return nil
}

type closer func() error

func (c closer) Close() error { return c() }

// ready waits until the server says so in its pid file, as pg_ctl does. The time-out
// and an early end quote what the server logged, because the reason is only there.
func (s *Server) ready(ctx context.Context, from int64) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	pidFile := filepath.Join(s.dir, "data", "postmaster.pid")
	for {
		if b, err := os.ReadFile(pidFile); err == nil {
			lines := strings.Split(string(b), "\n")
			if len(lines) >= 8 && lines[0] == strconv.Itoa(s.PID()) && strings.TrimSpace(lines[7]) == "ready" {
				return nil
			}
		}
		if s.ended() {
			said := s.said(from)
			if strings.Contains(said, "Address already in use") {
				return fmt.Errorf("PostgreSQL cannot listen on 127.0.0.1:%d: %w by another program", s.Port, ErrPortTaken)
			}
			return fmt.Errorf("PostgreSQL ended while starting on %s; its log says:\n%s", s.dir, said)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL on %s is not ready: %w; its log says:\n%s", s.dir, context.Cause(ctx), s.said(from))
		case <-tick.C:
		}
	}
}

// ended looks without waiting. A goroutine in Wait would tell as well, but would then
// live as long as the server, and be reported as a leak by every test that looks.
func (s *Server) ended() bool {
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(s.PID(), &status, syscall.WNOHANG, nil)
	if pid == s.PID() || errors.Is(err, syscall.ECHILD) {
		s.once.Do(func() { close(s.exit) })
		return true
	}
	return false
}

// said is the end of what the server logged since it was started.
func (s *Server) said(from int64) string {
	b, err := os.ReadFile(s.Log)
	if err != nil || int64(len(b)) <= from {
		return "(nothing)"
	}
	lines := strings.Split(strings.TrimSpace(string(b[from:])), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}

// PID is the pid of the server's first process; every other is a child of it.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// URL is the connection string of a database on the server; with "" the server's own
// address, to which a name can be appended.
func (s *Server) URL(database string) string {
	u := "postgres://postgres@127.0.0.1:" + strconv.Itoa(s.Port)
	if database == "" {
		return u
	}
	return u + "/" + database + "?sslmode=disable"
}

// Wait returns when the server has ended.
func (s *Server) Wait() {
	s.once.Do(func() {
		_ = s.cmd.Wait()
		close(s.exit)
	})
	<-s.exit
}

// stopWithin bounds each step of a stop. Fast shutdown writes a checkpoint: 128 MB of
// buffers at most.
const stopWithin = 15 * time.Second

// Stop shuts the server down: connections are ended, a checkpoint is written. A
// server that does not follow is asked more firmly. Safe to call twice.
func (s *Server) Stop() {
	s.stop.Do(func() {
		ended := make(chan struct{})
		go func() { s.Wait(); close(ended) }()
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
			_ = s.cmd.Process.Signal(sig)
			select {
			case <-ended:
			case <-time.After(stopWithin):
				continue
			}
			break
		}
		<-ended
		_ = s.life.Close()
		running.Delete(s)
	})
	<-s.exit
}
