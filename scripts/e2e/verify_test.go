package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"testing"
)

// verify runs the oracle over the stack under test.
func verify(args ...string) (out []byte, err error) {
	out, err = exec.Command(platform.binary, append([]string{"verify", "--json", "--data", platform.data}, args...)...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("waybill verify: %w\n%s%s", err, exit.Stderr, out)
	}
	return out, err
}

// TestOracle proves the oracle on true data: each corruption is found by the invariant that is meant to find it, and without
// one everything is clean. Whether the stories leave the platform clean is asked after all of them, in TestMain.
func TestOracle(t *testing.T) {
	if platform.binary == "" {
		t.Skip("SKIPPED: the databases are not known (WAYBILL_E2E_GATEWAY is set)")
	}
	// Something of everything that is corrupted: delivered, refunded, and waiting for a person.
	for _, name := range []string{"ok", "ok", "cancel", "lost"} {
		if out, err := exec.Command(platform.binary, "order", "--case", name, "--data", platform.data).CombinedOutput(); err != nil {
			t.Fatalf("order --case %s: %v\n%s", name, err, out)
		}
	}
	out, err := verify()
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Clean      bool
		Invariants []struct {
			Name              string
			Checked, Violated int64
		}
		Counts map[string]int64
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !report.Clean || report.Counts["orders.completed"] < 2 || report.Counts["orders.cancelled"] < 1 || report.Counts["orders.attention"] < 1 {
		t.Errorf("%s", out)
	}
	needsMore := map[string]bool{ // a history, an idempotency key, a hold, a record that came twice
		"I-SAGA-3": true, "I-SAGA-4": true, "I-SAGA-5": true, "I-IDEM-1": true, "I-IDEM-2": true, "I-STOCK-5": true, "I-EVT-7": true,
	}
	for _, i := range report.Invariants {
		if i.Checked == 0 && !needsMore[i.Name] {
			t.Errorf("%s was checked on nothing", i.Name)
		}
	}

	out, err = verify("--self-test")
	if err != nil {
		t.Error(err)
	}
	var trials []struct {
		Corruption, Want string
		Found            []string
		Caught           bool
	}
	if err := json.Unmarshal(out, &trials); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(trials) < 25 {
		t.Errorf("only %d corruptions were tried", len(trials))
	}
	for _, x := range trials {
		if !x.Caught {
			t.Errorf("%s: %s should have found it, %v did", x.Corruption, x.Want, x.Found)
		}
	}
	// None of it has happened.
	if _, err := verify(); err != nil {
		t.Error(err)
	}
}

// TestOracleTellsWhy: what cannot be checked is neither clean nor violated.
func TestOracleTellsWhy(t *testing.T) {
	if platform.binary == "" {
		t.Skip("SKIPPED: the databases are not known (WAYBILL_E2E_GATEWAY is set)")
	}
	for _, args := range [][]string{
		{"--kafka", "127.0.0.1:1"},
		{"--sandbox", "http://127.0.0.1:1"},
		{"--postgres", "postgres://postgres@127.0.0.1:1"},
	} {
		var exit *exec.ExitError
		if _, err := verify(args...); !errors.As(err, &exit) || exit.ExitCode() != 2 {
			t.Errorf("verify %v: %v, want exit status 2", args, err)
		}
	}
}
