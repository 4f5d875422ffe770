// Package nemesis breaks things on a schedule: processes are killed and paused, networks cut
// and slowed, the world outside misbehaves.
//
// A schedule is a pure function of its seed and of what there is to break. It can be saved,
// played again, and shortened by hand until only what matters is left of it.
package nemesis

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/proxy"
)

// Kind is what is done.
type Kind string

// The kinds.
const (
	Kill    Kind = "kill"    // -9 of a process of ours
	Pause   Kind = "pause"   // SIGSTOP, and SIGCONT when it is over
	Restart Kind = "restart" // -9 of PostgreSQL, Kafka or Redis, which come back
	Network Kind = "network" // a toxic on an edge
	Outside Kind = "outside" // a fault of the sandbox
	Power   Kind = "power"   // -9 of everything at once
)

// Kinds lists them in the order of reports.
var Kinds = []Kind{Kill, Pause, Restart, Network, Outside, Power}

// Duration is written as Go writes durations: "1m30s".
type Duration time.Duration

// MarshalText writes a duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads one.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Rule is a fault that the sandbox is asked for, as its POST /faults takes it.
type Rule struct {
	Target      string   `json:"target"`
	Status      int      `json:"status,omitzero"`
	Delay       Duration `json:"delay,omitzero"`
	Timeout     bool     `json:"timeout,omitzero"`
	AfterEffect bool     `json:"after_effect,omitzero"`
	Outcome     string   `json:"outcome,omitzero"`
	Count       int      `json:"count,omitzero"`
	Rate        float64  `json:"rate,omitzero"`
}

// Action is one thing that is done at a time, and undone later where For says so.
type Action struct {
	At     Duration     `json:"at"`
	For    Duration     `json:"for,omitzero"`
	Kind   Kind         `json:"kind"`
	Target string       `json:"target,omitzero"` // process, part, or edge as caller>callee
	Toxic  *proxy.Toxic `json:"toxic,omitempty"`
	Rule   *Rule        `json:"rule,omitempty"`
	// Set is the combination that it belongs to.
	Set string `json:"set,omitzero"`
}

// String is the action in a few words.
func (a Action) String() string {
	switch a.Kind {
	case Network:
		if a.Toxic != nil {
			return fmt.Sprintf("%s %s", a.Toxic.Name(), a.Target)
		}
	case Outside:
		if a.Rule != nil {
			return "outside " + a.Rule.Target
		}
	case Power:
		return "power cut"
	}
	return string(a.Kind) + " " + a.Target
}

// Schedule is what is done in a run.
type Schedule struct {
	Seed     uint64   `json:"seed"`
	Duration Duration `json:"duration"`
	Replicas int      `json:"replicas"`
	Actions  []Action `json:"actions"`
}

// Count says how often each kind is in it.
func (s Schedule) Count() map[Kind]int {
	n := map[Kind]int{}
	for _, a := range s.Actions {
		n[a.Kind]++
	}
	return n
}

// Save writes a schedule to a file.
func (s Schedule) Save(path string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// Load reads one, and refuses what could not be played.
func Load(path string) (Schedule, error) {
	var s Schedule
	b, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read schedule %s: %w", path, err)
	}
	if s.Duration <= 0 || s.Replicas < 1 {
		return s, fmt.Errorf("schedule %s has no duration or no replicas", path)
	}
	for i, a := range s.Actions {
		if err := a.check(); err != nil {
			return s, fmt.Errorf("schedule %s, action %d: %w", path, i, err)
		}
		if a.At < 0 || a.For < 0 || a.At+a.For > s.Duration {
			return s, fmt.Errorf("schedule %s, action %d: it is not within the run", path, i)
		}
	}
	return s, nil
}

func (a Action) check() error {
	switch a.Kind {
	case Kill, Restart:
		if a.Target == "" {
			return fmt.Errorf("%s of what?", a.Kind)
		}
	case Pause:
		if a.Target == "" || a.For == 0 {
			return fmt.Errorf("pause of what, and for how long?")
		}
	case Network:
		if a.Target == "" || a.Toxic == nil || a.For == 0 {
			return fmt.Errorf("network needs a target, a toxic and a time")
		}
	case Outside:
		if a.Rule == nil || a.For == 0 {
			return fmt.Errorf("outside needs a rule and a time")
		}
	case Power:
	default:
		return fmt.Errorf("unknown kind %q", a.Kind)
	}
	return nil
}
