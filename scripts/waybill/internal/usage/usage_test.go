package usage

import (
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
)

func TestOf(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED: only Linux tells")
	}
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	found := false
	for _, pid := range Tree(os.Getpid()) {
		found = found || pid == child.Process.Pid
	}
	if !found {
		t.Error("the child is not in the tree")
	}
	for begin := time.Now(); time.Since(begin) < 50*time.Millisecond; { // burn some
	}
	pss, cpu, err := Of(os.Getpid(), false)
	if err != nil || pss < 1<<20 || cpu < 10*time.Millisecond {
		t.Errorf("%d bytes, %v, %v", pss, cpu, err)
	}
	with, _, err := Of(os.Getpid(), true)
	if err != nil || with <= 0 {
		t.Errorf("%d bytes, %v", with, err)
	}
	if Self() < 10*time.Millisecond {
		t.Errorf("own time is %v", Self())
	}
	if !Alive(child.Process.Pid) || Alive(0) {
		t.Error("who is alive?")
	}
	if Program(os.Getpid()) == "" {
		t.Error("own program is not known")
	}
}

func TestListener(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED: only Linux tells")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if pid, name := Listener(port); pid != os.Getpid() || name == "" {
		t.Errorf("got %d %q, want %d", pid, name, os.Getpid())
	}
	l.Close()
	if pid, _ := Listener(port); pid != 0 {
		t.Errorf("nobody listens, and it is %d", pid)
	}
}
