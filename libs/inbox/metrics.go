package inbox

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/waybill-dev/waybill/libs/event"
)

type metrics struct {
	// outcome: applied, ignored (not wanted), duplicate, early, parked, dead. type: of the catalogue, else empty.
	events *prometheus.CounterVec
	// Interventions that wait for a person, by kind.
	open *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer, group string) *metrics {
	labels := prometheus.Labels{"group": group}
	m := &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "waybill_inbox_events_total", ConstLabels: labels,
			Help: "Events read, by what became of them: applied, ignored, duplicate, early, parked, dead.",
		}, []string{"outcome", "type"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "waybill_inbox_interventions_open", ConstLabels: labels,
			Help: "Interventions that wait for a person, by kind.",
		}, []string{"kind"}),
	}
	if r != nil {
		r.MustRegister(m.events, m.open)
	}
	return m
}

// label keeps the series to the catalogue, whatever a record says.
func label(t event.Type) string {
	if t.Topic() == "" {
		return ""
	}
	return string(t)
}

// count adds a batch that is committed.
func (i *Inbox) count(s sorting) {
	type series struct{ outcome, kind string }
	n := map[series]int{}
	for _, e := range s.fresh {
		if i.wants[e.Type] {
			n[series{"applied", label(e.Type)}]++
		} else {
			n[series{"ignored", label(e.Type)}]++
		}
	}
	for outcome, events := range map[string][]event.Event{"duplicate": s.duplicates, "early": s.early, "parked": s.diverted} {
		for _, e := range events {
			n[series{outcome, label(e.Type)}]++
		}
	}
	for s, n := range n {
		i.metrics.events.WithLabelValues(s.outcome, s.kind).Add(float64(n))
	}
}

var tracer = otel.Tracer("github.com/waybill-dev/waybill/libs/inbox")

// trace starts one span for a batch, linked to what caused each of its events. A span per event would cost more than the
// event.
func (i *Inbox) trace(ctx context.Context, events []incoming) (context.Context, func(error)) {
	ctx, span := tracer.Start(ctx, "consume "+i.o.Group, trace.WithSpanKind(trace.SpanKindConsumer))
	if !span.IsRecording() {
		return ctx, func(error) { span.End() }
	}
	span.SetAttributes(attribute.Int("messaging.batch.message_count", len(events)), attribute.String("messaging.consumer.group.name", i.o.Group))
	seen := map[string]bool{}
	for _, e := range events {
		if seen[e.Traceparent] {
			continue
		}
		seen[e.Traceparent] = true
		cause := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": e.Traceparent})
		if sc := trace.SpanContextFromContext(cause); sc.IsValid() {
			span.AddLink(trace.Link{SpanContext: sc})
		}
	}
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}
