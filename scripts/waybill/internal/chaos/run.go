package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/history"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/load"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/nemesis"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/oracle"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/plan"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/stack"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/terminal"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/workload"
)

// Options are those of "waybill chaos".
type Options struct {
	Source, Data string
	Artefacts    string // directory of all runs
	Ledger       string // file; empty: none
	PortBase     int
	Kafka        string // "", "apache", or host:port of one that is not ours to kill
	Race         bool
	SkipBuild    bool
	LogLevel     string

	Seed     uint64
	Duration time.Duration
	Rate     float64 // orders a second
	Replicas int
	// Control is how long the load runs without faults before.
	Control time.Duration
	// Schedule is played in the place of the seed's.
	Schedule  *nemesis.Schedule
	PauseMost time.Duration
	AtLeast   map[nemesis.Kind]int
	// Wait is how long the platform may take to come to rest.
	Wait time.Duration
}

// The verdicts.
const (
	Clean        = "clean"
	Violated     = "violated"
	Inconclusive = "inconclusive"
	Unchecked    = "unchecked"
)

// Phase is what a load met.
type Phase struct {
	Seconds float64         `json:"seconds"`
	Counts  workload.Counts `json:"counts"`
	// Goodput is orders accepted a second.
	Goodput float64 `json:"goodput"`
	// Accepting an order, retries included, and bringing it to its end, in ms.
	AcceptP50 float64 `json:"accept_p50_ms"`
	AcceptP99 float64 `json:"accept_p99_ms"`
	EndP50    float64 `json:"end_p50_ms"`
	EndP99    float64 `json:"end_p99_ms"`
}

// Report is what a run found.
type Report struct {
	Seed      uint64               `json:"seed"`
	Commit    string               `json:"commit"`
	Started   time.Time            `json:"started"`
	Broker    string               `json:"broker"`
	Replicas  int                  `json:"replicas"`
	Rate      float64              `json:"rate"`
	Control   *Phase               `json:"control,omitempty"`
	Chaos     Phase                `json:"chaos"`
	Done      map[nemesis.Kind]int `json:"done"`
	Restarts  map[string]int       `json:"restarts"`
	ReadyIn   float64              `json:"ready_seconds_after_heal"`
	Redriven  int                  `json:"redriven"`
	Oracle    *oracle.Report       `json:"oracle,omitempty"`
	Unsettled string               `json:"unsettled,omitempty"`
	Gates     []Gate               `json:"gates"`
	Missed    []string             `json:"missed,omitempty"`
	Verdict   string               `json:"verdict"`
	Why       string               `json:"why,omitempty"`
	Artefacts string               `json:"artefacts"`
	// Data is where the stores lie until the next run.
	Data string `json:"data"`
}

const (
	// stock0 of each product is a hundred orders' worth of the most popular.
	stock0 = 100
	// startWithin is generous: machines that run chaos run other things, too.
	startWithin = 4 * time.Minute
	// healWithin is how long every process may take to be ready after the last fault.
	healWithin = 90 * time.Second
	cureWithin = 90 * time.Second
	// proxies begin so far above the first port.
	proxyOffset = 4000
)

// run is a run under way.
type run struct {
	o      Options
	screen *terminal.Screen
	dir    string
	fabric *fabric
	stack  *stack.Stack
	world  *world
	probe  *probe
	log    *history.Writer
	report Report
}

// Run does it all. An error means that there is no verdict.
func Run(ctx context.Context, o Options, screen *terminal.Screen) (Report, error) {
	r := &run{o: o, screen: screen}
	r.report = Report{Seed: o.Seed, Commit: commit(ctx, o.Source), Started: time.Now().UTC(), Broker: o.broker(), Replicas: o.Replicas, Rate: o.Rate, Data: o.Data}
	r.dir = filepath.Join(o.Artefacts, fmt.Sprintf("%s-seed-%d-%s", r.report.Started.Format("20060102-150405"), o.Seed, o.broker()))
	r.report.Artefacts = r.dir
	if err := r.makeDir(); err != nil {
		return r.report, err
	}
	schedule := o.schedule()
	if err := schedule.Save(filepath.Join(r.dir, "schedule.json")); err != nil {
		return r.report, err
	}
	screen.Line("seed=%d commit=%s broker=%s replicas=%d rate=%g/s for %v: %s", o.Seed, r.report.Commit, r.report.Broker, o.Replicas, o.Rate, time.Duration(schedule.Duration), counted(schedule.Count()))
	screen.Line("schedule, history and logs: %s", r.dir)
	if err := r.up(ctx); err != nil {
		return r.report, err
	}
	defer r.down()
	if err := r.play(ctx, schedule); err != nil {
		return r.report, err
	}
	err := r.judge(ctx)
	if err := r.save(); err != nil {
		return r.report, err
	}
	return r.report, err
}

func (r *run) makeDir() error { return os.MkdirAll(r.dir, 0o755) }

func (o Options) broker() string {
	switch o.Kafka {
	case "":
		return "embedded"
	case "apache":
		return "apache"
	}
	return "external"
}

// schedule is the given one, or the seed's.
func (o Options) schedule() nemesis.Schedule {
	if o.Schedule != nil {
		return *o.Schedule
	}
	ground := nemesis.Ground{Processes: Processes(o.Replicas), Edges: Edges(o.Replicas), Parts: []string{"postgres", "redis"}, Replicas: o.Replicas}
	if o.broker() != "external" {
		ground.Parts = append(ground.Parts, "kafka")
	}
	return nemesis.Generate(nemesis.Options{Seed: o.Seed, Duration: o.Duration, PauseMost: o.PauseMost, AtLeast: o.AtLeast}, ground)
}

// commit names what is tested; a plus means that there is more than that.
func commit(ctx context.Context, source string) string {
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", append([]string{"--no-optional-locks", "-C", source}, args...)...)
		b, err := cmd.Output()
		return strings.TrimSpace(string(b)), err
	}
	head, err := git("rev-parse", "--short", "HEAD")
	if err != nil {
		return "unknown"
	}
	if changed, err := git("status", "--porcelain", "--", ".", ":!docs"); err != nil || changed != "" {
		head += "+"
	}
	return head
}

func counted(n map[nemesis.Kind]int) string {
	var parts []string
	for _, k := range nemesis.Kinds {
		if n[k] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[k], k))
		}
	}
	return strings.Join(parts, ", ")
}

// up starts everything on fresh data, with a proxy on each edge.
func (r *run) up(ctx context.Context) (err error) {
	if err := r.clear(); err != nil {
		return err
	}
	ports, err := plan.PortsFrom(r.o.PortBase)
	if err != nil {
		return err
	}
	var others []plan.Ports
	for replica := 1; replica < r.o.Replicas; replica++ {
		p, err := plan.PortsFrom(r.o.PortBase + 2000*replica)
		if err != nil {
			return err
		}
		others = append(others, p)
	}
	r.fabric = newFabric(r.o.PortBase+2000*(r.o.Replicas-1)+proxyOffset/2, r.o.Replicas)
	o := stack.Options{
		Source: r.o.Source, Data: r.o.Data, Ports: ports, Others: others, Replicas: r.o.Replicas, Partitions: 3, Race: r.o.Race, SkipBuild: r.o.SkipBuild,
		LogLevel: r.o.LogLevel, RateLimit: "0", Route: r.fabric.route, HealthyWithin: startWithin,
		// Unanswered reservations are asked again soon, and holds are swept often, so that
		// both happen in the middle of other things.
		Environment: map[string][]string{"order": {"RESERVATION_PATIENCE=500ms"}, "inventory": {"RESERVATION_SWEEP=200ms", "RESERVATION_TTL=2s"}},
	}
	switch r.o.broker() {
	case "apache":
		o.Apache = true
	case "external":
		o.Kafka = r.o.Kafka
	}
	defer func() {
		if err != nil {
			r.down()
		}
	}()
	// What the supervisor says about deaths goes to a file: they are many, and wanted.
	said, err := os.Create(filepath.Join(r.dir, "supervisor.log"))
	if err != nil {
		return err
	}
	step := r.screen.Step("starting two of everything")
	defer step.Fail()
	if r.stack, err = stack.Up(ctx, o, terminal.New(said)); err != nil {
		return err
	}
	var gateways []string
	for replica := range r.o.Replicas {
		gateways = append(gateways, r.stack.Settings.Own(replica).Addr("gateway"))
	}
	r.fabric.route("client", "gateway", gateways)
	if err := r.fabric.complete(); err != nil {
		return err
	}
	r.world = &world{stack: r.stack, sandbox: ports.URL("sandbox"), fabric: r.fabric, paused: map[int]int{}}
	r.probe = newProbe(r.stack.ReadyURLs())
	if r.log, err = history.NewWriter(filepath.Join(r.dir, "history.jsonl")); err != nil {
		return err
	}
	step.Done("%d processes, %d proxies", len(r.stack.Names()), len(r.fabric.proxies))
	return nil
}

// clear removes what an earlier run left, but for the programs where they are to be used.
func (r *run) clear() error {
	bin, aside := filepath.Join(r.o.Data, "bin"), filepath.Join(r.o.Artefacts, "bin")
	if r.o.SkipBuild {
		if err := os.Rename(bin, aside); err != nil {
			return fmt.Errorf("nothing was built before: %w", err)
		}
	}
	if err := stack.Remove(r.o.Data); err != nil || !r.o.SkipBuild {
		return err
	}
	if err := os.MkdirAll(r.o.Data, 0o755); err != nil {
		return err
	}
	return os.Rename(aside, bin)
}

func (r *run) down() {
	if r.stack != nil {
		r.stack.Down()
		r.stack = nil
	}
	r.fabric.close()
	if r.log != nil {
		_ = r.log.Close()
	}
	// The logs are worth keeping in any case, the data where something was wrong.
	_ = os.Rename(filepath.Join(r.o.Data, "logs"), filepath.Join(r.dir, "logs"))
}

// play lets the load run, without faults and then with them.
func (r *run) play(ctx context.Context, schedule nemesis.Schedule) error {
	background, stop := context.WithCancel(ctx)
	defer stop()
	var watching sync.WaitGroup
	watching.Go(func() { r.probe.run(background) })
	defer watching.Wait()
	defer stop()

	log, err := os.Create(filepath.Join(r.dir, "nemesis.jsonl"))
	if err != nil {
		return err
	}
	defer log.Close()
	player := nemesis.NewPlayer(r.world, log)

	first := r.workload("c")
	if err := first.Prepare(ctx); err != nil {
		return fmt.Errorf("prepare the load: %w", err)
	}
	if err := poison(ctx, r.stack.Settings); err != nil {
		return fmt.Errorf("poison some orders: %w", err)
	}
	if r.o.Control > 0 {
		phase, err := r.phase(ctx, "control", first, r.o.Control, player, nil)
		if err != nil {
			return err
		}
		r.report.Control = &phase
	}
	second := r.workload("x")
	if r.report.Chaos, err = r.phase(ctx, "chaos", second, time.Duration(schedule.Duration), player, &schedule); err != nil {
		return err
	}
	r.report.Done = player.Done()
	if err := r.heal(ctx); err != nil {
		return err
	}
	step := r.screen.Step("redriving what was parked")
	defer step.Fail()
	curing, cancel := context.WithTimeout(ctx, cureWithin)
	defer cancel()
	if r.report.Redriven, err = cure(curing, r.stack.Settings, second); err != nil {
		r.report.Unsettled = err.Error()
	} else {
		step.Done("%d tried", r.report.Redriven)
	}
	if err := r.log.Close(); err != nil {
		return err
	}
	r.log = nil
	r.probe.look(ctx)
	r.report.Restarts = r.stack.Restarts()
	r.report.Chaos.EndP50, r.report.Chaos.EndP99, err = r.ends(ctx, "x")
	if err != nil {
		return err
	}
	r.report.Gates, err = gates(ctx, r.stack.Settings, r.probe, player.Kills(), r.report.Chaos.Counts)
	r.report.Missed = Missed(r.report.Gates)
	return err
}

func (r *run) workload(prefix string) *workload.Workload {
	return workload.New(workload.Options{
		Gateway: "http://" + r.fabric.proxies[entry].Addr, History: r.log, Rate: r.o.Rate, Seed: r.o.Seed, Stock: stock0,
		Prefix: fmt.Sprintf("%s%d-", prefix, r.o.Seed),
	})
}

// phase runs a load for a time, with the faults of a schedule where there is one.
func (r *run) phase(ctx context.Context, name string, w *workload.Workload, d time.Duration, player *nemesis.Player, schedule *nemesis.Schedule) (Phase, error) {
	step := r.screen.Step(fmt.Sprintf("%s, %v", name, d))
	defer step.Fail()
	loading, stop := context.WithTimeout(ctx, d)
	defer stop()
	var all sync.WaitGroup
	var failed, broken error
	begin := time.Now()
	all.Go(func() { failed = w.Run(loading) })
	if schedule != nil {
		all.Go(func() { broken = player.Play(ctx, *schedule) })
	}
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	r.follow(ctx, step, name, w, player, begin, d, ended)
	seconds := min(time.Since(begin), d).Seconds()
	phase := Phase{Seconds: seconds, Counts: w.Counts()}
	phase.Goodput = float64(phase.Counts.Accepted) / seconds
	l := w.Latency()
	phase.AcceptP50, phase.AcceptP99 = load.Quantile(l, 0.5), load.Quantile(l, 0.99)
	if err := errors.Join(failed, broken, ctx.Err()); err != nil {
		return phase, err
	}
	if schedule == nil {
		var err error
		if phase.EndP50, phase.EndP99, err = r.ends(ctx, "c"); err != nil {
			return phase, err
		}
	}
	step.Done("%d orders, %.1f accepted a second, p99 %.0f ms", phase.Counts.Orders, phase.Goodput, phase.AcceptP99)
	return phase, nil
}

// followEvery is how often progress is looked at, told a log file every tenth time.
const followEvery = time.Second

// follow tells what goes on.
func (r *run) follow(ctx context.Context, step *terminal.Step, name string, w *workload.Workload, player *nemesis.Player, begin time.Time, d time.Duration, ended <-chan struct{}) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	statuses := ""
	for n := 0; ; n++ {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		if n%5 == 0 {
			if s, err := r.statuses(ctx); err == nil {
				statuses = s
			} else {
				statuses = "database away"
			}
		}
		c := w.Counts()
		force := player.InForce()
		if len(force) > 4 {
			force = append(force[:4:4], fmt.Sprintf("and %d more", len(force)-4))
		}
		line := fmt.Sprintf("%d orders, %d in flight | %s | done: %s | in force: %s", c.Orders, c.Flying, statuses, counted(player.Done()), strings.Join(force, ", "))
		step.Remark("%s", line)
		if n%10 == 9 {
			r.screen.Note("%s %3.0f/%.0f s: %s", name, time.Since(begin).Seconds(), d.Seconds(), line)
		}
	}
}

// statuses counts the orders, by a connection of its own that no fault touches.
func (r *run) statuses(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, r.stack.Settings.Database("order"))
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, `SELECT status, count(*) FROM orders GROUP BY status`)
	if err != nil {
		return "", err
	}
	n := map[string]int{}
	var status string
	var count int
	if _, err := pgx.ForEachRow(rows, []any{&status, &count}, func() error { n[status] = count; return nil }); err != nil {
		return "", err
	}
	var parts []string
	for _, s := range slices.Sorted(maps.Keys(n)) {
		parts = append(parts, s+" "+strconv.Itoa(n[s]))
	}
	return strings.Join(parts, " "), nil
}

// ends is how long orders took from their acceptance to being completed.
func (r *run) ends(ctx context.Context, prefix string) (p50, p99 float64, err error) {
	var a, b *float64
	err = queryRow(ctx, r.stack.Settings.Database("order"), fmt.Sprintf(`SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY took), percentile_cont(0.99) WITHIN GROUP (ORDER BY took)
		FROM (SELECT 1000 * extract(epoch FROM finished_at - created_at)::float8 AS took FROM orders WHERE status = 'completed' AND order_id LIKE '%s%d-%%') AS t`, prefix, r.o.Seed), &a, &b)
	if err != nil || a == nil || b == nil {
		return 0, 0, err
	}
	return *a, *b, nil
}

// heal takes everything away that is broken and waits until every process is ready.
func (r *run) heal(ctx context.Context) error {
	step := r.screen.Step("healing")
	defer step.Fail()
	ctx, cancel := context.WithTimeout(ctx, healWithin)
	defer cancel()
	begin := time.Now()
	if err := r.world.heal(ctx); err != nil {
		return err
	}
	for {
		waiting := r.unready(ctx)
		if len(waiting) == 0 {
			break
		}
		step.Remark("waiting for %s", strings.Join(waiting, ", "))
		select {
		case <-ctx.Done():
			r.report.Unsettled = fmt.Sprintf("%v after the last fault these were not ready: %s", healWithin, strings.Join(waiting, ", "))
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
	r.report.ReadyIn = time.Since(begin).Seconds()
	step.Done("every /readyz answers 200")
	return nil
}

func (r *run) unready(ctx context.Context) []string {
	var waiting []string
	for name, url := range r.stack.ReadyURLs() {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err == nil {
			var resp *http.Response
			if resp, err = http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					err = errors.New(resp.Status)
				}
			}
		}
		cancel()
		if err != nil {
			waiting = append(waiting, name)
		}
	}
	slices.Sort(waiting)
	return waiting
}

// judge has the oracle check and gives the verdict.
func (r *run) judge(ctx context.Context) error {
	step := r.screen.Step("the oracle")
	defer step.Fail()
	found, err := oracle.Check(ctx, oracle.Target{
		Postgres: r.stack.Settings.Parts.Postgres, Kafka: strings.Split(r.stack.Settings.Parts.Kafka, ","), Sandbox: r.stack.Settings.Ports.URL("sandbox"),
		History: filepath.Join(r.dir, "history.jsonl"), Wait: r.o.Wait,
	}, func(what string) { step.Remark("%s", what) })
	var stuck *oracle.Unsettled
	switch {
	case errors.As(err, &stuck):
		r.report.Verdict, r.report.Why, r.report.Unsettled = Violated, "stuck", strings.Join([]string{r.report.Unsettled, stuck.Error()}, " ")
	case err != nil:
		r.report.Verdict, r.report.Why = Unchecked, err.Error()
	case !found.Clean:
		r.report.Oracle = &found
		var names []string
		for _, f := range found.Findings {
			if f.Violated > 0 {
				names = append(names, f.Name)
			}
		}
		r.report.Verdict, r.report.Why = Violated, strings.Join(names, " ")
	case r.report.Unsettled != "":
		r.report.Oracle = &found
		r.report.Verdict, r.report.Why = Violated, "stuck"
	case len(r.report.Missed) > 0:
		r.report.Oracle = &found
		r.report.Verdict, r.report.Why = Inconclusive, strings.Join(r.report.Missed, ", ")
	default:
		r.report.Oracle = &found
		r.report.Verdict = Clean
	}
	if r.report.Verdict == Clean || r.report.Verdict == Inconclusive {
		step.Done("every invariant holds")
	}
	return nil
}

// save writes report and ledger.
func (r *run) save() error {
	b, err := json.MarshalIndent(r.report, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.dir, "report.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	if r.o.Ledger == "" {
		return nil
	}
	verdict := r.report.Verdict
	if r.report.Why != "" {
		verdict += ": " + strings.ReplaceAll(r.report.Why, "|", "/")
	}
	d := r.report.Done
	orders := r.report.Chaos.Counts.Orders
	return enter(r.o.Ledger, row{
		Date: r.report.Started.Format("2006-01-02 15:04"), Seed: strconv.FormatUint(r.report.Seed, 10), Commit: r.report.Commit, Broker: r.report.Broker,
		Minutes: r.report.Chaos.Seconds / 60, Orders: int(orders), Kills: d[nemesis.Kill], Pauses: d[nemesis.Pause], Network: d[nemesis.Network],
		Restarts: d[nemesis.Restart], Power: d[nemesis.Power], Outside: d[nemesis.Outside], Verdict: verdict,
	})
}
