package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/oracle"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/stack"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/terminal"
)

// Exit statuses of verify.
const (
	exitViolated  = 1
	exitUnchecked = 2
)

// exitError is an error that says with which status the program ends.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

func newVerify(c *common) *cobra.Command {
	var t oracle.Target
	var kafka string
	var asJSON, selfTest bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove from the stores that money, stock and events balance",
		Long: `Prove from the stores alone that nothing was lost, doubled, oversold or left half done. It reads
every database, the four topics from their beginning and the books of the sandbox, and
compares them; what a service says of itself counts for nothing. It writes nothing.

First it waits until the platform rests: no order under way, every event published, every
reader at the end. Ends with status 0 where all invariants hold, 1 where one is violated
(each violation names its order, with the timeline), 2 where it could not be checked.

With --history FILE, written by a load process, it also compares what clients were told.

--self-test proves the check on the data at hand: it corrupts what the check sees, in one way
after the other, and demands that each corruption is found by the invariant that is meant to.
The stores stay as they are, but tables are locked for a moment: not while somebody works. It
needs the address of a superuser (the stack that runs here has one).`,
		Example: `  waybill verify
  waybill verify --json | jq '.invariants[] | select(.violated > 0)'
  waybill verify --postgres postgres://waybill_auditor@127.0.0.1:15432 --kafka 127.0.0.1:9092 --sandbox http://127.0.0.1:8090
  waybill verify --self-test`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := targetOf(&t, c.data, kafka, selfTest); err != nil {
				return exitError{err, exitUnchecked}
			}
			v := verdict{out: c.out, asJSON: asJSON}
			if selfTest {
				return v.selfTest(cmd.Context(), t)
			}
			return v.check(cmd.Context(), t)
		},
	}
	f := cmd.Flags()
	f.StringVar(&t.Postgres, "postgres", "", "URL of PostgreSQL without a database name, of a role that may read everything (default: of the stack that runs here)")
	f.StringVar(&kafka, "kafka", "", "brokers, host:port[,…] (default: of the stack that runs here)")
	f.StringVar(&t.Sandbox, "sandbox", "", "URL of the sandbox (default: of the stack that runs here)")
	f.StringVar(&t.History, "history", "", "what a load process was told, a JSON object per line")
	f.DurationVar(&t.Wait, "wait", 2*time.Minute, "how long the platform may take to come to rest")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.BoolVar(&selfTest, "self-test", false, "prove that the check finds what it should")
	cmd.MarkFlagsMutuallyExclusive("self-test", "history")
	return cmd
}

// targetOf fills in what was not given from the stack that runs here.
func targetOf(t *oracle.Target, data, kafka string, superuser bool) error {
	if t.Postgres == "" || kafka == "" || t.Sandbox == "" {
		s, err := stack.Load(data)
		if err != nil {
			return fmt.Errorf("%w\n(or say where everything is with --postgres, --kafka and --sandbox)", err)
		}
		if t.Postgres == "" {
			t.Postgres = s.Addresses["auditor"]
			if superuser || t.Postgres == "" { // whoever started it may not make roles
				t.Postgres = s.Addresses["postgres"]
			}
		}
		if kafka == "" {
			kafka = s.Addresses["kafka"]
		}
		if t.Sandbox == "" {
			t.Sandbox = s.Addresses["sandbox"]
		}
	}
	t.Kafka, t.Sandbox = strings.Split(kafka, ","), strings.TrimSuffix(t.Sandbox, "/")
	return nil
}

// verdict prints what was found.
type verdict struct {
	out    *terminal.Screen
	asJSON bool
}

func (v verdict) progress(step *terminal.Step) func(string) {
	return func(what string) {
		if step != nil {
			step.Remark("%s", what)
		}
	}
}

func (v verdict) check(ctx context.Context, t oracle.Target) error {
	var step *terminal.Step
	if !v.asJSON {
		step = v.out.Step("checking every store")
		defer step.Fail()
	}
	r, err := oracle.Check(ctx, t, v.progress(step))
	if err != nil {
		var u *oracle.Unsettled
		if v.asJSON && errors.As(err, &u) {
			v.json(map[string]any{"clean": false, "unsettled": u})
		}
		return exitError{err, exitUnchecked}
	}
	if v.asJSON {
		v.json(r)
	} else {
		step.Done("%d orders, %d events, %.1f s", r.Counts["orders"], r.Counts["outbox.events"], r.Seconds)
		v.print(r)
	}
	if !r.Clean {
		return exitError{errors.New("invariants are violated"), exitViolated}
	}
	return nil
}

func (v verdict) json(x any) {
	b, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		panic(err) // strings, numbers and times
	}
	v.out.Line("%s", b)
}

func (v verdict) print(r oracle.Report) {
	rows := [][]string{{"", "INVARIANT", "CHECKED", "VIOLATED", ""}}
	for _, f := range r.Findings {
		mark := "✓"
		switch {
		case f.Violated > 0:
			mark = "✗"
		case f.Checked == 0:
			mark = "·"
		}
		rows = append(rows, []string{mark, f.Name, fmt.Sprint(f.Checked), fmt.Sprint(f.Violated), f.Says})
	}
	v.out.Table(rows)
	for _, f := range r.Findings {
		for _, x := range f.Violations {
			v.out.Line("%s %s %s: %s", v.out.Paint(terminal.Red, "✗"), f.Name, v.out.Paint(terminal.Bold, x.Order), x.Detail)
			for _, l := range x.Timeline {
				v.out.Line("    %s %-12s %-26s %-12s %s", l.At.Format("15:04:05.000"), l.From, l.Event, l.Status, v.out.Paint(terminal.Dim, l.Detail))
			}
		}
		if n := f.Violated - int64(len(f.Violations)); n > 0 {
			v.out.Line("  … and %d more of %s", n, f.Name)
		}
	}
	var orders []string
	for _, name := range slices.Sorted(maps.Keys(r.Counts)) {
		if status, ok := strings.CutPrefix(name, "orders."); ok && !strings.Contains(status, ".") {
			orders = append(orders, fmt.Sprintf("%d %s", r.Counts[name], status))
		}
	}
	v.out.Line("orders: %s", strings.Join(orders, ", "))
}

// selfTest tries every corruption.
func (v verdict) selfTest(ctx context.Context, t oracle.Target) error {
	var step *terminal.Step
	if !v.asJSON {
		step = v.out.Step("corrupting what the check sees")
		defer step.Fail()
	}
	trials, err := oracle.SelfTest(ctx, t, v.progress(step))
	if err != nil {
		return exitError{err, exitUnchecked}
	}
	missed, skipped := 0, 0
	rows := [][]string{{"", "CORRUPTION", "MEANT TO FIND IT", "FOUND BY"}}
	for _, x := range trials {
		mark := "✓"
		switch {
		case x.Skipped != "":
			mark = "·"
			skipped++
		case !x.Caught:
			mark = "✗"
			missed++
		}
		rows = append(rows, []string{mark, x.Corruption, x.Want, strings.Join(x.Found, " ") + x.Skipped})
	}
	if v.asJSON {
		v.json(trials)
	} else {
		step.Done("%d of %d found", len(trials)-missed-skipped, len(trials))
		v.out.Table(rows)
	}
	switch {
	case missed > 0:
		return exitError{fmt.Errorf("%d corruptions were not found by what is meant to find them", missed), exitViolated}
	case skipped > 0:
		return exitError{fmt.Errorf("%d corruptions could not be tried: place more orders first (waybill order --all)", skipped), exitUnchecked}
	}
	return nil
}
