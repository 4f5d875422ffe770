// Package count counts the events of the platform by topic and type. Counts live in memory and begin at 0 with the
// process, as Prometheus expects of counters.
package count

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/stream"
)

// Series is how many events of one type came on one topic.
type Series struct {
	Topic string     `json:"topic"`
	Type  event.Type `json:"type"`
	Count int64      `json:"count"`
}

// Unreadable is the type of records without a usable envelope, and of types that the catalogue does not know: labels come
// from a closed set.
const Unreadable event.Type = "unreadable"

// Counter counts. It is a prometheus.Collector.
type Counter struct {
	mu     sync.Mutex
	series map[key]int64
}

type key struct {
	topic string
	typ   event.Type
}

// New makes a counter that knows every type of the catalogue, so that none is missing while its count is 0.
func New() *Counter {
	c := &Counter{series: map[key]int64{}}
	for _, t := range event.Types() {
		c.series[key{t.Topic(), t}] = 0
	}
	return c
}

// Consume counts a batch of records. It never fails: a record that cannot be read is counted as such.
func (c *Counter) Consume(_ context.Context, batch []stream.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range batch {
		t := Unreadable
		if e, err := stream.DecodeMessage(m); err == nil && e.Type.Topic() == m.Topic {
			t = e.Type
		}
		c.series[key{m.Topic, t}]++
	}
	return nil
}

// All lists the series of a type, or all where it is empty, by topic and type.
func (c *Counter) All(t event.Type) []Series {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := []Series{}
	for k, n := range c.series {
		if t == "" || t == k.typ {
			all = append(all, Series{k.topic, k.typ, n})
		}
	}
	slices.SortFunc(all, func(a, b Series) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Type, b.Type))
	})
	return all
}

var desc = prometheus.NewDesc("waybill_events_total", "Events read from the topics.", []string{"topic", "type"}, nil)

// Describe implements prometheus.Collector.
func (c *Counter) Describe(ch chan<- *prometheus.Desc) { ch <- desc }

// Collect implements prometheus.Collector.
func (c *Counter) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.All("") {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(s.Count), s.Topic, string(s.Type))
	}
}
