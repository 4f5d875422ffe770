package chaos

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// probe adds up counters of all processes over their restarts, as Prometheus' increase()
// does: what a process counted after the last look and before its death is not known.
type probe struct {
	urls map[string]string // admin listeners' /metrics by process

	mu   sync.Mutex
	last map[string]float64 // by process and series
	sum  map[string]float64 // by series, processes added up
}

// wanted are the counters that gates and reports ask for.
var wanted = []string{
	"waybill_outbox_relay_takeovers_total", "waybill_outbox_relay_evictions_total", "waybill_inbox_events_total",
	"waybill_inventory_reservations_total", "waybill_stream_stalls_total", "waybill_stream_sessions_total",
}

const (
	probeEvery  = 2 * time.Second
	probeWithin = time.Second
)

func newProbe(ready map[string]string) *probe {
	p := &probe{urls: map[string]string{}, last: map[string]float64{}, sum: map[string]float64{}}
	for name, url := range ready {
		if name != "sandbox" {
			p.urls[name] = strings.TrimSuffix(url, "/readyz") + "/metrics"
		}
	}
	return p
}

func (p *probe) run(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		p.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look asks each once, one after the other: it must cost little.
func (p *probe) look(ctx context.Context) {
	for process, url := range p.urls {
		ctx, cancel := context.WithTimeout(ctx, probeWithin)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err == nil {
			if resp, err := http.DefaultClient.Do(req); err == nil {
				p.read(process, resp.Body)
				resp.Body.Close()
			}
		}
		cancel()
	}
}

func (p *probe) read(process string, text io.Reader) {
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		line := lines.Text()
		for _, name := range wanted {
			rest, ok := strings.CutPrefix(line, name)
			if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
				continue
			}
			i := strings.LastIndexByte(line, ' ')
			v, err := strconv.ParseFloat(line[i+1:], 64)
			if err != nil {
				continue
			}
			p.add(process, line[:i], v)
		}
	}
}

func (p *probe) add(process, series string, v float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := process + " " + series
	if last := p.last[key]; v >= last {
		p.sum[series] += v - last
	} else { // it began anew
		p.sum[series] += v
	}
	p.last[key] = v
}

// total adds up the series of a counter whose labels contain all of these texts.
func (p *probe) total(name string, labels ...string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := 0.0
series:
	for series, v := range p.sum {
		if rest, ok := strings.CutPrefix(series, name); !ok || rest != "" && rest[0] != '{' {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(series, label) {
				continue series
			}
		}
		sum += v
	}
	return int64(sum)
}
