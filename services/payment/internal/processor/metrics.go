package processor

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/waybill-dev/waybill/services/payment/internal/postgres"
	"github.com/waybill-dev/waybill/services/payment/internal/provider"
)

type metrics struct {
	calls    *prometheus.HistogramVec
	outcomes *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer, held func() float64) *metrics {
	f := promauto.With(registry)
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "waybill_payment_jobs_held", Help: "Jobs of the queue in memory, waiting or running."}, held)
	return &metrics{
		calls: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "waybill_payment_provider_call_seconds", Help: "Calls to the payment provider.",
			Buckets: []float64{.002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"call", "outcome"}),
		outcomes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "waybill_payment_notices_total", Help: "Events told about payments, by type.",
		}, []string{"type"}),
	}
}

// count counts what a committed unit has told.
func (m *metrics) count(all postgres.Accounts) {
	for _, a := range all {
		for _, n := range a.Notices {
			m.outcomes.WithLabelValues(string(n.Effect)).Inc()
		}
	}
}

// observe times one call and counts how it ended.
func observe[T any](x *Processor, call string, do func() (T, error)) (T, error) {
	start := time.Now()
	v, err := do()
	outcome := "answered"
	switch {
	case errors.Is(err, provider.ErrNotFound):
		outcome = "not_found"
	case err != nil:
		outcome = "no_answer"
	}
	x.metrics.calls.WithLabelValues(call, outcome).Observe(time.Since(start).Seconds())
	return v, err
}
