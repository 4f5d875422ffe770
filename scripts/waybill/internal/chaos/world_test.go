package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/nemesis"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/proxy"
)

// few is a stack of a few processes.
type few map[string]int

func (f few) Names() []string {
	var names []string
	for name := range f {
		names = append(names, name)
	}
	return names
}

func (f few) Pids(name string) []int { return []int{f[name]} }

func (f few) Signal(name string, sig syscall.Signal) ([]int, error) {
	return f.Pids(name), syscall.Kill(f[name], sig)
}

// sleeper starts a process that does nothing.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// state is the letter that Linux has for what a process does: S sleeps, T is stopped.
func state(t *testing.T, pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Skip("SKIPPED: this system does not tell what a process does")
	}
	return strings.Fields(string(b))[2]
}

func await(t *testing.T, pid int, want string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); state(t, pid) != want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is %s, not %s", pid, state(t, pid), want)
		}
	}
}

// A process that two pauses hold goes on when both are over.
func TestPausesOverlap(t *testing.T) {
	t.Parallel()
	pid := sleeper(t).Process.Pid
	w := &world{stack: few{"order": pid}, paused: map[int]int{}}
	await(t, pid, "S")
	first, _, err := w.Pause("order")
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := w.Pause("order")
	if err != nil {
		t.Fatal(err)
	}
	await(t, pid, "T")
	if err := first(); err != nil {
		t.Error(err)
	}
	if got := state(t, pid); got != "T" {
		t.Errorf("it is %s although one pause is left", got)
	}
	if err := second(); err != nil {
		t.Error(err)
	}
	await(t, pid, "S")
	if len(w.paused) != 0 {
		t.Errorf("%v is still counted as paused", w.paused)
	}
}

// The power takes paused processes along, and resuming one of those is no error.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	a, b := sleeper(t), sleeper(t)
	w := &world{stack: few{"order": a.Process.Pid, "postgres": b.Process.Pid}, paused: map[int]int{}}
	resume, _, err := w.Pause("order")
	if err != nil {
		t.Fatal(err)
	}
	if detail, err := w.Power(); err != nil || detail != "2 programs" {
		t.Errorf("%s %v", detail, err)
	}
	for _, cmd := range []*exec.Cmd{a, b} {
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("it ended with %v", err)
		}
	}
	if err := resume(); err != nil {
		t.Error(err)
	}
}

// The sandbox is asked until it answers, for it may just be starting again.
func TestDisturbInsists(t *testing.T) {
	t.Parallel()
	asked, rules := 0, map[string]nemesis.Rule{}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch asked++; {
		case asked == 1:
			rw.WriteHeader(http.StatusServiceUnavailable)
		case r.Method == http.MethodPost:
			var rule nemesis.Rule
			_ = json.NewDecoder(r.Body).Decode(&rule)
			rules["7"] = rule
			rw.WriteHeader(http.StatusCreated)
			_, _ = rw.Write([]byte(`{"id":"7"}`))
		case r.Method == http.MethodDelete:
			delete(rules, strings.TrimPrefix(r.URL.Path, "/faults/"))
			rw.WriteHeader(http.StatusNoContent)
		}
	}))
	defer server.Close()
	w := &world{sandbox: server.URL}
	want := nemesis.Rule{Target: "smtp", Status: 451, Delay: nemesis.Duration(time.Second), Rate: 0.5}
	settle, err := w.Disturb(context.Background(), want)
	if err != nil {
		t.Fatal(err)
	}
	if rules["7"] != want {
		t.Errorf("it was asked for %+v", rules["7"])
	}
	if err := settle(); err != nil || len(rules) != 0 {
		t.Errorf("%v, %v are left", err, rules)
	}
}

func TestSpoilOfAnEdgeThatIsNotThere(t *testing.T) {
	t.Parallel()
	w := &world{fabric: newFabric(0, 1)}
	if _, err := w.Spoil("order>mars", "1", proxy.Toxic{Down: true}); err == nil {
		t.Error("it was spoilt")
	}
}
