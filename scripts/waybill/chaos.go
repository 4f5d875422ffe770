package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/chaos"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/load"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/nemesis"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/stack"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/terminal"
)

// exitInconclusive is chaos' own status, beside those of verify.
const exitInconclusive = 3

func newChaos(c *common) *cobra.Command {
	var o chaos.Options
	var minutes float64
	var schedule, replay, ledger string
	var least map[string]int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Break everything under load and prove that nothing was lost",
		Long: `Break everything under load and prove that nothing was lost, doubled, oversold or left stuck.

Starts two replicas of every service on fresh data and ports of their own, each call through
a proxy. A load of customers, merchants and operators runs while a nemesis kills and pauses
processes, cuts and slows links, restarts PostgreSQL, Kafka and Redis, has payment provider,
carrier and mail misbehave, and now and then cuts the power. What it does is a function of
--seed. Then everything is healed, and the oracle of "waybill verify" checks every invariant.

Ends with status 0 where all of them hold, 1 where one is violated or an order is stuck, 2
where there is no verdict, 3 where a rare path was not taken, so that the run proves less
than it should. Schedule, history, logs and report stay in <data>/chaos-runs; a row is added
to docs/chaos.md.`,
		Example: `  waybill chaos --seed 7 --minutes 3
  waybill chaos --minutes 20 --kafka apache --control 2m
  waybill chaos --replay .waybill/chaos-runs/20261122-213000-seed-7-embedded
  waybill chaos --schedule testdata/schedules`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Source == "" {
				if o.Source, err = stack.FindSource(); err != nil {
					return exitError{err, exitUnchecked}
				}
			}
			if o.Replicas < 1 || o.Replicas > 3 || o.Rate <= 0 || minutes <= 0 {
				return exitError{errors.New("--replicas must be 1 to 3, --rate and --minutes above 0"), exitUnchecked}
			}
			data, err := filepath.Abs(c.data)
			if err != nil {
				return err
			}
			o.Data, o.Artefacts = filepath.Join(data, "chaos"), filepath.Join(data, "chaos-runs")
			o.Duration = time.Duration(minutes * float64(time.Minute))
			if ledger != "none" {
				o.Ledger = filepath.Join(o.Source, ledger)
			}
			o.AtLeast = map[nemesis.Kind]int{}
			for kind, n := range least {
				o.AtLeast[nemesis.Kind(kind)] = n
			}
			files := []string{""}
			switch {
			case replay != "":
				files = []string{filepath.Join(replay, "schedule.json")}
			case schedule != "":
				if files, err = schedules(schedule); err != nil {
					return exitError{err, exitUnchecked}
				}
			}
			out := c.out
			if asJSON {
				out = terminal.New(os.Stderr)
			}
			if !cmd.Flags().Changed("seed") {
				o.Seed = uint64(time.Now().UnixNano()) % 1_000_000
			}
			worst := error(nil)
			for _, file := range files {
				if file != "" {
					s, err := nemesis.Load(file)
					if err != nil {
						return exitError{err, exitUnchecked}
					}
					o.Schedule, o.Seed, o.Replicas = &s, s.Seed, s.Replicas
				}
				report, err := chaos.Run(cmd.Context(), o, out)
				if err != nil {
					return exitError{err, exitUnchecked}
				}
				if asJSON {
					b, err := json.MarshalIndent(report, "", "  ")
					if err != nil {
						return err
					}
					c.out.Line("%s", b)
				} else {
					printChaos(c.out, report)
				}
				if err := verdictError(report); err != nil && (worst == nil || report.Verdict == chaos.Violated) {
					worst = err
				}
			}
			return worst
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&o.Seed, "seed", 0, "of the faults and the load (default: of the time)")
	f.Float64Var(&minutes, "minutes", 3, "how long things break")
	f.DurationVar(&o.Control, "control", 0, "how long the load runs without faults before, to compare with")
	f.Float64Var(&o.Rate, "rate", 25, "new orders a second; all operations are twice as many")
	f.IntVar(&o.Replicas, "replicas", 2, "processes of each service")
	f.StringVar(&o.Kafka, "kafka", "", `"apache" starts Apache Kafka (see scripts/kafka); host:port uses one that is not killed, only cut off (default: the embedded broker)`)
	f.StringVar(&schedule, "schedule", "", "play this schedule, or each in this directory, in the place of the seed's")
	f.StringVar(&replay, "replay", "", "play the schedule of an earlier run again, by its directory")
	f.DurationVar(&o.PauseMost, "pause", 20*time.Second, "the longest pause of a process; the shortest is 5 s")
	f.StringToIntVar(&least, "at-least", nil, "add faults until there are so many: kill=10,pause=3,network=6,restart=2")
	f.DurationVar(&o.Wait, "wait", 150*time.Second, "how long the platform may take to come to rest afterwards")
	f.StringVar(&ledger, "ledger", "docs/chaos.md", `file in the source tree that gets a row; "none" for none`)
	f.IntVar(&o.PortBase, "port-base", 26000, "ports of everything, proxies included: 6,200 from here on, below the kernel's range for outgoing connections")
	f.BoolVar(&o.Race, "race", false, "build the services with the race detector (needs a C compiler)")
	f.BoolVar(&o.SkipBuild, "no-build", false, "run what was built before")
	f.StringVar(&o.Source, "source", "", "the source tree (default: the one around the working directory)")
	f.StringVar(&o.LogLevel, "log-level", "info", "of the services: debug, info, warn, error")
	f.BoolVar(&asJSON, "json", false, "print the report as JSON, everything else to standard error")
	cmd.AddCommand(newOutage(c), newTakeOver(c))
	return cmd
}

// schedules lists a file, or those of a directory.
func schedules(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	files, err := filepath.Glob(filepath.Join(path, "*.json"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("there is no schedule in %s", path)
	}
	return files, err
}

func verdictError(r chaos.Report) error {
	switch r.Verdict {
	case chaos.Clean:
		return nil
	case chaos.Inconclusive:
		return exitError{fmt.Errorf("inconclusive: not reached: %s", strings.Join(r.Missed, ", ")), exitInconclusive}
	case chaos.Violated:
		return exitError{fmt.Errorf("violated: %s; see %s, and play it again with --replay %s", r.Why, filepath.Join(r.Artefacts, "report.json"), r.Artefacts), exitViolated}
	}
	return exitError{fmt.Errorf("not checked: %s", r.Why), exitUnchecked}
}

func printChaos(out *terminal.Screen, r chaos.Report) {
	out.Line("")
	rows := [][]string{{"", "ORDERS", "ACCEPTED/S", "ACCEPT P50 / P99 MS", "COMPLETED P50 / P99 MS", "UNKNOWN"}}
	add := func(name string, p chaos.Phase) {
		rows = append(rows, []string{name, fmt.Sprint(p.Counts.Orders), fmt.Sprintf("%.1f", p.Goodput), fmt.Sprintf("%.0f / %.0f", p.AcceptP50, p.AcceptP99), fmt.Sprintf("%.0f / %.0f", p.EndP50, p.EndP99), fmt.Sprint(p.Counts.Unknown)})
	}
	if r.Control != nil {
		add("without faults", *r.Control)
	}
	add("with faults", r.Chaos)
	out.Table(rows)
	out.Line("")
	var done []string
	for _, k := range nemesis.Kinds {
		done = append(done, fmt.Sprintf("%d %s", r.Done[k], k))
	}
	out.Line("done: %s; all ready %.1f s after the last; %d redriven", strings.Join(done, ", "), r.ReadyIn, r.Redriven)
	rows = [][]string{{"PATH TAKEN", "TIMES"}}
	for _, g := range r.Gates {
		rows = append(rows, []string{g.Name, fmt.Sprint(g.Count)})
	}
	out.Table(rows)
	if r.Oracle != nil {
		out.Line("")
		for _, f := range r.Oracle.Findings {
			if f.Violated == 0 {
				continue
			}
			out.Line("%s %s: %s: %d of %d", out.Paint(terminal.Red, "✗"), f.Name, f.Says, f.Violated, f.Checked)
			for _, v := range f.Violations {
				out.Line("    %s %s", v.Order, v.Detail)
			}
		}
	}
	if r.Unsettled != "" {
		out.Line("%s %s", out.Paint(terminal.Red, "✗"), r.Unsettled)
	}
	if r.Verdict == chaos.Violated || r.Verdict == chaos.Unchecked {
		out.Line("the stores stay until the next run: waybill --data %s up --no-build --no-sample, and waybill --data %s verify --history %s", r.Data, r.Data, filepath.Join(r.Artefacts, "history.jsonl"))
	}
	mark := out.Paint(terminal.Green, "✓")
	if r.Verdict != chaos.Clean {
		mark = out.Paint(terminal.Yellow, "!")
	}
	out.Line("%s %s %s", mark, r.Verdict, r.Why)
}

// measurement has the flags that all of chaos' measurements share.
func measurement(c *common, o *chaos.Options, cmd *cobra.Command) {
	f := cmd.Flags()
	f.Float64Var(&o.Rate, "rate", 20, "new orders a second")
	f.StringVar(&o.Kafka, "kafka", "", `"apache" starts Apache Kafka (default: the embedded broker)`)
	f.DurationVar(&o.Wait, "wait", 150*time.Second, "how long the platform may take to come to rest afterwards")
	f.IntVar(&o.PortBase, "port-base", 26000, "ports of everything, 6,200 from here on")
	f.BoolVar(&o.SkipBuild, "no-build", false, "run what was built before")
	f.StringVar(&o.LogLevel, "log-level", "info", "of the services")
	cmd.PreRunE = func(*cobra.Command, []string) (err error) {
		if o.Source, err = stack.FindSource(); err != nil {
			return exitError{err, exitUnchecked}
		}
		data, err := filepath.Abs(c.data)
		o.Replicas, o.Seed = 2, 1
		o.Data, o.Artefacts = filepath.Join(data, "chaos"), filepath.Join(data, "chaos-runs")
		return err
	}
}

func newOutage(c *common) *cobra.Command {
	var o chaos.Options
	var minutes float64
	cmd := &cobra.Command{
		Use:   "outage kafka|redis",
		Short: "Take Kafka or Redis away and see who still answers",
		Long: `Take Kafka or Redis away from everybody, for --minutes. Meanwhile orders are placed, none of
them twice, and every operation of the gateway's OpenAPI document is asked once a second. Then
it is healed, and the oracle checks. Fails where an order was not answered 202, an operation
did not answer or answered 5xx, a process was not ready at the end (a balancer would leave it
out), or an invariant is violated.`,
		Example:   "  waybill chaos outage kafka --minutes 10\n  waybill chaos outage redis --minutes 2",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"kafka", "redis"},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Duration = time.Duration(minutes * float64(time.Minute))
			found, err := chaos.RunOutage(cmd.Context(), o, args[0], c.out)
			if err != nil {
				return exitError{err, exitUnchecked}
			}
			c.out.Line("")
			c.out.Line("%.0f s without %s: POST /orders answered %v, p50 / p99 %.0f / %.0f ms (before: %.0f / %.0f ms)", found.Seconds, found.Part, found.Posts, found.P50, found.P99, found.BeforeP50, found.BeforeP99)
			c.out.Line("%d operations were asked %d times; %d answered 5xx or not at all", found.Routes, found.Requests, len(found.Failures))
			for _, f := range found.Failures {
				c.out.Line("  %s", f)
			}
			c.out.Line("not ready at its end: %d %s", len(found.Unready), strings.Join(found.Unready, ", "))
			c.out.Line("afterwards: %s %s, %.0f s after the end of the outage", found.Verdict, found.Why, found.RestIn)
			accepted := len(found.Posts) == 1 && found.Posts["202"] > 0
			if !accepted || len(found.Failures)+len(found.Unready) > 0 || found.Verdict != chaos.Clean && found.Verdict != chaos.Inconclusive {
				return exitError{fmt.Errorf("%s is missed", found.Part), exitViolated}
			}
			return nil
		},
	}
	measurement(c, &o, cmd)
	cmd.Flags().Float64Var(&minutes, "minutes", 10, "how long it is away")
	return cmd
}

func newTakeOver(c *common) *cobra.Command {
	var o chaos.Options
	var times int
	cmd := &cobra.Command{
		Use:   "takeover",
		Short: "Measure how soon another process does the work of a dead one",
		Long: `Measure, under load, how soon another process does the work of one that was killed or paused:
the relay of the order service, and a consumer of the payment service. Fails where one took
longer than promised.`,
		Example: "  waybill chaos takeover --times 10",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := chaos.RunTakeOver(cmd.Context(), o, times, c.out)
			if err != nil {
				return exitError{err, exitUnchecked}
			}
			rows := [][]string{{"", "LEAST", "MEDIAN", "MOST", "PROMISED"}}
			late := false
			for _, x := range []struct {
				what   string
				took   []float64
				within float64
			}{{"a killed relay", t.KilledRelay, chaos.KilledRelayWithin}, {"a paused relay", t.PausedRelay, chaos.PausedRelayWithin}, {"a killed consumer", t.KilledConsumer, chaos.KilledConsumerWithin}} {
				most := load.Quantile(x.took, 1)
				late = late || most > x.within
				rows = append(rows, []string{x.what, fmt.Sprintf("%.2f s", load.Quantile(x.took, 0.01)), fmt.Sprintf("%.2f s", load.Quantile(x.took, 0.5)), fmt.Sprintf("%.2f s", most), fmt.Sprintf("%.0f s", x.within)})
			}
			c.out.Line("")
			c.out.Table(rows)
			if late {
				return exitError{errors.New("that is later than promised"), exitViolated}
			}
			return nil
		},
	}
	measurement(c, &o, cmd)
	cmd.Flags().IntVar(&times, "times", 5, "how often each is measured")
	return cmd
}
