//go:build failpoints

package failpoint

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Enabled says whether this program was built to die.
const Enabled = true

// Variable names the directory whose files arm the places.
const Variable = "WAYBILL_FAILPOINTS"

// command is what a file tells a place to do.
type command struct {
	action string
	pause  time.Duration
	at     int // the hit that acts
	times  int // how many hits act from there on
	// share of the hits that act, for as long as the file is there; 0: all that at and times say.
	share float64
}

var (
	mu      sync.Mutex
	hits    = map[string]int{}     // of places that are armed and have not acted yet
	running = map[string]command{} // that have acted and have hits left
	chance  = map[string]*rand.Rand{}
)

// draw says whether this hit is among the share. The hits of a place are drawn from a source of its own, by $WAYBILL_FAILPOINTS_SEED.
func draw(name string, share float64) bool {
	r := chance[name]
	if r == nil {
		seed, _ := strconv.ParseUint(os.Getenv(Variable+"_SEED"), 10, 64)
		place := fnv.New64a()
		_, _ = place.Write([]byte(name))
		r = rand.New(rand.NewPCG(seed, place.Sum64()))
		chance[name] = r
	}
	return r.Float64() < share
}

// Hit marks a place. Where it is armed it acts, and may not return.
func Hit(name string) error {
	do, ok := next(name)
	if !ok {
		return nil
	}
	switch do.action {
	case "kill":
		if self, err := os.FindProcess(os.Getpid()); err == nil {
			_ = self.Kill()
		}
		select {} // dead, as soon as the kernel comes to it
	case "pause":
		time.Sleep(do.pause)
		return nil
	}
	return fmt.Errorf("failpoint %s", name)
}

// After is Hit behind what may have failed: then the place was not reached.
func After(err error, name string) error {
	if err != nil {
		return err
	}
	return Hit(name)
}

// During marks the place within a call over HTTP that is made with the returned context: the request is written, the
// answer is not there.
func During(ctx context.Context, name string) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { _ = Hit(name) }})
}

// next says what this hit is to do.
func next(name string) (command, bool) {
	dir := os.Getenv(Variable)
	if dir == "" {
		return command{}, false
	}
	mu.Lock()
	defer mu.Unlock()
	if o, ok := running[name]; ok {
		if o.times--; o.times > 0 {
			running[name] = o
		} else {
			delete(running, name)
		}
		return o, true
	}
	file := filepath.Join(dir, filepath.Base(os.Args[0]), name)
	text, err := os.ReadFile(file)
	if err != nil {
		delete(hits, name)
		return command{}, false
	}
	o, err := parse(string(text))
	if err != nil {
		panic(fmt.Sprintf("failpoint %s: %v", file, err)) // a test that arms nothing proves nothing
	}
	if o.share > 0 {
		acts := draw(name, o.share)
		if acts {
			_ = os.WriteFile(file+".fired", nil, 0o644)
		}
		return o, acts
	}
	if hits[name]++; hits[name] < o.at {
		return command{}, false
	}
	delete(hits, name)
	if os.Rename(file, file+".fired") != nil {
		return command{}, false // another process was faster
	}
	if o.times > 1 {
		o.times--
		running[name] = o
	}
	return o, true
}

// parse reads a command: action [duration] [@hit] [*times] [~share].
func parse(text string) (command, error) {
	o := command{at: 1, times: 1}
	text = strings.TrimSpace(text)
	if before, share, ok := strings.Cut(text, "~"); ok {
		var err error
		if o.share, err = strconv.ParseFloat(share, 64); err != nil || o.share <= 0 || o.share > 1 {
			return o, fmt.Errorf("%q is not a share", share)
		}
		text = before
	}
	for _, part := range []struct {
		mark string
		into *int
	}{{"*", &o.times}, {"@", &o.at}} {
		before, number, ok := strings.Cut(text, part.mark)
		if !ok {
			continue
		}
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			return o, fmt.Errorf("%q is not a number from 1", number)
		}
		*part.into, text = n, before
	}
	action, duration, _ := strings.Cut(text, " ")
	o.action = action
	switch action {
	case "kill", "error":
		return o, nil
	case "pause":
		var err error
		o.pause, err = time.ParseDuration(strings.TrimSpace(duration))
		return o, err
	}
	return o, errors.New("neither kill nor error nor pause")
}
