package simulation

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"
)

// Flaws break a rule on purpose, to prove that a run would notice.
type Flaws struct {
	NoTombstone     bool // a release of what does not exist yet leaves no trace
	BlindSweeper    bool // what was a hold when the sweeper looked is expired, whatever it is now
	PinsExpire      bool // the sweeper takes pins for holds
	NoDedupe        bool // consumers apply what comes, as often as it comes
	OffsetsFirst    bool // offsets are committed before the transaction
	MarksFirst      bool // the relay marks rows before the broker has acknowledged them
	KeyPerTry       bool // each call to the provider has a key of its own
	TimeoutIsNo     bool // a provider that does not answer has not charged
	ShipTwice       bool // a parcel's key changes with each try
	LateCaptureKept bool // a charge that lands on a closed order is not returned
}

// faults are how often something goes wrong, of 1.
type faults struct {
	txLost, txUntold    float64 // the transaction is rolled back; or committed, and the caller hears of an error
	callLost, callDeaf  float64 // a call does not arrive; or its answer does not
	produce             float64 // a batch is not acknowledged
	crash               float64 // at each step of a process
	again               float64 // a batch is read again
	slow                time.Duration
	webhookLost, double float64
	late                float64 // of the charges that time out, those that arrive after the caller has gone on
}

// World is one run.
type World struct {
	seed  uint64
	flaws Flaws
	rnd   *rand.Rand
	now   time.Duration
	steps int
	queue events
	order int // of things at the same time
	bad   faults

	orders    *orders
	inventory *inventory
	payments  *payments
	shipping  *shipping
	nodes     []*node
	topics    map[string]*topic
	notes     []note // payloads of all events
	plans     map[string]*plan
	ids       []string // of orders, in the order of their plans
	broken    []string
}

type timer struct {
	at    time.Duration
	order int
	do    func()
}

type events []timer

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(timer)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	old[len(old)-1] = timer{}
	*e = old[:len(old)-1]
	return x
}

// after has the world do something later.
func (w *World) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.queue, timer{w.now + d, w.order, do})
}

func (w *World) chance(p float64) bool { return p > 0 && w.rnd.Float64() < p }

// between is a duration by chance.
func (w *World) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.rnd.Int64N(int64(most-least)+1))
}

// delay is how long a message is under way.
func (w *World) delay() time.Duration {
	return w.between(time.Millisecond, 5*time.Millisecond+w.bad.slow)
}

// violate notes what must not happen.
func (w *World) violate(format string, args ...any) {
	if len(w.broken) < 20 {
		w.broken = append(w.broken, fmt.Sprintf("%8.3fs %s", w.now.Seconds(), fmt.Sprintf(format, args...)))
	}
}

const (
	healAfter = 12 * time.Second // the faults stop
	// stuckAfter is past the longest deadline of an order and all that may follow it.
	stuckAfter = 15 * time.Minute
	maxSteps   = 400_000
)

// Result is what a run has shown.
type Result struct {
	Steps  int
	Ends   map[string]int // orders by status and reason
	Seen   map[string]int // rare paths
	Broken []string
}

// Run plays one seed.
func Run(seed uint64, flaws Flaws) Result {
	w := &World{seed: seed, flaws: flaws, rnd: rand.New(rand.NewPCG(seed, 0x7761796269)), topics: map[string]*topic{}, plans: map[string]*plan{}}
	w.play()
	return w.result()
}

// play is a run.
func (w *World) play() {
	w.drawFaults()
	w.build()
	w.drawPlans()
	w.after(healAfter, w.heal)
	w.after(healAfter+time.Second, w.look)
	for len(w.queue) > 0 && len(w.broken) == 0 {
		if w.steps++; w.steps > maxSteps {
			w.violate("no end after %d steps", w.steps)
			break
		}
		next := heap.Pop(&w.queue).(timer)
		w.now = next.at
		next.do()
	}
	if len(w.broken) == 0 {
		w.check()
	}
}

// drawFaults chooses what this run suffers from: everything a little, a few things much, or nothing.
func (w *World) drawFaults() {
	pick := func(most float64) float64 {
		switch w.rnd.IntN(4) {
		case 0:
			return 0
		case 1:
			return most
		}
		return most / 4 * w.rnd.Float64()
	}
	w.bad = faults{
		txLost: pick(0.2), txUntold: pick(0.2), callLost: pick(0.3), callDeaf: pick(0.3), produce: pick(0.4),
		crash: pick(0.02), again: pick(0.3), slow: time.Duration(w.rnd.IntN(4)) * 150 * time.Millisecond,
		webhookLost: pick(0.5), double: pick(0.3), late: pick(0.5),
	}
}

// heal ends the faults.
func (w *World) heal() {
	w.bad = faults{}
	for _, n := range w.nodes {
		if !n.up {
			n.start()
		}
	}
}

// look ends the run when nothing moves any more.
func (w *World) look() {
	if why := w.moving(); why != "" {
		if w.now > stuckAfter {
			w.violate("stuck: %s", why)
			return
		}
		// Where only a deadline or a lease is waited for, the clock may run.
		pause := time.Second
		if w.now > 3*time.Minute {
			pause = 20 * time.Second
		}
		w.after(pause, w.look)
		return
	}
	w.queue = nil
}
