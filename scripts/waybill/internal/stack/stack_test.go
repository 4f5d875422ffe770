package stack

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/plan"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/terminal"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/usage"
)

// TestMain lets this test's own program stand in for everything a stack starts.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 3 && strings.HasSuffix(os.Args[1], "-embedded"):
		pretend(os.Args[3])
	case os.Getenv("ADMIN_ADDR") != "":
		pretend(os.Getenv("ADMIN_ADDR"))
	default:
		os.Exit(m.Run())
	}
}

// pretend answers 200 to HTTP and PONG to PING, until told to stop.
func pretend(addr string) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		os.Exit(1)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				if line, _ := r.ReadString('\n'); strings.HasPrefix(line, "*1") {
					_, _ = c.Write([]byte("+PONG\r\n"))
					return
				}
				_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
			}()
		}
	}()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	os.Exit(0)
}

func options(t *testing.T) Options {
	t.Helper()
	data := t.TempDir()
	// PostgreSQL's user must get there when root runs this.
	if err := os.Chmod(filepath.Dir(data), 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(data, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	// One copy, linked: survivors are told by where their program lies.
	if err := os.WriteFile(filepath.Join(bin, "sandbox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range plan.Services {
		if err := os.Link(filepath.Join(bin, "sandbox"), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	ports, err := plan.FreePorts()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Data: data, Ports: ports, SkipBuild: true, Replicas: 1, Partitions: 3, LogLevel: "info"}
}

func TestStack(t *testing.T) {
	o := options(t)
	var said bytes.Buffer
	s, err := Up(t.Context(), o, terminal.New(&said))
	if err != nil {
		t.Fatalf("%v\n%s", err, said.Bytes())
	}
	down := false
	defer func() {
		if !down {
			s.Down()
		}
	}()

	state, err := Load(o.Data)
	if err != nil {
		t.Fatal(err)
	}
	pid := map[string]int{}
	for _, p := range state.Processes {
		pid[p.Name] = p.PID
	}
	for _, name := range append([]string{"waybill", "postgres", "kafka", "redis", "sandbox"}, plan.Services...) {
		if pid[name] == 0 || !usage.Alive(pid[name]) {
			t.Errorf("%s has pid %d", name, pid[name])
		}
	}
	if got := state.Addresses["postgres"]; got != "postgres://postgres@127.0.0.1:"+strings.TrimPrefix(o.Ports.Addr("postgres"), "127.0.0.1:") {
		t.Errorf("postgres is at %s", got)
	}

	t.Run("a second one is refused", func(t *testing.T) {
		_, err := Up(t.Context(), o, terminal.New(&bytes.Buffer{}))
		if err == nil || !strings.Contains(err.Error(), "waybill down") {
			t.Errorf("err = %v", err)
		}
	})
	t.Run("with other data, the ports are taken", func(t *testing.T) {
		other := options(t)
		other.Ports = o.Ports
		_, err := Up(t.Context(), other, terminal.New(&bytes.Buffer{}))
		if err == nil || !strings.Contains(err.Error(), "order-admin cannot listen on "+o.Ports.Addr("order-admin")) {
			t.Errorf("err = %v", err)
		}
	})
	for _, name := range []string{"order", "kafka", "postgres"} {
		t.Run(name+" is started again", func(t *testing.T) {
			if err := syscall.Kill(pid[name], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() bool {
				state, err := Load(o.Data)
				i := slices.IndexFunc(state.Processes, func(p Entry) bool { return p.Name == name })
				return err == nil && state.Processes[i].PID != 0 && state.Processes[i].PID != pid[name] && state.Processes[i].Restarts == 1
			})
		})
	}

	down = true
	s.Down()
	for name, p := range pid {
		if name != "waybill" && usage.Alive(p) {
			t.Errorf("%s is still alive", name)
		}
	}
	if _, err := Load(o.Data); !errors.Is(err, ErrNotRunning) {
		t.Errorf("err = %v", err)
	}
	theirs := filepath.Join(o.Data, "notes")
	if err := os.WriteFile(theirs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(o.Data); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(o.Data, "*")); !slices.Equal(left, []string{theirs}) {
		t.Errorf("what is left: %v", left)
	}
	if err := errors.Join(os.Remove(theirs), os.WriteFile(filepath.Join(o.Data, "lock"), nil, 0o600), Remove(o.Data)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(o.Data); !errors.Is(err, os.ErrNotExist) {
		t.Error("the data is still there")
	}
}

func TestRemoveLeavesOtherDirectoriesAlone(t *testing.T) {
	dir := t.TempDir()
	if err := Remove(dir); err == nil {
		t.Error("a directory that is not ours was deleted")
	}
}

func TestNotReadySaysWhy(t *testing.T) {
	o := options(t)
	if err := os.Remove(filepath.Join(o.Data, "bin", "order")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.Data, "bin", "order"), []byte("#!/bin/sh\necho there is no database >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	o.HealthyWithin = 6 * time.Second // the others must be ready by then
	_, err := Up(t.Context(), o, terminal.New(&bytes.Buffer{}))
	if err == nil || !strings.Contains(err.Error(), "order is not ready") || !strings.Contains(err.Error(), "there is no database") {
		t.Errorf("err = %v", err)
	}
}

func eventually(t *testing.T, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}
