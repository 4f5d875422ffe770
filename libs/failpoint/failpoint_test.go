package failpoint_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// build compiles testdata/places.
func build(t *testing.T, tags string) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "places")
	out, err := exec.Command("go", "build", "-tags", tags, "-o", program, "./testdata/places").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// instructions are those of a function, without the addresses that they stand at.
func instructions(t *testing.T, program, function string) (all []string) {
	t.Helper()
	out, err := exec.Command("go", "tool", "objdump", "-s", `^main\.`+function+`$`, program).Output()
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^\s+\S+:\d+\s+0x[0-9a-f]+\s+([0-9a-f]+)\s`)
	for l := range strings.Lines(string(out)) {
		if m := line.FindStringSubmatch(l); m != nil {
			all = append(all, m[1])
		}
	}
	if len(all) == 0 {
		t.Fatalf("no instructions of %s in\n%s", function, out)
	}
	return all
}

// What is shipped has no trace of the places: the same machine code, and none of the names.
func TestNothingIsLeftWithoutTheTag(t *testing.T) {
	t.Parallel()
	plain, armed := build(t, ""), build(t, "failpoints")
	if diff := cmp.Diff(instructions(t, plain, "unmarked"), instructions(t, plain, "marked")); diff != "" {
		t.Errorf("a place costs instructions:\n%s", diff)
	}
	if cmp.Equal(instructions(t, armed, "unmarked"), instructions(t, armed, "marked")) {
		t.Error("with the tag the functions do not differ either: the comparison compares nothing")
	}
	for program, want := range map[string]bool{plain: false, armed: true} {
		text, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a.place.of.this.test", "WAYBILL_FAILPOINTS"} {
			if bytes.Contains(text, []byte(name)) != want {
				t.Errorf("%s in the program: %v, want %v", name, !want, want)
			}
		}
	}
}

func TestActions(t *testing.T) {
	t.Parallel()
	program := build(t, "failpoints")
	const place = "a.place.of.this.test"
	for _, c := range []struct {
		name, command string
		said          string // by the four hits
		killed, fired bool
	}{
		{"not armed", "", "2 <nil>\n2 <nil>\n2 <nil>\n2 <nil>\n", false, false},
		{"kill", "kill", "", true, true},
		{"kill at the third hit", "kill@3", "2 <nil>\n2 <nil>\n", true, true},
		{"one error", "error", "0 failpoint a.place.of.this.test\n2 <nil>\n2 <nil>\n2 <nil>\n", false, true},
		{"two errors from the second hit on", "error@2*2", "2 <nil>\n0 failpoint a.place.of.this.test\n0 failpoint a.place.of.this.test\n2 <nil>\n", false, true},
		{"pause", "pause 1ms\n", "2 <nil>\n2 <nil>\n2 <nil>\n2 <nil>\n", false, true},
		{"a share of them, which is all", "error~1", strings.Repeat("0 failpoint a.place.of.this.test\n", 4), false, true},
		{"more hits than there are", "kill@5", "2 <nil>\n2 <nil>\n2 <nil>\n2 <nil>\n", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, filepath.Base(program), place)
			if c.command != "" {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(c.command), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			run := exec.Command(program)
			run.Env = append(os.Environ(), "WAYBILL_FAILPOINTS="+dir)
			said, err := run.Output()
			if string(said) != c.said {
				t.Errorf("it said %q, want %q", said, c.said)
			}
			status := run.ProcessState.Sys().(syscall.WaitStatus)
			if killed := status.Signaled() && status.Signal() == syscall.SIGKILL; killed != c.killed || err != nil && !killed {
				t.Errorf("killed: %v (%v), want %v", killed, err, c.killed)
			}
			_, err = os.Stat(file + ".fired")
			if fired := err == nil; fired != c.fired {
				t.Errorf("fired: %v, want %v", fired, c.fired)
			}
		})
	}
}

// A word that is no command ends the program: a test that arms nothing proves nothing.
func TestWhatIsNoCommand(t *testing.T) {
	t.Parallel()
	program := build(t, "failpoints")
	for _, command := range []string{"kil", "kill@0", "error~0", "error~1.5", "error*x", "pause", "pause soon"} {
		dir := t.TempDir()
		file := filepath.Join(dir, filepath.Base(program), "a.place.of.this.test")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(command), 0o644); err != nil {
			t.Fatal(err)
		}
		run := exec.Command(program)
		run.Env = append(os.Environ(), "WAYBILL_FAILPOINTS="+dir)
		if out, err := run.CombinedOutput(); err == nil || !strings.Contains(string(out), "failpoint "+file) {
			t.Errorf("%q: %v\n%s", command, err, out)
		}
	}
}
