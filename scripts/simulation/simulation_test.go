package simulation

import (
	"bufio"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	one   = flag.Uint64("seed", 0, "play this seed alone, and say what came of it")
	many  = flag.Uint64("seeds", 20_000, "how many seeds are played")
	first = flag.Uint64("from", 1, "the first of them")
)

// TestSeeds plays the seeds. Which of them found something once stands in testdata/seeds; those come first.
func TestSeeds(t *testing.T) {
	if *one != 0 {
		r := Run(*one, Flaws{})
		t.Logf("seed %d: %d steps, %v, %v", *one, r.Steps, r.Ends, r.Seen)
		for _, b := range r.Broken {
			t.Error(b)
		}
		return
	}
	seeds := remembered(t)
	n := *many
	if raceEnabled {
		n = max(n/20, 1) // one goroutine a run: the race detector finds nothing here, and costs twenty times as much
	}
	for s := range n {
		seeds = append(seeds, *first+s)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // a run lives for milliseconds
	var mu sync.Mutex
	ends, seen, steps := map[string]int{}, map[string]int{}, 0
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(seeds) || t.Failed() {
					return
				}
				r := Run(seeds[i], Flaws{})
				mu.Lock()
				for k, v := range r.Ends {
					ends[k] += v
				}
				for k, v := range r.Seen {
					seen[k] += v
				}
				steps += r.Steps
				mu.Unlock()
				if len(r.Broken) > 0 {
					t.Errorf("seed %d (go test -run TestSeeds -seed %d):\n%s", seeds[i], seeds[i], strings.Join(r.Broken, "\n"))
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d seeds, %d steps\nends: %s\nseen: %s", len(seeds), steps, listed(ends), listed(seen))
	if len(seeds) < 1000 || t.Failed() {
		return
	}
	// A run that never went wrong proves nothing.
	for _, want := range []string{"completed ", "failed out_of_stock", "failed amount_mismatch", "failed reservation_expired", "cancelled payment_declined", "cancelled payment_failed",
		"cancelled customer_request", "cancelled expired", "cancelled shipping_failed"} {
		if ends[want] == 0 {
			t.Errorf("no order ended %q", want)
		}
	}
	for _, want := range []string{"crashes", "published twice", "refund repeated", "parcel sent again", "written off", "late capture returned", "hold expired"} {
		if seen[want] == 0 {
			t.Errorf("not seen: %s", want)
		}
	}
}

// remembered are the seeds that found something.
func remembered(t *testing.T) (seeds []uint64) {
	f, err := os.Open("testdata/seeds")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, n)
	}
	return seeds
}

func listed(m map[string]int) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%s: %d", strings.TrimSpace(k), m[k]))
	}
	return strings.Join(out, ", ")
}

// A seed is a story: told twice it is the same one.
func TestSeedsRepeat(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		a, b := Run(seed, Flaws{}), Run(seed, Flaws{})
		if a.Steps != b.Steps || !maps.Equal(a.Ends, b.Ends) || !maps.Equal(a.Seen, b.Seen) {
			t.Errorf("seed %d: %+v, then %+v", seed, a, b)
		}
	}
}

// Every rule that is broken on purpose is noticed, within some thousand seeds.
func TestFlawsAreFound(t *testing.T) {
	for name, flaws := range map[string]Flaws{
		"no tombstone":                       {NoTombstone: true},
		"a sweeper that does not look again": {BlindSweeper: true},
		"pins expire":                        {PinsExpire: true},
		"no dedupe":                          {NoDedupe: true},
		"offsets before the transaction":     {OffsetsFirst: true},
		"marks before the acknowledgement":   {MarksFirst: true},
		"a provider key per try":             {KeyPerTry: true},
		"a time-out is a no":                 {TimeoutIsNo: true},
		"a carrier key per try":              {ShipTwice: true},
		"a late capture is kept":             {LateCaptureKept: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 3000; seed++ {
				if r := Run(seed, flaws); len(r.Broken) > 0 {
					t.Logf("seed %d: %s", seed, r.Broken[0])
					return
				}
			}
			t.Error("nobody noticed")
		})
	}
}
