package httpapi

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/platform"
)

const (
	// mostSeries and mostPoints bound an answer.
	mostSeries = 1000
	mostPoints = 10_000
	maxWindow  = 24 * time.Hour
)

// statistics are what can be asked of a window.
var statistics = map[string]func(aggregate.Window) float64{
	"count": func(w aggregate.Window) float64 { return float64(w.Stat.Count) },
	"sum":   func(w aggregate.Window) float64 { return w.Stat.Sum },
	"min":   func(w aggregate.Window) float64 { return w.Stat.Min },
	"max":   func(w aggregate.Window) float64 { return w.Stat.Max },
	"last":  func(w aggregate.Window) float64 { return w.Stat.Last },
	"rate":  func(w aggregate.Window) float64 { return w.Rate },
	"p50":   func(w aggregate.Window) float64 { return w.Stat.Quantile(0.5) },
	"p90":   func(w aggregate.Window) float64 { return w.Stat.Quantile(0.9) },
	"p95":   func(w aggregate.Window) float64 { return w.Stat.Quantile(0.95) },
	"p99":   func(w aggregate.Window) float64 { return w.Stat.Quantile(0.99) },
	// Only sets have it, and of the others only what has a meaning for them.
	"distinct": func(w aggregate.Window) float64 { return w.Stat.Distinct() },
}

var statisticNames = []string{"count", "sum", "min", "max", "last", "rate", "p50", "p90", "p95", "p99", "distinct"}

// has says whether a kind of series has a statistic.
func has(kind aggregate.Kind, statistic string) bool {
	switch statistic {
	case "count", "rate":
		return true
	case "distinct":
		return kind == aggregate.KindSet
	}
	return kind != aggregate.KindSet
}

// question is what GET /query and GET /stream are asked.
type question struct {
	matcher      aggregate.Matcher
	window, step time.Duration
	from, to     time.Time // ends of the first and the last window
	stats        []string
}

type point struct {
	At     time.Time          `json:"at"` // the window's end
	Values map[string]float64 `json:"values"`
}

type seriesAnswer struct {
	Series string            `json:"series"`
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
	Kind   string            `json:"kind"`
	Points []point           `json:"points"`
}

func bad(parameter, format string, args ...any) error {
	detail := fmt.Sprintf(format, args...)
	return problem.New(http.StatusBadRequest, "invalid-field", parameter+" "+detail).Field(parameter, detail)
}

func (h *api) query(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if !q.Has("series") {
		return h.events(w, r)
	}
	if err := problem.Query(r, "series", "window", "step", "from", "to", "stat"); err != nil {
		return err
	}
	ask, err := h.ask(r)
	if err != nil {
		return err
	}
	answer, more := h.answer(ask)
	length, from, to := h.a.Panes()
	return problem.JSON(w, http.StatusOK, map[string]any{
		"window": ask.window.String(), "step": ask.step.String(), "pane": length.String(), "known_from": from.UTC(), "known_to": to.UTC(),
		"truncated": more, "series": answer,
	})
}

// events answers what was asked before there were windows: how many events there are by topic and type.
func (h *api) events(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r, "type"); err != nil {
		return err
	}
	t := event.Type(r.URL.Query().Get("type"))
	if t != "" && t != platform.Unreadable && !slices.Contains(event.Types(), t) {
		return bad("type", "is not in the catalogue")
	}
	type item struct {
		Topic string `json:"topic"`
		Type  string `json:"type"`
		Count int64  `json:"count"`
	}
	items := []item{}
	h.a.Sums(aggregate.Matcher{Name: platform.EventsTotal}, func(s aggregate.Sum) bool {
		x := item{Count: int64(s.Sum)}
		for _, l := range s.Labels {
			switch l.Name {
			case "topic":
				x.Topic = l.Value
			case "type":
				x.Type = l.Value
			}
		}
		if t == "" || x.Type == string(t) {
			items = append(items, x)
		}
		return true
	})
	slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.Topic+" "+a.Type, b.Topic+" "+b.Type) })
	return problem.JSON(w, http.StatusOK, map[string]any{"items": items})
}

func (h *api) ask(r *http.Request) (ask question, err error) {
	q := r.URL.Query()
	pane, _, _ := h.a.Panes()
	if ask.matcher, err = selector(q.Get("series")); err != nil {
		return ask, bad("series", "%v", err)
	}
	duration := func(name string, standard time.Duration) (time.Duration, error) {
		if !q.Has(name) {
			return standard, nil
		}
		d, err := time.ParseDuration(q.Get(name))
		if err != nil || d < pane || d > maxWindow || d%pane != 0 {
			return 0, bad(name, "is a multiple of %v up to %v", pane, maxWindow)
		}
		return d, nil
	}
	if ask.window, err = duration("window", 6*pane); err != nil {
		return ask, err
	}
	if ask.step, err = duration("step", ask.window); err != nil {
		return ask, err
	}
	// The last window ends with the pane that is being filled.
	ask.to = now().Truncate(pane).Add(pane)
	instant := func(name string, standard time.Time) (time.Time, error) {
		if !q.Has(name) {
			return standard, nil
		}
		t, err := time.Parse(time.RFC3339, q.Get(name))
		if err != nil {
			return t, bad(name, "is not an RFC 3339 time")
		}
		return t.Add(pane - 1).Truncate(pane), nil
	}
	if ask.to, err = instant("to", ask.to); err != nil {
		return ask, err
	}
	if ask.from, err = instant("from", ask.to); err != nil {
		return ask, err
	}
	if ask.from.After(ask.to) || ask.to.Sub(ask.from)/ask.step >= mostPoints {
		return ask, bad("from", "is not after to, and at most %d steps before it", mostPoints)
	}
	ask.stats = statisticNames
	if q.Has("stat") {
		ask.stats = strings.Split(q.Get("stat"), ",")
		for _, s := range ask.stats {
			if statistics[s] == nil {
				return ask, bad("stat", "knows %s", strings.Join(statisticNames, ", "))
			}
		}
	}
	return ask, nil
}

func (h *api) answer(ask question) (all []*seriesAnswer, more bool) {
	all = []*seriesAnswer{}
	byName := map[string]*seriesAnswer{}
	points := 0
	for at := ask.from; !at.After(ask.to); at = at.Add(ask.step) {
		h.a.Query(ask.matcher, at.Add(-ask.window), at, func(w aggregate.Window) bool {
			name := w.Identity.String()
			s := byName[name]
			if s == nil {
				if len(all) == mostSeries {
					more = true
					return true
				}
				s = &seriesAnswer{Series: name, Name: w.Name, Labels: map[string]string{}, Kind: w.Kind.String()}
				for _, l := range w.Labels {
					s.Labels[l.Name] = l.Value
				}
				byName[name], all = s, append(all, s)
			}
			if points == mostPoints {
				more = true
				return false
			}
			points++
			p := point{At: at.UTC(), Values: map[string]float64{}}
			for _, name := range ask.stats {
				if !has(w.Kind, name) {
					continue
				}
				if v := statistics[name](w); !math.IsNaN(v) && !math.IsInf(v, 0) {
					p.Values[name] = v
				}
			}
			s.Points = append(s.Points, p)
			return true
		})
	}
	return all, more
}

// selector reads name{label="value",other!="value"}.
func selector(s string) (m aggregate.Matcher, err error) {
	name, rest, found := strings.Cut(s, "{")
	m.Name = strings.TrimSpace(name)
	if !found {
		if m.Name == "" {
			return m, fmt.Errorf("is empty")
		}
		return m, nil
	}
	rest = strings.TrimSpace(rest)
	for !strings.HasPrefix(rest, "}") {
		i := strings.IndexAny(rest, "=!")
		if i <= 0 {
			return m, fmt.Errorf("is not name{label=\"value\"}")
		}
		l := aggregate.LabelMatcher{Label: aggregate.Label{Name: strings.TrimSpace(rest[:i])}}
		if strings.HasPrefix(rest[i:], "!=") {
			l.Not = true
			i++
		}
		quoted, err := strconv.QuotedPrefix(strings.TrimSpace(rest[i+1:]))
		if err != nil {
			return m, fmt.Errorf("has a value without quotes")
		}
		if l.Value, err = strconv.Unquote(quoted); err != nil {
			return m, fmt.Errorf("has a value with bad quotes")
		}
		m.Labels = append(m.Labels, l)
		rest = strings.TrimSpace(strings.TrimSpace(rest[i+1:])[len(quoted):])
		if rest = strings.TrimSpace(strings.TrimPrefix(rest, ",")); rest == "" {
			return m, fmt.Errorf("does not end")
		}
	}
	if rest != "}" {
		return m, fmt.Errorf("goes on after its end")
	}
	return m, nil
}

// stream sends the window that ends now, each second, as server-sent events. An id is the window's end in milliseconds.
func (h *api) stream(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r, "series", "window", "stat"); err != nil {
		return err
	}
	ask, err := h.ask(r)
	if err != nil {
		return err
	}
	out := http.NewResponseController(w)
	_ = out.SetWriteDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	pane, _, _ := h.a.Panes()
	for {
		ask.to = now().Truncate(pane).Add(pane)
		ask.from = ask.to
		answer, more := h.answer(ask)
		text, err := json.Marshal(map[string]any{"window": ask.window.String(), "truncated": more, "series": answer})
		if err != nil {
			return err
		}
		_ = out.SetWriteDeadline(now().Add(10 * time.Second)) // who does not read for so long is gone
		if _, err := fmt.Fprintf(w, "id: %d\nevent: window\ndata: %s\n\n", now().UnixMilli(), text); err != nil {
			return nil
		}
		if err := out.Flush(); err != nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return nil
		case <-h.draining:
			return nil
		}
	}
}
