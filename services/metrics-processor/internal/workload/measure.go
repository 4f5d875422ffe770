package workload

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Measure has each worker record batches for so long and returns samples a second. A worker's function records its i-th
// batch and returns the samples in it.
func Measure(workers int, d time.Duration, worker func(g int) func(i int) int) float64 {
	fs := make([]func(int) int, workers)
	for g := range fs {
		fs[g] = worker(g)
		fs[g](0)
	}
	counts := make([]int, workers*16) // a cache line for each
	var wg sync.WaitGroup
	began := time.Now()
	for g, f := range fs {
		wg.Go(func() {
			n := 0
			for i := g * 7; time.Since(began) < d; i++ {
				n += f(i)
			}
			counts[g*16] = n
		})
	}
	wg.Wait()
	took, n := time.Since(began), 0
	for _, c := range counts {
		n += c
	}
	return float64(n) / took.Seconds()
}

// Series are the numbers of series that are measured.
var Series = [2]int{1000, 100_000}

// Samples is the length of the stream.
const Samples = 1 << 19

// Limit is the name of the prototype without windows, which is no peer: nobody could use it.
const Limit = "limit (prototype)"

// Rate is one measurement of a peer.
type Rate struct {
	Work       string  `json:"work"`
	Series     int     `json:"series"`
	Goroutines int     `json:"goroutines"`
	Peer       string  `json:"peer"`
	Rate       float64 `json:"rate"`
}

// Say measures a peer at a work.
type Say func(work, peer string, worker func(g int) func(i int) int)

// Peers is what a command that measures peers does: it calls measure for each number of series, and writes a Rate in a line
// for each thing it says, at each number of goroutines.
func Peers(args []string, out io.Writer, measure func(w *Workload, say Say) error) error {
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	goroutines := flags.String("goroutines", "1,2", "numbers of goroutines")
	d := flags.Duration("time", 200*time.Millisecond, "of each measurement")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var gs []int
	for s := range strings.SplitSeq(*goroutines, ",") {
		g, err := strconv.Atoi(s)
		if err != nil || g < 1 {
			return fmt.Errorf("goroutines %q", s)
		}
		gs = append(gs, g)
	}
	lines := json.NewEncoder(out)
	for _, series := range Series {
		w := New(series, Samples)
		err := measure(w, func(work, peer string, worker func(int) func(int) int) {
			// A warm-up; whoever meets a series for the first time takes longer, and is not asked how long.
			f := worker(0)
			for i := range Batches {
				f(i)
			}
			for _, g := range gs {
				_ = lines.Encode(Rate{Work: work, Series: series, Goroutines: g, Peer: peer, Rate: math.Round(Measure(g, *d, worker))})
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}
