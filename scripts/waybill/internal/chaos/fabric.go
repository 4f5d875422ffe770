package chaos

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/plan"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/proxy"
)

// entry is the edge that the load itself comes by.
const entry = "client>gateway"

// Edges lists every edge of a platform with so many replicas, in an order that stays.
func Edges(replicas int) []string {
	edges := []string{entry}
	for replica := range replicas {
		for _, service := range plan.Services {
			for _, callee := range plan.Calls[service] {
				edges = append(edges, plan.Process(service, replica)+">"+callee)
			}
		}
	}
	for _, callee := range plan.Calls["sandbox"] {
		edges = append(edges, "sandbox>"+callee)
	}
	return edges
}

// Processes lists the programs of ours, the sandbox last.
func Processes(replicas int) []string {
	var all []string
	for replica := range replicas {
		for _, service := range plan.Services {
			all = append(all, plan.Process(service, replica))
		}
	}
	return append(all, "sandbox")
}

// fabric holds a proxy for each edge.
type fabric struct {
	ports   map[string]int
	proxies map[string]*proxy.Proxy
	errs    []error
}

// newFabric gives each edge a port, from base on. They lie below the kernel's range for
// outgoing connections, so that a listener that was closed can be opened again.
func newFabric(base, replicas int) *fabric {
	f := &fabric{ports: map[string]int{}, proxies: map[string]*proxy.Proxy{}}
	for i, edge := range Edges(replicas) {
		f.ports[edge] = base + i
	}
	return f
}

// route is plan.Settings.Route: it opens the edge's proxy when it is asked for the first time.
func (f *fabric) route(process, callee string, at []string) string {
	edge := process + ">" + callee
	if p, ok := f.proxies[edge]; ok {
		return p.Addr
	}
	port, ok := f.ports[edge]
	if !ok {
		f.errs = append(f.errs, fmt.Errorf("there is no edge %s", edge))
		return at[0]
	}
	var options []proxy.Option
	if callee == "kafka" {
		options = append(options, proxy.Kafka())
	}
	p, err := proxy.Listen(edge, net.JoinHostPort(plan.Host, strconv.Itoa(port)), at, options...)
	if err != nil {
		f.errs = append(f.errs, err)
		return at[0]
	}
	f.proxies[edge] = p
	return p.Addr
}

// complete says whether every edge has its proxy.
func (f *fabric) complete() error {
	errs := slices.Clone(f.errs)
	for edge := range f.ports {
		if f.proxies[edge] == nil {
			errs = append(errs, fmt.Errorf("nobody asked for the way of %s", edge))
		}
	}
	return errors.Join(errs...)
}

func (f *fabric) heal() error {
	var errs []error
	for _, p := range f.proxies {
		errs = append(errs, p.Heal())
	}
	return errors.Join(errs...)
}

func (f *fabric) close() {
	for _, p := range f.proxies {
		p.Close()
	}
}
