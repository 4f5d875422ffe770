package outbox

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	rows, events, oldest, active              prometheus.Gauge // of the replica that relays
	publish, batch                            prometheus.Histogram
	published, failures, takeovers, evictions prometheus.Counter
	handed, read                              prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "waybill_outbox_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "waybill_outbox_" + name, Help: help})
	}
	histogram := func(name, help string, buckets ...float64) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Name: "waybill_outbox_" + name, Help: help, Buckets: buckets})
	}
	rows := f.NewCounterVec(prometheus.CounterOpts{
		Name: "waybill_outbox_relayed_rows_total", Help: "Rows that the relay took, by origin: handed over in memory, or read from the table.",
	}, []string{"origin"})
	return &metrics{
		handed: rows.WithLabelValues("handed"), read: rows.WithLabelValues("read"),
		rows:      gauge("unpublished_rows", "Rows that are not marked as published; counted up to 50,000."),
		events:    gauge("unpublished_events", "Events of those rows."),
		oldest:    gauge("oldest_unpublished_seconds", "Age of the oldest of those rows."),
		active:    gauge("relay_active", "1 in the replica that relays."),
		publish:   histogram("publish_seconds", "Time from the making of an event to its acknowledgement.", .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60, 600),
		batch:     histogram("batch_events", "Events sent at once.", 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
		published: counter("published_events_total", "Events acknowledged, duplicates included."),
		failures:  counter("send_failures_total", "Batches that were not acknowledged; everything is read again."),
		takeovers: counter("relay_takeovers_total", "Times that this replica became the relay."),
		evictions: counter("relay_evictions_total", "Relays that this replica found paused and took the lock from."),
	}
}
