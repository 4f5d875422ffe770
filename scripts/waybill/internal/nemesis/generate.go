package nemesis

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/proxy"
)

// Ground is what there is to break.
type Ground struct {
	Processes []string // order, order-2, …
	Parts     []string // of PostgreSQL, Kafka and Redis those that can be killed
	Edges     []string // caller>callee
	Replicas  int
}

// Options shape a schedule.
type Options struct {
	Seed     uint64
	Duration time.Duration
	// PauseMost is the longest pause; the shortest is 5 s.
	PauseMost time.Duration
	// At least so many of each kind, added by chance where the sets left too few.
	AtLeast map[Kind]int
}

const (
	// quietStart lets the load reach its rate before anything breaks.
	quietStart = 4 * time.Second
	// A set of faults is in force for 5 to 15 s and one in five periods has none, as Jepsen
	// rotates them.
	periodLeast, periodMost = 5 * time.Second, 15 * time.Second
	noneShare               = 0.2
	pauseLeast              = 5 * time.Second
)

// Generate draws a schedule. The same options and ground give the same one.
func Generate(o Options, ground Ground) Schedule {
	g := &generator{
		Rand:   rand.New(rand.NewPCG(o.Seed, 0x77617962696c6c)), // of its own, so that nothing else that is seeded alike moves with it
		ground: ground, options: o,
		schedule: Schedule{Seed: o.Seed, Duration: Duration(o.Duration), Replicas: ground.Replicas},
	}
	var bag []set
	for at := quietStart; at+periodLeast <= o.Duration; {
		end := min(at+g.between(periodLeast, periodMost), o.Duration)
		if g.Float64() >= noneShare {
			if len(bag) == 0 { // each set once before any comes again
				bag = slices.Clone(sets)
				g.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
			}
			g.set, g.at, g.end = bag[0].name, at, end
			bag[0].draw(g)
			bag = bag[1:]
		}
		at = end
	}
	g.fill()
	slices.SortStableFunc(g.schedule.Actions, func(a, b Action) int { return cmp.Compare(a.At, b.At) })
	return g.schedule
}

type generator struct {
	*rand.Rand
	ground   Ground
	options  Options
	schedule Schedule

	set     string
	at, end time.Duration // of the period
}

// set is a combination of faults that is in force for a period.
type set struct {
	name string
	draw func(*generator)
}

// sets are RELIABILITY's columns and combinations.
var sets = []set{
	{"kill", func(g *generator) { g.kills(1 + g.IntN(3)) }},
	{"kill both replicas", func(g *generator) { g.killService(g.service()) }},
	{"pause", func(g *generator) { g.pauses(1 + g.IntN(2)) }},
	{"cut", func(g *generator) { g.cuts(1 + g.IntN(3)) }},
	{"slow", func(g *generator) { g.slows(1 + g.IntN(3)) }},
	{"reset", func(g *generator) { g.resets(2 + g.IntN(2)) }},
	{"outside", func(g *generator) { g.outside(1 + g.IntN(3)) }},
	{"kill+pause", func(g *generator) { g.kills(2); g.pauses(1) }},
	{"kill+cut", func(g *generator) { g.kills(2); g.cuts(2) }},
	{"slow+duplicates+errors", func(g *generator) { g.slows(2); g.duplicates(); g.outside(2) }},
	{"broker+relay", func(g *generator) { g.restart("kafka"); g.killService("order") }},
	{"PostgreSQL+payment", func(g *generator) { g.restart("postgres"); g.killService("payment") }},
	{"Redis", func(g *generator) { g.restart("redis"); g.cutAll("redis") }},
	{"everything", everything},
	{"swizzle", swizzle},
	{"power cut", func(g *generator) { g.add(Action{Kind: Power}, g.moment(), 0) }},
}

// redraw is how often "everything" draws anew.
const redraw = 5 * time.Second

// everything draws one fault of each kind, and again every 5 s.
func everything(g *generator) {
	begin, end := g.at, g.end
	for g.at = begin; g.at < end; g.at += redraw {
		g.end = min(g.at+redraw, end)
		g.kills(1)
		g.cuts(1)
		g.slows(1)
		g.resets(1)
		g.outside(1)
		if end-g.at >= pauseLeast {
			g.end = end
			g.pauses(1)
		}
	}
	g.at, g.end = begin, end
}

// swizzle cuts links one by one and restores them in another order, as FoundationDB clogs
// its simulated network.
func swizzle(g *generator) {
	edges := slices.Clone(g.ground.Edges)
	g.Shuffle(len(edges), func(i, j int) { edges[i], edges[j] = edges[j], edges[i] })
	edges = edges[:min(len(edges), 12)]
	half := (g.end - g.at) / 2
	restore := g.Perm(len(edges))
	for i, edge := range edges {
		n := time.Duration(len(edges))
		from := g.at + half*time.Duration(i)/n
		to := g.at + half + half*time.Duration(restore[i]+1)/n
		g.network(edge, proxy.Toxic{Blackhole: true}, from, to-from)
	}
}

// fill adds what is missing of each kind, spread over the run.
func (g *generator) fill() {
	g.set = "added"
	have := g.schedule.Count()
	for _, kind := range Kinds {
		for n := have[kind]; n < g.options.AtLeast[kind]; n++ {
			g.at = quietStart + time.Duration(g.Int64N(int64(max(g.options.Duration-quietStart-periodMost, 1))))
			g.end = min(g.at+periodMost, g.options.Duration)
			before := len(g.schedule.Actions)
			switch kind {
			case Kill:
				g.kills(1)
			case Pause:
				g.pauses(1)
			case Restart:
				if len(g.ground.Parts) > 0 {
					g.restart(pick(g, g.ground.Parts))
				}
			case Network:
				[]func(int){g.cuts, g.slows, g.resets}[g.IntN(3)](1)
			case Outside:
				g.outside(1)
			case Power:
				g.add(Action{Kind: Power}, g.moment(), 0)
			}
			n += max(len(g.schedule.Actions)-before-1, 0)
		}
	}
}

func (g *generator) between(least, most time.Duration) time.Duration {
	if most <= least {
		return least
	}
	return least + time.Duration(g.Int64N(int64(most-least))).Round(time.Millisecond)
}

func pick[T any](g *generator, from []T) T { return from[g.IntN(len(from))] }

// moment is a time in the first two thirds of the period, so that its effect falls into it.
func (g *generator) moment() time.Duration { return g.at + g.between(0, (g.end-g.at)*2/3) }

func (g *generator) add(a Action, at, for_ time.Duration) {
	at = min(at, g.options.Duration)
	a.At, a.For, a.Set = Duration(at), Duration(min(for_, g.options.Duration-at)), g.set
	g.schedule.Actions = append(g.schedule.Actions, a)
}

// weights: what the saga runs through is hit more often than what only listens.
var weights = map[string]int{"order": 4, "payment": 4, "inventory": 4, "shipping": 2, "gateway": 2, "notification": 1, "analytics": 1, "metrics-processor": 1, "sandbox": 1}

// serviceOf is a process's name without its replica's number.
func serviceOf(process string) string {
	if i := strings.LastIndexByte(process, '-'); i > 0 && strings.Trim(process[i+1:], "0123456789") == "" {
		return process[:i]
	}
	return process
}

func (g *generator) process() string {
	var bag []string
	for _, p := range g.ground.Processes {
		for range weights[serviceOf(p)] {
			bag = append(bag, p)
		}
	}
	return pick(g, bag)
}

func (g *generator) service() string { return serviceOf(g.process()) }

func (g *generator) kills(n int) {
	for range n {
		g.add(Action{Kind: Kill, Target: g.process()}, g.moment(), 0)
	}
}

// killService kills all replicas of a service at once.
func (g *generator) killService(service string) {
	at := g.moment()
	for _, p := range g.ground.Processes {
		if serviceOf(p) == service {
			g.add(Action{Kind: Kill, Target: p}, at, 0)
		}
	}
}

func (g *generator) pauses(n int) {
	for range n {
		p := g.process()
		if p == "sandbox" { // time-outs of the outside are asked for by rules
			p = pick(g, g.ground.Processes[:len(g.ground.Processes)-1])
		}
		for_ := g.between(pauseLeast, max(g.options.PauseMost, pauseLeast))
		// A pause may outlast its period, not the run.
		at := min(g.moment(), g.options.Duration-for_)
		g.add(Action{Kind: Pause, Target: p}, max(at, 0), for_)
	}
}

func (g *generator) restart(part string) {
	if slices.Contains(g.ground.Parts, part) {
		g.add(Action{Kind: Restart, Target: part}, g.moment(), 0)
	}
}

func (g *generator) network(edge string, t proxy.Toxic, at, for_ time.Duration) {
	g.add(Action{Kind: Network, Target: edge, Toxic: &t}, at, for_)
}

// edges draws a link: that of one process, or those of all its replicas.
func (g *generator) edges() []string {
	edge := pick(g, g.ground.Edges)
	if g.IntN(3) > 0 {
		return []string{edge}
	}
	caller, callee, _ := strings.Cut(edge, ">")
	var all []string
	for _, e := range g.ground.Edges {
		if c, to, _ := strings.Cut(e, ">"); to == callee && serviceOf(c) == serviceOf(caller) {
			all = append(all, e)
		}
	}
	return all
}

var directions = []proxy.Direction{proxy.Both, proxy.Both, proxy.Requests, proxy.Responses}

func (g *generator) spoil(n int, draw func() proxy.Toxic) {
	for range n {
		t := draw()
		at := g.moment()
		for _, edge := range g.edges() {
			g.network(edge, t, at, g.end-at)
		}
	}
}

func (g *generator) cuts(n int) {
	g.spoil(n, func() proxy.Toxic {
		if g.IntN(2) == 0 {
			return proxy.Toxic{Down: true}
		}
		return proxy.Toxic{Blackhole: true, Direction: pick(g, directions)}
	})
}

func (g *generator) slows(n int) {
	g.spoil(n, func() proxy.Toxic {
		if g.IntN(3) == 0 {
			return proxy.Toxic{BytesPerSecond: 1024, Direction: pick(g, directions)}
		}
		return proxy.Toxic{LatencyMS: 500 + g.IntN(4500), JitterMS: g.IntN(1000), Direction: pick(g, directions)}
	})
}

func (g *generator) resets(n int) {
	g.spoil(n, func() proxy.Toxic {
		switch g.IntN(3) {
		case 0:
			return proxy.Toxic{ResetAfterMS: 50 + g.IntN(1000)}
		case 1:
			return proxy.Toxic{LimitBytes: 100 + g.IntN(5000), Direction: pick(g, directions)}
		default:
			return proxy.Toxic{SliceBytes: 1 + g.IntN(64), LatencyMS: g.IntN(50)}
		}
	})
}

// cutAll takes a callee away from everybody.
func (g *generator) cutAll(callee string) {
	at := g.moment()
	for _, e := range g.ground.Edges {
		if strings.HasSuffix(e, ">"+callee) {
			g.network(e, proxy.Toxic{Down: true}, at, g.end-at)
		}
	}
}

// rules are how the world outside misbehaves. Money and parcels that are refused for good are
// asked for by the load's test values, in known shares; but a refund that fails, and needs a
// person, can be asked for here only.
var rules = []Rule{
	{Target: "provider.charge", Status: 500, Rate: 0.5},
	{Target: "provider.charge", Status: 500, AfterEffect: true, Rate: 0.5},
	{Target: "provider.charge", Timeout: true, AfterEffect: true, Rate: 0.3},
	{Target: "provider.charge", Timeout: true, Rate: 0.3},
	{Target: "provider.charge", Delay: Duration(7 * time.Second), AfterEffect: true, Rate: 0.3}, // later than the 5 s that anybody waits
	{Target: "provider.charge", Delay: Duration(time.Second)},
	{Target: "provider.charge", Status: 429, Rate: 0.5},
	{Target: "provider.get", Status: 503, Rate: 0.7},
	{Target: "provider.void", Timeout: true, AfterEffect: true, Rate: 0.5},
	{Target: "provider.refund", Timeout: true, AfterEffect: true, Rate: 0.5},
	{Target: "provider.refund", Status: 503, Rate: 0.7},
	{Target: "provider.refund", Outcome: "failed", Count: 1},
	{Target: "carrier.create", Timeout: true, AfterEffect: true, Rate: 0.3},
	{Target: "carrier.create", Status: 503, Rate: 0.7},
	{Target: "carrier.get", Status: 503},
	{Target: "smtp", Status: 451, Rate: 0.5},
	{Target: "webhook", Outcome: "drop", Rate: 0.7},
}

func (g *generator) outside(n int) {
	for range n {
		r := pick(g, rules)
		at := g.moment()
		g.add(Action{Kind: Outside, Rule: &r}, at, g.end-at)
	}
}

func (g *generator) duplicates() {
	g.add(Action{Kind: Outside, Rule: &Rule{Target: "webhook", Outcome: "twice"}}, g.at, g.end-g.at)
}
