package nemesis

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ground() Ground {
	g := Ground{Parts: []string{"postgres", "kafka", "redis"}, Replicas: 2}
	for _, suffix := range []string{"", "-2"} {
		for _, s := range []string{"gateway", "order", "payment", "inventory", "shipping", "notification", "analytics", "metrics-processor"} {
			g.Processes = append(g.Processes, s+suffix)
			g.Edges = append(g.Edges, s+suffix+">postgres", s+suffix+">kafka")
		}
		g.Edges = append(g.Edges, "gateway"+suffix+">redis", "gateway"+suffix+">order", "order"+suffix+">inventory", "payment"+suffix+">provider")
	}
	g.Processes = append(g.Processes, "sandbox")
	return g
}

func TestScheduleIsAFunctionOfItsSeed(t *testing.T) {
	o := Options{Seed: 7, Duration: 20 * time.Minute, PauseMost: 20 * time.Second}
	a, b := Generate(o, ground()), Generate(o, ground())
	if diff := cmp.Diff(a, b); diff != "" {
		t.Error(diff)
	}
	o.Seed = 8
	if c := Generate(o, ground()); cmp.Equal(a.Actions, c.Actions) {
		t.Error("another seed gives the same schedule")
	}
}

// Whatever the seed, a long run has what the issue asks of it, every set, and nothing that
// could not be played or outlasts the run.
func TestLongSchedules(t *testing.T) {
	for seed := range uint64(50) {
		o := Options{Seed: seed, Duration: 20 * time.Minute, PauseMost: 20 * time.Second, AtLeast: map[Kind]int{Kill: 80, Network: 60}}
		s := Generate(o, ground())
		n := s.Count()
		if n[Kill] < 80 || n[Network] < 60 || n[Pause] < 10 || n[Restart] < 5 || n[Outside] < 10 || n[Power] < 2 {
			t.Errorf("seed %d: %v", seed, n)
		}
		seen := map[string]bool{}
		last := Duration(0)
		for i, a := range s.Actions {
			seen[a.Set] = true
			if err := a.check(); err != nil {
				t.Errorf("seed %d, action %d %+v: %v", seed, i, a, err)
			}
			if a.At < last || a.At < Duration(quietStart) || a.At+a.For > s.Duration {
				t.Errorf("seed %d, action %d: from %v for %v, after one at %v", seed, i, time.Duration(a.At), time.Duration(a.For), time.Duration(last))
			}
			if a.Kind == Pause && a.For < Duration(pauseLeast) {
				t.Errorf("seed %d: a pause of %v", seed, time.Duration(a.For))
			}
			last = a.At
		}
		for _, set := range sets {
			if !seen[set.name] {
				t.Errorf("seed %d: no %s", seed, set.name)
			}
		}
	}
}

func TestShortSchedulesAreFilled(t *testing.T) {
	least := map[Kind]int{Kill: 10, Pause: 3, Network: 6, Restart: 1}
	for seed := range uint64(200) {
		n := Generate(Options{Seed: seed, Duration: 90 * time.Second, PauseMost: 5 * time.Second, AtLeast: least}, ground()).Count()
		for kind, want := range least {
			if n[kind] < want {
				t.Errorf("seed %d: %d %s, want %d", seed, n[kind], kind, want)
			}
		}
	}
}

func TestOneInFivePeriodsIsQuiet(t *testing.T) {
	s := Generate(Options{Seed: 3, Duration: 10 * time.Hour, PauseMost: 5 * time.Second}, ground())
	busy := time.Duration(0)
	var until Duration
	for _, a := range s.Actions {
		if a.Kind == Pause { // it may outlast its period
			continue
		}
		if from := max(a.At, until); a.At+a.For > from {
			busy += time.Duration(a.At + a.For - from)
			until = a.At + a.For
		}
	}
	if share := busy.Hours() / 10; share > 0.8 {
		t.Errorf("something is wrong in %.0f %% of the time", share*100)
	}
}

func TestSavedSchedulesAreFoundAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.json")
	want := Generate(Options{Seed: 1, Duration: 3 * time.Minute, PauseMost: 9 * time.Second}, ground())
	if err := want.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBrokenSchedulesAreRefused(t *testing.T) {
	good := Action{At: 1, For: 1, Kind: Network, Target: "a>b", Toxic: &proxy.Toxic{Down: true}}
	for name, change := range map[string]func(*Schedule){
		"no duration":    func(s *Schedule) { s.Duration = 0 },
		"no replicas":    func(s *Schedule) { s.Replicas = 0 },
		"unknown kind":   func(s *Schedule) { s.Actions[0].Kind = "flood" },
		"no toxic":       func(s *Schedule) { s.Actions[0].Toxic = nil },
		"no target":      func(s *Schedule) { s.Actions[0].Target = "" },
		"beyond its end": func(s *Schedule) { s.Actions[0].For = 100 },
		"endless pause":  func(s *Schedule) { s.Actions[0] = Action{Kind: Pause, Target: "order"} },
	} {
		s := Schedule{Duration: 10, Replicas: 1, Actions: []Action{good}}
		change(&s)
		path := filepath.Join(t.TempDir(), "s.json")
		if err := s.Save(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
}

// world records what is done to it, and when.
type world struct {
	mu    sync.Mutex
	begin time.Time
	said  []string
	fail  string
}

func (w *world) say(format string, args ...any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if w.fail != "" && strings.HasPrefix(text, w.fail) {
		return errors.New("it does not run")
	}
	w.said = append(w.said, fmt.Sprintf("%v %s", time.Since(w.begin), text))
	return nil
}

func (w *world) Kill(p string) (string, error) { return "pid 1", w.say("kill %s", p) }
func (w *world) Pause(p string) (func() error, string, error) {
	return func() error { return w.say("resume %s", p) }, "", w.say("pause %s", p)
}
func (w *world) Spoil(edge, _ string, t proxy.Toxic) (func() error, error) {
	return func() error { return w.say("heal %s", edge) }, w.say("%s %s", t.Name(), edge)
}
func (w *world) Disturb(_ context.Context, r Rule) (func() error, error) {
	return func() error { return w.say("settle %s", r.Target) }, w.say("disturb %s", r.Target)
}
func (w *world) Power() (string, error) { return "", w.say("power") }

func sample() Schedule {
	const s = Duration(time.Second)
	return Schedule{Duration: 20 * s, Replicas: 2, Actions: []Action{
		{At: 3 * s, Kind: Kill, Target: "order"},
		{At: 1 * s, For: 6 * s, Kind: Pause, Target: "payment"},
		{At: 2 * s, For: 4 * s, Kind: Network, Target: "a>b", Toxic: &proxy.Toxic{Down: true}},
		{At: 5 * s, For: 4 * s, Kind: Outside, Rule: &Rule{Target: "smtp", Status: 451}},
		{At: 10 * s, Kind: Power},
	}}
}

func TestPlayDoesAndUndoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{begin: time.Now()}
		var log bytes.Buffer
		p := NewPlayer(w, &log)
		go func() {
			time.Sleep(3500 * time.Millisecond)
			if diff := cmp.Diff([]string{"down a>b", "pause payment"}, p.InForce()); diff != "" {
				t.Error(diff)
			}
		}()
		if err := p.Play(t.Context(), sample()); err != nil {
			t.Fatal(err)
		}
		want := []string{"1s pause payment", "2s down a>b", "3s kill order", "5s disturb smtp", "6s heal a>b", "7s resume payment", "9s settle smtp", "10s power"}
		if diff := cmp.Diff(want, w.said); diff != "" {
			t.Error(diff)
		}
		if took := time.Since(w.begin); took != 20*time.Second {
			t.Errorf("it took %v", took)
		}
		if diff := cmp.Diff(map[Kind]int{Kill: 1, Pause: 1, Network: 1, Outside: 1, Power: 1}, p.Done()); diff != "" {
			t.Error(diff)
		}
		if n := len(p.Kills()); n != 2 {
			t.Errorf("%d moments of kills", n)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		var e Entry
		if err := json.Unmarshal([]byte(lines[0]), &e); err != nil || len(lines) != 8 || e.Elapsed != 1 || e.Phase != "begin" || e.What != "pause payment" {
			t.Errorf("%d lines, the first %s %v", len(lines), lines[0], err)
		}
	})
}

// Whoever stops a run finds nothing broken afterwards.
func TestStoppedPlayUndoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{begin: time.Now()}
		p := NewPlayer(w, &bytes.Buffer{})
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		if err := p.Play(ctx, sample()); err != nil {
			t.Fatal(err)
		}
		slices.Sort(w.said[2:]) // both at once
		if diff := cmp.Diff([]string{"1s pause payment", "2s down a>b", "2.5s heal a>b", "2.5s resume payment"}, w.said); diff != "" {
			t.Error(diff)
		}
	})
}

// What could not be done is said and not counted.
func TestFailedActionsDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{begin: time.Now(), fail: "kill"}
		var log bytes.Buffer
		p := NewPlayer(w, &log)
		if err := p.Play(t.Context(), sample()); err != nil {
			t.Fatal(err)
		}
		if p.Done()[Kill] != 0 || len(p.Kills()) != 1 || !strings.Contains(log.String(), "it does not run") {
			t.Errorf("%v\n%s", p.Done(), log.String())
		}
	})
}

func TestServiceOf(t *testing.T) {
	for process, want := range map[string]string{"order": "order", "order-2": "order", "metrics-processor": "metrics-processor", "metrics-processor-2": "metrics-processor"} {
		if got := serviceOf(process); got != want {
			t.Errorf("%s is of %s", process, got)
		}
	}
}
