package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/client"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/load"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/stack"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/terminal"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/usage"
)

func newBench(c *common) *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure the running platform", Example: "  waybill bench orders"}
	cmd.AddCommand(newBenchOrders(c))
	return cmd
}

func newBenchOrders(c *common) *cobra.Command {
	var o load.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "orders",
		Short: "Place orders as fast as they end, or at a rate, and measure",
		Long: `Place orders through the gateway, from POST to their end: reserved, paid, confirmed, shipped,
delivered. Without --rate it is a closed loop that keeps --in-flight orders under way: the
way to find out how many can be done. With --rate it is an open one: the way to find out
how long one takes.

The load comes from this process; its own CPU time and the sandbox's are listed apart. The
stack should have been started with --sandbox-step 0 --log-level warn --rate-limit 0: the
load is one user, who would be let through 500 times a second.`,
		Example: `  waybill up --sandbox-step 0 --log-level warn --rate-limit 0
  waybill bench orders
  waybill bench orders --rate 1000 --duration 30s
  waybill bench orders --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := stack.Load(c.data)
			if err != nil {
				return err
			}
			if o.Products < 2 || o.InFlight < 1 || o.Connections < 1 {
				return errors.New("--products must be 2 or more, --in-flight and --connections 1 or more")
			}
			b := bench{screen: c.out, state: s, options: o, quiet: asJSON, data: c.data}
			return b.run(cmd.Context(), asJSON)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&o.Duration, "duration", 20*time.Second, "how long to measure")
	f.DurationVar(&o.Warmup, "warmup", 5*time.Second, "how long to place orders before that")
	f.IntVar(&o.InFlight, "in-flight", 512, "orders under way at most")
	f.IntVar(&o.Connections, "connections", 64, "POSTs at once at most")
	f.Float64Var(&o.Rate, "rate", 0, "orders a second; 0: as many as end")
	f.Float64Var(&o.Declined, "declined", 3, "percent of orders that the provider declines")
	f.IntVar(&o.Products, "products", 1000, "how many different products are ordered, two an order")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

type bench struct {
	screen  *terminal.Screen
	state   stack.State
	options load.Options
	quiet   bool
	data    string

	before, after map[string]sample
}

// sample is what a process has taken so far.
type sample struct {
	pid int
	cpu time.Duration
	pss int64
}

// cost is what a process took for the measured orders.
type cost struct {
	Name   string  `json:"name"`
	CPU    float64 `json:"cpu_seconds"`
	Per1k  float64 `json:"cpu_seconds_per_1000"`
	PSS    int64   `json:"pss_bytes"`
	Apart  bool    `json:"apart"`  // load and sandbox: not the platform's
	Broken bool    `json:"broken"` // started again meanwhile, so not to be used
}

type benchReport struct {
	load.Result
	Rate      float64 `json:"rate,omitempty"`
	InFlight  int     `json:"in_flight"`
	Per1k     float64 `json:"cpu_seconds_per_1000"`
	PSS       int64   `json:"pss_bytes"`
	Processes []cost  `json:"processes"`
}

func (b *bench) run(ctx context.Context, asJSON bool) error {
	o := b.options
	transport := &http.Transport{MaxIdleConnsPerHost: o.Connections, MaxConnsPerHost: o.Connections}
	o.Client = &client.Client{Base: b.state.Addresses["gateway"], User: "customer", Password: "password", HTTP: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
	o.Stock = &client.Client{Base: b.state.Addresses["gateway"], User: "admin", Password: "password"}
	o.Brokers = strings.Split(b.state.Addresses["kafka"], ",")
	out := b.screen
	if b.quiet {
		out = terminal.New(discard{})
	}
	step := out.Step(fmt.Sprintf("creating %d products", o.Products))
	defer step.Fail()
	if err := load.Prepare(ctx, o); err != nil {
		return err
	}
	step.Done("")
	title := fmt.Sprintf("placing orders, %d in flight", o.InFlight)
	if o.Rate > 0 {
		title = fmt.Sprintf("placing %.0f orders a second", o.Rate)
	}
	step = out.Step(fmt.Sprintf("%s, %v after %v", title, o.Duration, o.Warmup))
	defer step.Fail()
	o.Progress = func(ended int, perSecond float64) { step.Remark("%d ended, %.0f/s", ended, perSecond) }
	o.Mark = func(begin bool) {
		if begin {
			b.before = b.measure(false)
		} else {
			b.after = b.measure(true)
		}
	}
	result, err := load.Run(ctx, o)
	if err != nil {
		return err
	}
	step.Done("")
	r := b.report(result)
	if asJSON {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		b.screen.Line("%s", text)
		return nil
	}
	b.print(r)
	return nil
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// own is this process in the tables.
const own = "load"

func (b *bench) measure(memory bool) map[string]sample {
	all := map[string]sample{}
	state := b.state
	if s, err := stack.Load(b.data); err == nil {
		state = s // pids may have changed
	}
	for _, e := range state.Processes {
		s := sample{pid: e.PID}
		if memory {
			s.pss, s.cpu, _ = usage.Of(e.PID, e.Tree)
		} else {
			s.cpu = usage.CPU(e.PID, e.Tree)
		}
		all[e.Name] = s
	}
	all[own] = sample{cpu: usage.Self()}
	return all
}

func (b *bench) report(result load.Result) benchReport {
	r := benchReport{Result: result, Rate: b.options.Rate, InFlight: b.options.InFlight}
	names := slices.Sorted(maps.Keys(b.after))
	for _, name := range names {
		before, after := b.before[name], b.after[name]
		c := cost{Name: name, PSS: after.pss, Apart: name == own || name == "sandbox", Broken: before.pid != after.pid}
		c.CPU = (after.cpu - before.cpu).Seconds()
		if result.Ended > 0 {
			c.Per1k = c.CPU / float64(result.Ended) * 1000
		}
		if !c.Apart {
			r.Per1k += c.Per1k
		}
		if name != own {
			r.PSS += c.PSS
		}
		r.Processes = append(r.Processes, c)
	}
	return r
}

// peers are the figures of other systems for the same saga: two cores, PostgreSQL 15
// with fsync, November 2026. They moved with the machine; only a ratio measured in one
// run is a claim.
var peers = [][]string{
	{"Temporal, local activities", "47–58", "30–33", "45 / 138 at 30/s"},
	{"river", "120–134", "12–13", "46 / 116 at 60/s"},
	{"DBOS", "241–268", "6.4–7.0", "22 / 54 at 120/s"},
	{"five plain transactions, no engine", "471–571", "2.9–3.3", "10.5 / 28 at 280/s"},
	{"limit-kafka on kfake (no gateway, no tokens)", "2,909", "0.60", "79 / 196 at 1,000/s"},
	{"limit-kafka on Apache Kafka (the same)", "2,594", "0.72", "96 / 181 at 1,000/s"},
}

func (b *bench) print(r benchReport) {
	out := b.screen
	out.Line("")
	rows := [][]string{{"PROCESS", "CPU-S PER 1,000", "CPU", "MEMORY"}}
	for _, c := range r.Processes {
		note := ""
		if c.Apart {
			note = " (apart)"
		}
		if c.Broken {
			note = " (started again meanwhile)"
		}
		rows = append(rows, []string{c.Name + note, fmt.Sprintf("%.3f", c.Per1k), fmt.Sprintf("%.1f s", c.CPU), mebibytes(c.PSS)})
	}
	rows = append(rows, []string{"all but those apart", fmt.Sprintf("%.3f", r.Per1k), "", mebibytes(r.PSS)})
	out.Table(rows)
	out.Line("")
	at := fmt.Sprintf("%d in flight", r.InFlight)
	if r.Rate > 0 {
		at = fmt.Sprintf("%.0f/s", r.Rate)
	}
	rows = [][]string{{"", "ORDERS/S", "CPU-S PER 1,000", "P50 / P99 MS"}}
	rows = append(rows, []string{"waybill, all of it", fmt.Sprintf("%.0f", r.PerSecond), fmt.Sprintf("%.2f", r.Per1k), fmt.Sprintf("%.0f / %.0f at %s", r.P50, r.P99, at)})
	out.Table(append(rows, peers...))
	out.Line("")
	out.Line("%d orders ended in %.1f s: %s; POST took %.1f / %.1f ms (p50 / p99)", r.Ended, r.Seconds, counts(r.ByStatus), r.PostP50, r.PostP99)
	if len(r.Refused) > 0 {
		out.Line("%s %s", out.Paint(terminal.Yellow, "refused:"), counts(r.Refused))
	}
	if r.Open > 0 {
		out.Line("%s %d orders had not ended %.0f s after the last was placed", out.Paint(terminal.Red, "✗"), r.Open, r.DrainedIn)
	}
	out.Line("%s", out.Paint(terminal.Dim, "the other rows were measured on another day of another machine: see docs for what may be compared"))
}

func counts(m map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%d %s", m[k], k))
	}
	return strings.Join(parts, ", ")
}
