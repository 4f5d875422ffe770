package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// services are the eight.
var services = []string{"gateway", "order", "payment", "inventory", "shipping", "notification", "analytics", "metrics-processor"}

// platform is the stack under test.
var platform struct {
	gateway, sandbox string
	kafka            []string
	addresses        map[string]string // by name; empty where only gateway and sandbox are known
	binary, data     string            // of "waybill"; empty where the processes cannot be seen
}

// status is what "waybill status --json" prints.
type status struct {
	Processes []process         `json:"processes"`
	Addresses map[string]string `json:"addresses"`
}

type process struct {
	Name  string `json:"name"`
	PID   int    `json:"pid"`
	Ready bool   `json:"ready"`
}

func TestMain(m *testing.M) {
	stop, err := attach()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	code := m.Run()
	// Whatever the stories did and killed, nothing may be lost, doubled or half done.
	if code == 0 && platform.binary != "" {
		if _, err := verify(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: after all stories:", err)
			code = 1
		}
	}
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: stop the stack:", err)
		code = 1
	}
	os.Exit(code)
}

// attach finds the stack to test, or starts one.
func attach() (stop func() error, err error) {
	nothing := func() error { return nil }
	if gateway := os.Getenv("WAYBILL_E2E_GATEWAY"); gateway != "" {
		platform.gateway, platform.sandbox = strings.TrimSuffix(gateway, "/"), strings.TrimSuffix(os.Getenv("WAYBILL_E2E_SANDBOX"), "/")
		if platform.sandbox == "" {
			return nil, errors.New("WAYBILL_E2E_GATEWAY needs WAYBILL_E2E_SANDBOX beside it")
		}
		if k := os.Getenv("WAYBILL_E2E_KAFKA"); k != "" {
			platform.kafka = strings.Split(k, ",")
		}
		return nothing, nil
	}
	tmp, err := os.MkdirTemp("", "waybill-e2e-")
	if err != nil {
		return nil, err
	}
	// PostgreSQL's user must get there when root runs this.
	if err := os.Chmod(tmp, 0o755); err != nil {
		return nil, err
	}
	platform.binary = filepath.Join(tmp, "waybill")
	build := exec.Command("go", "build", "-o", platform.binary, ".")
	build.Dir = filepath.Join("..", "waybill")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build scripts/waybill: %w\n%s", err, out)
	}
	if data := os.Getenv("WAYBILL_E2E_DATA"); data != "" {
		platform.data = data
		return func() error { return os.RemoveAll(tmp) }, adopt()
	}
	platform.data = filepath.Join(tmp, "data")
	return start(tmp)
}

// adopt reads the addresses of the running stack.
func adopt() error {
	s, err := readStatus()
	if err != nil {
		return err
	}
	platform.addresses = s.Addresses
	platform.gateway, platform.sandbox = s.Addresses["gateway"], s.Addresses["sandbox"]
	platform.kafka = strings.Split(s.Addresses["kafka"], ",")
	return nil
}

// readStatus fails only where there is nothing to read; that something is not ready
// stands in what it returns.
func readStatus() (s status, err error) {
	out, err := exec.Command(platform.binary, "status", "--json", "--data", platform.data).Output()
	if len(out) == 0 {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return s, errors.New(strings.TrimSpace(string(exit.Stderr)))
		}
		return s, err
	}
	return s, json.Unmarshal(out, &s)
}

// upWithin is long enough for a first build of everything on two busy cores.
const upWithin = 15 * time.Minute

// upArgs are further arguments of "waybill up", which files under a build tag may need.
var upArgs []string

func start(tmp string) (func() error, error) {
	args := []string{"up", "--free-ports", "--no-sample", "--until-stdin-ends", "--data", platform.data, "--source", filepath.Join("..", "..")}
	args = append(args, upArgs...)
	replicas := os.Getenv("WAYBILL_E2E_REPLICAS")
	if replicas == "" {
		replicas = "2" // what holds for one process of a kind holds for little
	}
	args = append(args, "--replicas", replicas)
	if kafka := os.Getenv("WAYBILL_E2E_KAFKA"); kafka != "" {
		args = append(args, "--kafka", kafka)
	}
	if os.Getenv("WAYBILL_E2E_RACE") != "" {
		args = append(args, "--race")
	}
	log, err := os.Create(filepath.Join(tmp, "up.log"))
	if err != nil {
		return nil, err
	}
	up := exec.Command(platform.binary, args...)
	up.Stdout, up.Stderr = log, log
	up.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// It ends when we do, whatever happens here: nobody else holds this pipe.
	life, err := up.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := up.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- up.Wait() }()
	stop := func() error {
		defer log.Close()
		defer life.Close()
		_ = up.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				text, _ := os.ReadFile(log.Name())
				return fmt.Errorf("waybill up: %w\n%s", err, text)
			}
		case <-time.After(2 * time.Minute):
			_ = up.Process.Kill()
			return errors.New("waybill up did not stop within two minutes")
		}
		if os.Getenv("WAYBILL_E2E_KEEP") != "" {
			fmt.Fprintln(os.Stderr, "e2e: logs and data are kept in", tmp)
			return nil
		}
		return os.RemoveAll(tmp)
	}
	deadline := time.Now().Add(upWithin)
	for {
		if s, err := readStatus(); err == nil && allReady(s) {
			return stop, adopt()
		}
		select {
		case err := <-ended:
			text, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("waybill up: %w\n%s", err, text)
		case <-time.After(200 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			_ = stop()
			return nil, errors.New("the stack was not ready in time")
		}
	}
}

func allReady(s status) bool {
	found := 0
	for _, p := range s.Processes {
		if !p.Ready {
			return false
		}
		if slices.Contains(services, p.Name) {
			found++
		}
	}
	return found == len(services)
}

// eventually waits until cond returns nil; what it returned last is why not.
func eventually(t testing.TB, within time.Duration, cond func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %v", within, err)
		case <-tick.C:
		}
	}
}
