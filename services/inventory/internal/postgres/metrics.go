package postgres

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

// metrics count decisions that were committed.
type metrics struct {
	reservations *prometheus.CounterVec
	facts        *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	f := promauto.With(reg)
	return metrics{
		reservations: f.NewCounterVec(prometheus.CounterOpts{
			Name: "waybill_inventory_reservations_total", Help: "Reservations that were asked for, by outcome.",
		}, []string{"outcome", "reason"}),
		facts: f.NewCounterVec(prometheus.CounterOpts{
			Name: "waybill_inventory_facts_total", Help: "Facts about orders that were applied, by what they did.",
		}, []string{"fact", "effect"}),
	}
}

func (m metrics) asked(replies []Reply) {
	for _, r := range replies {
		if r.Replayed == nil && r.Err == nil {
			m.reservations.WithLabelValues(string(r.Outcome), r.Reason).Inc()
		}
	}
}

func (m metrics) settled(news []stock.News, settled []stock.Settlement) {
	for i, n := range news {
		effect := "none"
		switch s := settled[i]; {
		case s.Foreign:
			effect = "foreign"
		case len(s.Short) > 0:
			effect = "short"
		case s.Verdict == stock.Moves:
			effect = "moved"
		case s.Verdict == stock.Refused:
			effect = "refused"
		}
		m.facts.WithLabelValues(string(n.Fact), effect).Inc()
	}
}
