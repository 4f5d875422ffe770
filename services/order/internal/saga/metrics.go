package saga

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of the saga. Labels come from closed sets: events of the table, outcomes, statuses.
type metrics struct {
	facts    *prometheus.CounterVec
	statuses *prometheus.CounterVec
	asked    *prometheus.CounterVec
	batch    *prometheus.HistogramVec
	overflow prometheus.Counter
	open     *prometheus.GaugeVec
}

type count struct{ event, outcome string }

func newMetrics(r prometheus.Registerer) *metrics {
	with := promauto.With(r)
	return &metrics{
		facts: with.NewCounterVec(prometheus.CounterOpts{Name: "waybill_order_facts_total",
			Help: "What arrived about orders, and what the table made of it: moved, stale, or no_order where the subject is none."}, []string{"event", "outcome"}),
		statuses: with.NewCounterVec(prometheus.CounterOpts{Name: "waybill_order_statuses_total",
			Help: "Orders that came to a status, with the reason."}, []string{"status", "reason"}),
		asked: with.NewCounterVec(prometheus.CounterOpts{Name: "waybill_order_reservations_asked_total",
			Help: "Orders in calls to inventory, by how the call ended."}, []string{"outcome"}),
		// A batch has at most 256.
		batch: with.NewHistogramVec(prometheus.HistogramOpts{Name: "waybill_order_batch_size",
			Help: "Orders that shared a transaction or a call.", Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}}, []string{"step"}),
		overflow: with.NewCounter(prometheus.CounterOpts{Name: "waybill_order_reservations_deferred_total",
			Help: "Reservations that were left to the sweeper because too many waited."}),
		open: with.NewGaugeVec(prometheus.GaugeOpts{Name: "waybill_order_open",
			Help: "Orders that wait for stock or for money."}, []string{"status"}),
	}
}

// count adds up what a committed step did.
func (m *metrics) count(t *step) {
	for _, c := range t.counts {
		m.facts.WithLabelValues(c.event, c.outcome).Inc()
	}
	for _, c := range t.before {
		m.statuses.WithLabelValues(string(c.Status), string(c.Reason)).Inc()
	}
}
