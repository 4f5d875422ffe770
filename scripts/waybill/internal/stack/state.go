package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/plan"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/usage"
)

// State is what a running stack tells the other commands, in <data>/state.json.
type State struct {
	PID       int               `json:"pid"`
	Started   time.Time         `json:"started"`
	Data      string            `json:"data"`
	Addresses map[string]string `json:"addresses"`
	Processes []Entry           `json:"processes"`
}

// Entry is one process of a stack.
type Entry struct {
	Name     string `json:"name"`
	PID      int    `json:"pid"`
	Restarts int    `json:"restarts"`
	// ReadyURL answers 200 when the process can be used; empty for those that are
	// known to be ready by the time they are listed.
	ReadyURL string `json:"ready_url,omitempty"`
	// Tree: its children belong to it.
	Tree bool   `json:"tree,omitempty"`
	Log  string `json:"log"`
}

// ErrNotRunning says that there is no stack with this data directory.
var ErrNotRunning = errors.New("nothing runs")

func statePath(data string) string { return filepath.Join(data, "state.json") }

// Load reads the state of the stack that runs on a data directory.
func Load(data string) (State, error) {
	s, err := read(data)
	if err != nil {
		return State{}, err
	}
	if !usage.Alive(s.PID) || !locked(data) {
		return s, notRunning(data)
	}
	return s, nil
}

func notRunning(data string) error {
	return fmt.Errorf("%w with its data in %s: start it with `waybill up`, or name another directory with --data", ErrNotRunning, data)
}

func read(data string) (State, error) {
	var s State
	b, err := os.ReadFile(statePath(data))
	if errors.Is(err, fs.ErrNotExist) {
		return s, notRunning(data)
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read %s: %w", statePath(data), err)
	}
	return s, nil
}

func (s State) write() error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(statePath(s.Data), append(b, '\n'), 0o600) // a database's URL may hold a password
}

// replaceFile never shows half of a file.
func replaceFile(path string, b []byte, mode os.FileMode) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// lock keeps a second stack off a data directory. The kernel releases it when the
// process ends, in whatever way.
func lock(data string) (*os.File, error) {
	if err := os.MkdirAll(data, 0o755); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(data, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		owner := "another `waybill up`"
		if s, err := read(data); err == nil {
			owner = fmt.Sprintf("`waybill up` with pid %d, since %s,", s.PID, s.Started.Local().Format("15:04:05"))
		}
		return nil, fmt.Errorf("%s uses %s: see `waybill status`, stop it with `waybill down`, or choose another directory with --data and other ports with --port-base", owner, data)
	}
	return f, nil
}

func locked(data string) bool {
	f, err := os.Open(filepath.Join(data, "lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

// survivors are processes of an earlier stack that did not end with it: possible where
// the kernel cannot be asked to stop them, and where they hang.
func survivors(data string) []Entry {
	s, err := read(data)
	if err != nil {
		return nil
	}
	var left []Entry
	for _, p := range s.Processes {
		// By now the pid may be somebody else's: only our own programs count.
		program := usage.Program(p.PID)
		if p.PID > 0 && p.PID != os.Getpid() && strings.HasPrefix(program, filepath.Join(data, "bin")+string(filepath.Separator)) {
			left = append(left, p)
		}
	}
	return left
}

// endSurvivors stops them, since they hold ports and consumer-group memberships.
func endSurvivors(data string, say func(string, ...any)) {
	for _, p := range survivors(data) {
		say("%s (pid %d) is left over from an earlier run and is stopped", p.Name, p.PID)
		_ = syscall.Kill(p.PID, syscall.SIGTERM)
		for deadline := time.Now().Add(stopGrace); usage.Alive(p.PID) && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
		}
		_ = syscall.Kill(p.PID, syscall.SIGKILL)
	}
}

// addresses are what `waybill status --json` shows: URLs for what speaks HTTP and for
// PostgreSQL (without a database name), host:port for the rest.
func addresses(s plan.Settings) map[string]string {
	a := map[string]string{
		"kafka": s.Parts.Kafka, "postgres": s.Parts.Postgres, "redis": s.Parts.Redis,
		"auditor": s.Parts.Auditor, // of PostgreSQL too, for `waybill verify`
		"sandbox": s.Ports.URL("sandbox"), "sandbox-admin": s.Ports.URL("sandbox-admin"), "smtp": s.Ports.Addr("smtp"),
		"statsd": s.Ports.Addr("statsd"), "pprof": s.Ports.URL("pprof"),
	}
	for _, name := range plan.Services {
		a[name] = s.Ports.URL(name)
		a[name+"-admin"] = s.Ports.URL(name + "-admin")
	}
	return a
}
