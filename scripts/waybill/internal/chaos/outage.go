package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/client"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/load"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/proxy"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/terminal"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/workload"
)

// Outage is what clients met while a part was away.
type Outage struct {
	Part    string  `json:"part"`
	Seconds float64 `json:"seconds"`
	// Posts are orders that were placed meanwhile, by answer; "-" is none. Nothing is sent
	// twice.
	Posts map[string]int `json:"posts"`
	P50   float64        `json:"post_p50_ms"`
	P99   float64        `json:"post_p99_ms"`
	// Before is what the same took before.
	BeforeP50 float64 `json:"before_p50_ms"`
	BeforeP99 float64 `json:"before_p99_ms"`
	// Routes were all asked, again and again.
	Routes   int      `json:"routes"`
	Requests int      `json:"requests"`
	Failures []string `json:"failures"`
	// Unready are the processes whose /readyz does not answer 200 at the end of the outage: a
	// balancer would send them nothing.
	Unready []string `json:"unready"`
	Verdict string   `json:"verdict"`
	Why     string   `json:"why,omitempty"`
	// RestIn is how long after its end the platform rested again.
	RestIn float64 `json:"rest_seconds"`
}

// beforeOutage is how long the platform is measured without it.
const beforeOutage = 20 * time.Second

// RunOutage takes Kafka or Redis away from everybody: first with kill -9, and all links to it
// are down until the time is over. Meanwhile orders are placed, and every route of the
// gateway's own OpenAPI document is asked.
func RunOutage(ctx context.Context, o Options, part string, screen *terminal.Screen) (Outage, error) {
	r, err := rig(ctx, o, "outage-"+part, screen)
	if err != nil {
		return Outage{}, err
	}
	defer r.down()
	out := Outage{Part: part, Posts: map[string]int{}}
	w := r.workload("x")
	if err := w.Prepare(ctx); err != nil {
		return out, fmt.Errorf("prepare the load: %w", err)
	}
	routes, err := readRoutes(ctx, w.Admin())
	if err != nil {
		return out, err
	}
	out.Routes = len(routes)
	step := screen.Step(fmt.Sprintf("%v without an outage", beforeOutage))
	defer step.Fail()
	before := r.endure(ctx, w, routes, beforeOutage, step)
	out.BeforeP50, out.BeforeP99 = load.Quantile(before.took, 0.5), load.Quantile(before.took, 0.99)
	if n := len(before.failures); n > 0 || before.posts["202"] == 0 {
		return out, fmt.Errorf("%d routes fail although nothing is wrong, and orders are answered %v: %s", n, before.posts, strings.Join(before.failures, "; "))
	}
	step.Done("%v, %d requests to %d routes", before.posts, before.requests, len(routes))

	for edge, p := range r.fabric.proxies {
		if strings.HasSuffix(edge, ">"+part) {
			if err := p.Apply("outage", proxy.Toxic{Down: true}); err != nil {
				return out, err
			}
		}
	}
	if _, err := r.stack.Signal(part, syscall.SIGKILL); err != nil && o.broker() != "external" {
		return out, err
	}
	step = screen.Step(fmt.Sprintf("%v without %s", o.Duration, part))
	defer step.Fail()
	during := r.endure(ctx, w, routes, o.Duration, step)
	out.Seconds, out.Posts, out.Requests, out.Failures = o.Duration.Seconds(), during.posts, during.requests, during.failures
	out.P50, out.P99 = load.Quantile(during.took, 0.5), load.Quantile(during.took, 0.99)
	step.Done("%v, %d requests to routes, %d failed", during.posts, during.requests, len(during.failures))
	if err := ctx.Err(); err != nil {
		return out, err
	}
	out.Unready = r.unready(ctx)

	begin := time.Now()
	if err := r.heal(ctx); err != nil {
		return out, err
	}
	if err := r.log.Close(); err != nil {
		return out, err
	}
	r.log = nil
	if err := r.judge(ctx); err != nil {
		return out, err
	}
	out.RestIn = time.Since(begin).Seconds()
	out.Verdict, out.Why = r.report.Verdict, r.report.Why
	if r.report.Unsettled != "" {
		out.Why += " " + r.report.Unsettled
	}
	return out, nil
}

// endured is what was asked and answered in a time.
type endured struct {
	posts    map[string]int
	took     []float64
	requests int
	failures []string
}

// endure places orders at the rate and asks every route once a second or as fast as they
// answer.
func (r *run) endure(ctx context.Context, w *workload.Workload, routes []route, d time.Duration, step *terminal.Step) endured {
	ctx, stop := context.WithTimeout(ctx, d)
	defer stop()
	e := endured{posts: map[string]int{}}
	var mu sync.Mutex
	var all sync.WaitGroup
	all.Go(func() {
		for ctx.Err() == nil {
			begin := time.Now()
			for _, to := range routes {
				if ctx.Err() != nil {
					return
				}
				status, err := to.ask(context.WithoutCancel(ctx), w.Admin())
				mu.Lock()
				e.requests++
				if why := fmt.Sprintf("%s %s: %d %v", to.method, to.path, status, err); (err != nil || status >= 500) && !slices.Contains(e.failures, why) {
					e.failures = append(e.failures, why)
				}
				mu.Unlock()
			}
			pause(ctx, time.Second-time.Since(begin))
		}
	})
	tick := time.NewTicker(time.Duration(float64(time.Second) / r.o.Rate))
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-tick.C:
		}
		all.Go(func() {
			op := w.PlaceOnce(context.WithoutCancel(ctx))
			mu.Lock()
			defer mu.Unlock()
			answer := "-"
			if op.Status != 0 {
				answer = fmt.Sprint(op.Status)
			}
			e.posts[answer]++
			e.took = append(e.took, op.Done.Sub(op.Invoke).Seconds()*1000)
			if n := len(e.took); n%50 == 0 {
				step.Remark("orders: %v; routes: %d requests, %d failed", e.posts, e.requests, len(e.failures))
			}
		})
	}
	all.Wait()
	slices.Sort(e.took)
	return e
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// route is an operation of the gateway's document.
type route struct{ method, path string }

var parameter = regexp.MustCompile(`\{[^}]*\}`)

// readRoutes lists every operation of GET /openapi.json.
func readRoutes(ctx context.Context, c *client.Client) ([]route, error) {
	var doc struct {
		Paths   map[string]map[string]json.RawMessage `json:"paths"`
		Missing []string                              `json:"x-missing"`
	}
	if err := c.Do(ctx, http.MethodGet, "/openapi.json", nil, &doc); err != nil {
		return nil, err
	}
	if len(doc.Missing) > 0 {
		return nil, fmt.Errorf("the document lacks %v", doc.Missing)
	}
	var routes []route
	for path, operations := range doc.Paths {
		for method := range operations {
			switch method {
			case "get", "put", "post", "delete", "patch":
				routes = append(routes, route{strings.ToUpper(method), parameter.ReplaceAllString(path, "0199a000-0000-7000-8000-000000000000")})
			}
		}
	}
	slices.SortFunc(routes, func(a, b route) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	if len(routes) < 20 {
		return nil, fmt.Errorf("the document has %d operations only", len(routes))
	}
	return routes, nil
}

// routePatience is above the gateway's own 15 to 20 s for a service: what it says about that
// is an answer.
const routePatience = 25 * time.Second

// ask sends the least that the route may be sent. Refusals are answers.
func (to route) ask(ctx context.Context, c *client.Client) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, routePatience)
	defer cancel()
	var in any
	if to.method != http.MethodGet && to.method != http.MethodDelete {
		in = json.RawMessage("{}")
	}
	resp, err := c.Open(ctx, to.method, to.path, nil, in)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 8<<20))
	}
	return resp.StatusCode, err
}

// rig starts a platform for a measurement of its own.
func rig(ctx context.Context, o Options, what string, screen *terminal.Screen) (*run, error) {
	r := &run{o: o, screen: screen}
	r.report = Report{Seed: o.Seed, Commit: commit(ctx, o.Source), Started: time.Now().UTC(), Broker: o.broker(), Replicas: o.Replicas, Rate: o.Rate}
	r.dir = filepath.Join(o.Artefacts, fmt.Sprintf("%s-%s-%s", r.report.Started.Format("20060102-150405"), what, o.broker()))
	r.report.Artefacts = r.dir
	screen.Line("history and logs: %s", r.dir)
	if err := r.makeDir(); err != nil {
		return nil, err
	}
	return r, r.up(ctx)
}
