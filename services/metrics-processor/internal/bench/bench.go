// Package bench measures the metrics processor, beside its peers where their module is in the tree: samples a second by work,
// series and goroutines, the latency of a batch, allocations, memory for each series, and what closing a pane costs.
package bench

import (
	"cmp"
	"context"
	"encoding/json"
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
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"

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
	limit      float64 // the prototype's rate
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

// plan is how much is measured.
type plan struct {
	rounds     int
	length     time.Duration // of one measurement
	goroutines []int
	building   time.Duration // that peers may take to be built
	total      time.Duration // after which no round begins, and one that runs is given up
}

var (
	whole = plan{4, 500 * time.Millisecond, []int{1, 2, 4, 8}, 15 * time.Minute, time.Hour}
	// A quick one ends within two minutes, also where others keep the machine busy: what comes after the rounds takes some 10 s.
	brief = plan{3, 150 * time.Millisecond, []int{1, 2}, 35 * time.Second, 90 * time.Second}
)

func run(asJSON, quick bool, dir string, out, log io.Writer) error {
	p := whole
	if quick {
		p = brief
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory of the report: %w", err)
	}
	profile, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	defer profile.Close()
	ctx, cancel := context.WithTimeout(context.Background(), p.total)
	defer cancel()
	building, done := context.WithTimeout(ctx, p.building)
	programs := buildPeers(building, dir, log)
	done()
	loads := map[int]*workload.Workload{}
	for _, series := range workload.Series {
		loads[series] = workload.New(series, workload.Samples)
	}
	found := measured{}
	// Ours and the peers take turns, so that a slow moment of the machine meets both.
	for round := 0; round < p.rounds && ctx.Err() == nil; round++ {
		if round == 0 {
			if err := pprof.StartCPUProfile(profile); err != nil {
				return fmt.Errorf("take profile: %w", err)
			}
		}
		for _, series := range workload.Series {
			for _, work := range works {
				if ctx.Err() != nil {
					break
				}
				if err := found.measure(loads[series], work, p); err != nil {
					return err
				}
			}
		}
		if round == 0 {
			pprof.StopCPUProfile()
			if err := writeHeap(filepath.Join(dir, "heap.pprof")); err != nil {
				return err
			}
		}
		rates, err := programs.run(ctx, p.goroutines, p.length, log)
		if err != nil && ctx.Err() == nil {
			return err
		}
		found.peers = append(found.peers, rates...)
	}
	if ctx.Err() != nil {
		fmt.Fprintf(log, "bench: ended after %v, with fewer rounds than %d\n", p.total, p.rounds)
	}
	all := found.rows()
	notes := append(found.notes(all), flush(loads[workload.Series[1]], quick))
	for i, c := range charts(all) {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("chart-%02d.svg", i)), []byte(c), 0o644); err != nil {
			return fmt.Errorf("write chart: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "overview.svg"), []byte(overview(all)), 0o644); err != nil {
		return fmt.Errorf("write chart: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "report.html"), report(all, notes, top(dir)), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if asJSON {
		return json.NewEncoder(out).Encode(all)
	}
	text(out, all, notes, dir)
	return nil
}

// measured is what all rounds found.
type measured struct {
	ours      []Row
	peers     []workload.Rate
	perSeries map[int][]float64 // bytes, by number of series
}

// rows gives each of ours, the median of the rounds, a row for each peer that did the same.
func (m measured) rows() []Row {
	type key struct {
		work       string
		series, g  int
		contestant string
	}
	rates := map[key][]float64{}
	for _, r := range m.peers {
		k := key{r.Work, r.Series, r.Goroutines, r.Peer}
		rates[k] = append(rates[k], r.Rate)
	}
	var names []string
	for _, r := range m.peers {
		if !slices.Contains(names, r.Peer) && r.Peer != workload.Limit {
			names = append(names, r.Peer)
		}
	}
	same := map[key][]Row{}
	for _, r := range m.ours {
		k := key{r.Work, r.Series, r.Goroutines, ""}
		same[k] = append(same[k], r)
	}
	all := []Row{}
	for k, rows := range same {
		slices.SortFunc(rows, func(a, b Row) int { return cmp.Compare(a.Rate, b.Rate) })
		r := rows[(len(rows)-1)/2]
		r.limit = median(rates[key{k.work, k.series, k.g, workload.Limit}])
		alone := true
		for _, name := range names {
			if peer := median(rates[key{k.work, k.series, k.g, name}]); peer > 0 {
				ratio := math.Round(100*r.Rate/peer) / 100
				x := r
				x.Peer, x.PeerRate, x.Ratio = name, &peer, &ratio
				all, alone = append(all, x), false
			}
		}
		if alone {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b Row) int {
		return cmp.Or(cmp.Compare(slices.Index(works, a.Work), slices.Index(works, b.Work)), cmp.Compare(a.Series, b.Series),
			cmp.Compare(a.Goroutines, b.Goroutines), cmp.Compare(a.Peer, b.Peer))
	})
	return all
}

// median is the lower one of two in the middle; 0 where there are none.
func median(of []float64) float64 {
	if len(of) == 0 {
		return 0
	}
	slices.Sort(of)
	return of[(len(of)-1)/2]
}

// notes are what a row cannot say.
func (m measured) notes(all []Row) (notes []string) {
	rate := map[string]float64{}
	for _, r := range all {
		key := fmt.Sprint(r.Work, r.Series, " ", r.Goroutines)
		if _, seen := rate[key]; !seen && r.limit > 0 {
			notes = append(notes, fmt.Sprintf("%s, %d series, %d goroutines: %.2f of the prototype's %.1f M samples/s", r.Work, r.Series, r.Goroutines, r.Rate/r.limit, r.limit/1e6))
		}
		rate[key] = r.Rate
	}
	for _, work := range works {
		for _, series := range workload.Series {
			if one, two := rate[fmt.Sprint(work, series, " ", 1)], rate[fmt.Sprint(work, series, " ", 2)]; one > 0 && two > 0 {
				notes = append(notes, fmt.Sprintf("%s, %d series: two goroutines make %.2f of one", work, series, two/one))
			}
		}
	}
	for _, series := range workload.Series {
		if b := median(m.perSeries[series]); b > 0 {
			notes = append(notes, fmt.Sprintf("memory of %d series: %.0f bytes each, %.1f MiB", series, b, b*float64(series)/(1<<20)))
		}
	}
	return notes
}

// measure measures ours at one work, at each number of goroutines, with a watermark that moves and a reader each second.
func (m *measured) measure(w *workload.Workload, work string, p plan) error {
	src := &aggregate.Source{Name: "bench"}
	a, err := aggregate.New(aggregate.Options{}, src)
	if err != nil {
		return err
	}
	defer a.Close()
	stop, done := make(chan struct{}), make(chan struct{})
	defer func() { close(stop); <-done }()
	var reading sync.Mutex
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				reading.Lock()
				a.Advance()
				now := time.Now()
				a.Query(aggregate.Matcher{}, now.Add(-time.Minute), now, func(w aggregate.Window) bool { w.Stat.Quantile(0.99); return true })
				reading.Unlock()
			case <-stop:
				return
			}
		}
	}()
	var bodies [][]byte
	var worker func() func(i int) int
	if work == "label-lookup" {
		v := a.NewVec(src, aggregate.KindSample, workload.Name, workload.Labels[:]...)
		for range runtime.GOMAXPROCS(0) { // writers take shards in turn: each shard knows every series
			v.Writer().Record(time.Now().UnixMilli(), w.Rows, w.Values)
		}
		worker = func() func(int) int {
			r := v.Writer()
			return func(i int) int {
				rows, values := w.Batch(i)
				r.Record(time.Now().UnixMilli(), rows, values)
				return len(values)
			}
		}
	} else {
		var decoder func() wire.Decoder
		bodies, decoder = decoding(a, src, w, work)
		worker = func() func(int) int {
			d := decoder()
			var buf []byte
			return func(i int) int {
				body := bodies[i%len(bodies)]
				if work == "remote-write" {
					var err error
					if buf, err = s2.Decode(buf[:cap(buf)], body); err != nil {
						panic(err) // our own bodies
					}
					body = buf
				}
				if err := d.Decode(body); err != nil {
					panic(err)
				}
				return workload.BatchLen
			}
		}
		for range runtime.GOMAXPROCS(0) {
			f := worker()
			for i := range bodies {
				f(i)
			}
		}
	}
	if work == "label-lookup" {
		if m.perSeries == nil {
			m.perSeries = map[int][]float64{}
		}
		m.perSeries[w.Series] = append(m.perSeries[w.Series], float64(a.Health().MemoryBytes)/float64(max(a.Series(), 1)))
	}
	for _, g := range p.goroutines {
		took := make([][]time.Duration, g)
		for i := range took {
			took[i] = make([]time.Duration, 0, 1<<15)
		}
		rate := workload.Measure(g, p.length, func(g int) func(int) int {
			f := worker()
			return func(i int) int {
				began := time.Now()
				n := f(i)
				if len(took[g]) < cap(took[g]) {
					took[g] = append(took[g], time.Since(began))
				}
				return n
			}
		})
		flat := slices.Concat(took...)
		slices.Sort(flat)
		row := Row{Work: work, Series: w.Series, Goroutines: g, Rate: math.Round(rate), p50: flat[len(flat)/2], p99: flat[len(flat)*99/100]}
		// Once more while nobody reads: what a reader allocates is no sample's. Nor are the few hundred objects of workers and
		// clock, which three digits do not show.
		var before, after runtime.MemStats
		reading.Lock()
		runtime.ReadMemStats(&before)
		samples := p.length.Seconds() * workload.Measure(g, p.length, func(int) func(int) int { return worker() })
		runtime.ReadMemStats(&after)
		reading.Unlock()
		row.Allocs = math.Round(1000*float64(after.Mallocs-before.Mallocs)/samples) / 1000
		m.ours = append(m.ours, row)
	}
	return nil
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
	return w.OTLP(), func() wire.Decoder { return wire.NewOTLP(a, src, wire.NewFormer()) }
}

// flush compares the latency of a batch while panes of all series are closed with that of one while none are.
func flush(w *workload.Workload, quick bool) string {
	src := &aggregate.Source{Name: "bench"}
	a, err := aggregate.New(aggregate.Options{Pane: time.Second, Lateness: 500 * time.Millisecond}, src)
	if err != nil {
		return err.Error()
	}
	defer a.Close()
	v := a.NewVec(src, aggregate.KindSample, workload.Name, workload.Labels[:]...)
	length := 8 * time.Second
	if quick {
		length = 4 * time.Second
	}
	var quiet, busy []time.Duration
	r := v.Writer()
	closed := make(chan time.Duration)
	record := func(i int) time.Duration {
		rows, values := w.Batch(i)
		began := time.Now()
		r.Record(began.UnixMilli(), rows, values)
		return time.Since(began)
	}
	for i, until := 0, time.Now().Add(length); time.Now().Before(until); {
		// The stretch of a pane before it is due to be closed, and then that in which another goroutine closes it.
		for stretch := time.Now(); time.Since(stretch) < 700*time.Millisecond; i++ {
			quiet = append(quiet, record(i))
		}
		go func() {
			began := time.Now()
			a.Advance()
			closed <- time.Since(began)
		}()
		for closing := true; closing; i++ {
			select {
			case <-closed:
				closing = false
			default:
				busy = append(busy, record(i))
			}
		}
	}
	p99 := func(of []time.Duration) time.Duration {
		slices.Sort(of)
		return of[len(of)*99/100]
	}
	x, y, z := p99(quiet), p99(slices.Concat(quiet, busy)), p99(busy)
	return fmt.Sprintf("closing a pane of %d series each second: p99 of a batch of %d is %v, %v without: %.2f times (%v for the %d batches that met a closing)",
		w.Series, workload.BatchLen, y, x, float64(y)/float64(x), z, len(busy))
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
