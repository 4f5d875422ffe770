// Package bench measures the metrics processor, beside its peers where their module is in the tree: samples a second by work,
// series and goroutines, the latency of a batch, allocations, memory for each series, and what closing a pane costs.
package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/wire"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/workload"
)

// Row is one line of the report.
type Row struct {
	Work       string   `json:"work"`
	Series     int      `json:"series"`
	Goroutines int      `json:"goroutines"`
	Rate       float64  `json:"samples_per_s"`
	Allocs     float64  `json:"allocs_per_sample"`
	Peer       string   `json:"peer"`
	PeerRate   *float64 `json:"peer_samples_per_s"`
	Ratio      *float64 `json:"ratio"`
	p50, p99   time.Duration
}

// Works are what is measured.
var works = []string{"label-lookup", "remote-write", "statsd", "json", "otlp"}

// Main runs the benchmark with its arguments and returns the exit code.
func Main(args []string, out, log io.Writer) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(log)
	asJSON := flags.Bool("json", false, "print one JSON array and nothing else")
	quick := flags.Bool("quick", false, "end within two minutes")
	dir := flags.String("out", filepath.Join(os.TempDir(), "waybill-bench"), "where report.html, cpu.pprof and heap.pprof are written")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if err := run(*asJSON, *quick, *dir, out, log); err != nil {
		fmt.Fprintln(log, "bench:", err)
		return 1
	}
	return 0
}

func run(asJSON, quick bool, dir string, out, log io.Writer) error {
	rounds, d := 4, 500*time.Millisecond
	goroutines := []int{1, 2, 4, 8}
	if quick {
		rounds, d, goroutines = 2, 150*time.Millisecond, []int{1, 2}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory of the report: %w", err)
	}
	profile, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	defer profile.Close()
	var rows []Row
	var memory []string
	best := map[string]float64{}
	peers := map[string][]float64{}
	var names []workload.Rate
	loads := map[int]*workload.Workload{}
	for _, series := range []int{1000, 100_000} {
		loads[series] = workload.New(series, 1<<20)
	}
	// Ours and the peers take turns, so that a slow moment of the machine meets both.
	for round := range rounds {
		if round == 0 {
			if err := pprof.StartCPUProfile(profile); err != nil {
				return fmt.Errorf("take profile: %w", err)
			}
		}
		for _, series := range []int{1000, 100_000} {
			for _, g := range goroutines {
				for _, work := range works {
					row, perSeries, err := measure(loads[series], work, g, d)
					if err != nil {
						return err
					}
					key := fmt.Sprint(work, series, g)
					if row.Rate > best[key] {
						best[key] = row.Rate
						rows = slices.DeleteFunc(rows, func(r Row) bool { return r.Work == work && r.Series == series && r.Goroutines == g })
						rows = append(rows, row)
					}
					if round == 0 && work == "label-lookup" && g == 2 {
						memory = append(memory, fmt.Sprintf("%d series: %.0f bytes each", series, perSeries))
					}
				}
			}
		}
		if round == 0 {
			pprof.StopCPUProfile()
			if err := writeHeap(filepath.Join(dir, "heap.pprof")); err != nil {
				return err
			}
		}
		rates, err := runPeers(goroutines, d, log)
		if err != nil {
			return err
		}
		for _, r := range rates {
			key := fmt.Sprint(r.Work, r.Series, r.Goroutines, r.Peer)
			if peers[key] == nil {
				names = append(names, r)
			}
			peers[key] = append(peers[key], r.Rate)
		}
	}
	all := join(rows, names, peers)
	quiet, flushing := flush(loads[100_000], quick)
	memory = append(memory, fmt.Sprintf("closing panes of 100,000 series: p99 of a batch of 1,000 is %v, without %v (%.2f times)", flushing, quiet, float64(flushing)/float64(quiet)))
	for i, c := range charts(all) {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("chart-%02d.svg", i)), []byte(c), 0o644); err != nil {
			return fmt.Errorf("write chart: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "report.html"), report(all, memory, top(dir)), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if asJSON {
		return json.NewEncoder(out).Encode(all)
	}
	text(out, all, memory, dir)
	return nil
}

// join gives each of ours a row for each peer that did the same; the best of the rounds on both sides.
func join(rows []Row, names []workload.Rate, peers map[string][]float64) []Row {
	all := []Row{}
	for _, r := range rows {
		alone := true
		for _, n := range names {
			if n.Work != r.Work || n.Series != r.Series || n.Goroutines != r.Goroutines {
				continue
			}
			rate := slices.Max(peers[fmt.Sprint(n.Work, n.Series, n.Goroutines, n.Peer)])
			ratio := math.Round(100*r.Rate/rate) / 100
			x := r
			x.Peer, x.PeerRate, x.Ratio = n.Peer, &rate, &ratio
			all, alone = append(all, x), false
		}
		if alone {
			all = append(all, r)
		}
	}
	slices.SortStableFunc(all, func(a, b Row) int {
		return strings.Compare(fmt.Sprintf("%d%06d%02d%s", slices.Index(works, a.Work), a.Series, a.Goroutines, a.Peer), fmt.Sprintf("%d%06d%02d%s", slices.Index(works, b.Work), b.Series, b.Goroutines, b.Peer))
	})
	return all
}

// measure is one measurement of ours, with a watermark that moves and a reader each second.
func measure(w *workload.Workload, work string, g int, d time.Duration) (row Row, perSeries float64, err error) {
	src := &aggregate.Source{Name: "bench"}
	a, err := aggregate.New(aggregate.Options{}, src)
	if err != nil {
		return row, 0, err
	}
	defer a.Close()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				a.Advance()
				a.Sums(aggregate.Matcher{}, func(aggregate.Sum) bool { return true })
			case <-stop:
				return
			}
		}
	}()
	var worker func(g int) func(i int) int
	if work == "label-lookup" {
		v := a.NewVec(src, aggregate.KindSample, workload.Name, workload.Labels[:]...)
		for range max(g, runtime.GOMAXPROCS(0)) { // writers take shards in turn: each shard knows every series
			v.Writer().Record(time.Now().UnixMilli(), w.Rows, w.Values)
		}
		worker = func(int) func(int) int {
			r := v.Writer()
			return func(i int) int {
				rows, values := w.Batch(i)
				r.Record(time.Now().UnixMilli(), rows, values)
				return len(values)
			}
		}
	} else {
		bodies, decoder := decoding(a, src, w, work)
		for range max(g, runtime.GOMAXPROCS(0)) {
			d := decoder()
			for _, b := range bodies {
				if err := d.Decode(b); err != nil {
					return row, 0, err
				}
			}
		}
		worker = func(int) func(int) int {
			d := decoder()
			return func(i int) int {
				if err := d.Decode(bodies[i%len(bodies)]); err != nil {
					panic(err) // our own bodies
				}
				return workload.BatchLen
			}
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	took := make([][]time.Duration, g)
	for i := range took {
		took[i] = make([]time.Duration, 0, 1<<17)
	}
	rate := workload.Measure(g, d, func(g int) func(int) int {
		f := worker(g)
		return func(i int) int {
			began := time.Now()
			n := f(i)
			if len(took[g]) < cap(took[g]) {
				took[g] = append(took[g], time.Since(began))
			}
			return n
		}
	})
	runtime.ReadMemStats(&after)
	close(stop)
	<-done
	samples := rate * d.Seconds()
	flat := slices.Concat(took...)
	slices.Sort(flat)
	row = Row{Work: work, Series: w.Series, Goroutines: g, Rate: math.Round(rate), p50: flat[len(flat)/2], p99: flat[len(flat)*99/100]}
	// Workers, tickers and reads of the clock allocate a few hundred objects a run; they are no sample's.
	row.Allocs = math.Round(1000*float64(after.Mallocs-before.Mallocs)/samples) / 1000
	return row, float64(a.Health().MemoryBytes) / float64(max(a.Series(), 1)), nil
}

func decoding(a *aggregate.Aggregator, src *aggregate.Source, w *workload.Workload, work string) ([][]byte, func() wire.Decoder) {
	switch work {
	case "remote-write":
		return w.RemoteWrite(), func() wire.Decoder { return wire.NewRemoteWrite1(a, src) }
	case "statsd":
		return w.StatsD(), func() wire.Decoder { return wire.NewStatsD(a, src) }
	case "json":
		return w.JSON(), func() wire.Decoder { return wire.NewJSON(a, src) }
	}
	return w.OTLP(), func() wire.Decoder { return wire.NewOTLP(a, src) }
}

// flush compares the latency of a batch with and without panes that are closed meanwhile.
func flush(w *workload.Workload, quick bool) (quiet, flushing time.Duration) {
	src := &aggregate.Source{Name: "bench"}
	a, err := aggregate.New(aggregate.Options{Pane: time.Second, Lateness: 500 * time.Millisecond}, src)
	if err != nil {
		return 1, 1
	}
	defer a.Close()
	r := a.NewVec(src, aggregate.KindSample, workload.Name, workload.Labels[:]...).Writer()
	length := 6 * time.Second
	if quick {
		length = 3 * time.Second
	}
	part := func(advance bool) time.Duration {
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for advance {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Millisecond):
					a.Advance()
				}
			}
		}()
		var took []time.Duration
		for i, began := 0, time.Now(); time.Since(began) < length; i++ {
			rows, values := w.Batch(i)
			now := time.Now()
			r.Record(now.UnixMilli(), rows, values)
			took = append(took, time.Since(now))
		}
		close(stop)
		<-done
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	a.Advance()
	part(true)
	// Without the background worker a writer closes a pane itself where its time is ahead of all: the quiet part is shorter than that.
	flushing = part(true)
	length = 900 * time.Millisecond
	a.Advance()
	return part(false), flushing
}

// runPeers runs the peers' module, if it is there.
func runPeers(goroutines []int, d time.Duration, log io.Writer) ([]workload.Rate, error) {
	dir := ""
	for _, at := range []string{"services/metrics-processor/peers", "peers"} {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			dir = at
		}
	}
	if dir == "" {
		fmt.Fprintln(log, "bench: no peers here, run it at the root of the tree to be compared with them")
		return nil, nil
	}
	gs := make([]string, len(goroutines))
	for i, g := range goroutines {
		gs[i] = strconv.Itoa(g)
	}
	cmd := exec.Command("go", "run", ".", "-goroutines", strings.Join(gs, ","), "-time", d.String())
	cmd.Dir, cmd.Stderr = dir, log
	cmd.Env = append(os.Environ(), "GOWORK=off")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("run peers: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("run peers: %w", err)
	}
	var rates []workload.Rate
	lines := bufio.NewScanner(pipe)
	var bad error
	for lines.Scan() {
		var r workload.Rate
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			bad = fmt.Errorf("read what peers say: %w", err)
		}
		rates = append(rates, r)
	}
	if err := errors.Join(bad, lines.Err(), cmd.Wait()); err != nil {
		return nil, fmt.Errorf("run peers: %w", err)
	}
	return rates, nil
}

func writeHeap(path string) error {
	debug.FreeOSMemory()
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write heap profile: %w", err)
	}
	defer f.Close()
	return pprof.Lookup("heap").WriteTo(f, 0)
}

// top is what go tool pprof says of both profiles, where there is a toolchain.
func top(dir string) string {
	var out strings.Builder
	for _, name := range []string{"cpu.pprof", "heap.pprof"} {
		text, err := exec.Command("go", "tool", "pprof", "-top", "-nodecount=12", filepath.Join(dir, name)).Output()
		if err != nil {
			fmt.Fprintf(&out, "%s: go tool pprof: %v\n", name, err)
			continue
		}
		fmt.Fprintf(&out, "%s\n%s\n", name, text)
	}
	return out.String()
}
