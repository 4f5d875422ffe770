package stream

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type producerMetrics struct{ sent, errors prometheus.Counter }

func newProducerMetrics(r prometheus.Registerer) *producerMetrics {
	f := promauto.With(r)
	return &producerMetrics{
		sent: f.NewCounter(prometheus.CounterOpts{
			Name: "waybill_stream_sent_messages_total", Help: "Messages acknowledged by all in-sync replicas.",
		}),
		errors: f.NewCounter(prometheus.CounterOpts{
			Name: "waybill_stream_send_errors_total", Help: "Sends that were not acknowledged as a whole.",
		}),
	}
}

type consumerMetrics struct {
	batch, handle, delay        prometheus.Histogram
	failures, sessions, rejoins prometheus.Counter
	paused                      prometheus.Gauge
	lag                         *prometheus.GaugeVec
}

func newConsumerMetrics(r prometheus.Registerer, group string) *consumerMetrics {
	f := promauto.With(r)
	labels := prometheus.Labels{"group": group}
	return &consumerMetrics{
		batch: f.NewHistogram(prometheus.HistogramOpts{
			Name: "waybill_stream_batch_messages", ConstLabels: labels, Help: "Messages handed to the handler at once.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 1024},
		}),
		handle: f.NewHistogram(prometheus.HistogramOpts{
			Name: "waybill_stream_handle_seconds", ConstLabels: labels, Help: "Time a handler took for a batch, failed ones included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30},
		}),
		delay: f.NewHistogram(prometheus.HistogramOpts{
			Name: "waybill_stream_delay_seconds", ConstLabels: labels, Help: "Age of a batch's first message when its handler began.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60, 600},
		}),
		failures: f.NewCounter(prometheus.CounterOpts{
			Name: "waybill_stream_handle_failures_total", ConstLabels: labels, Help: "Batches that a handler failed on; each is tried again.",
		}),
		sessions: f.NewCounter(prometheus.CounterOpts{
			Name: "waybill_stream_sessions_total", ConstLabels: labels, Help: "Times that the group was joined.",
		}),
		rejoins: f.NewCounter(prometheus.CounterOpts{
			Name: "waybill_stream_stalls_total", ConstLabels: labels, Help: "Sessions that the watchdog ended because a partition with records yielded none.",
		}),
		paused: f.NewGauge(prometheus.GaugeOpts{
			Name: "waybill_stream_paused", ConstLabels: labels, Help: "1 while fetching is paused because the handler keeps failing.",
		}),
		lag: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "waybill_stream_lag_messages", ConstLabels: labels, Help: "Messages of a partition that are not handled yet.",
		}, []string{"topic", "partition"}),
	}
}
