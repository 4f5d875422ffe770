package telemetry

import (
	"context"
	"encoding/binary"
	"math/rand/v2"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
)

// idProvider is a tracer provider that records nothing and yet gives every span an id. OpenTelemetry's own no-op provider
// keeps a parent's context but never starts a trace, so that a request without traceparent would stay without an id.
type idProvider struct{ embedded.TracerProvider }

func (idProvider) Tracer(string, ...trace.TracerOption) trace.Tracer { return idTracer{} }

type idTracer struct{ embedded.Tracer }

// Start makes a span of ids only, in its parent's trace if it has one. The ids name things; they are no secrets, so the
// runtime's ChaCha8 is random enough and needs no system call.
func (idTracer) Start(ctx context.Context, _ string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	var c trace.SpanContextConfig
	if parent := trace.SpanContextFromContext(ctx); parent.IsValid() {
		if start := trace.NewSpanStartConfig(opts...); !start.NewRoot() {
			c.TraceID, c.TraceFlags, c.TraceState = parent.TraceID(), parent.TraceFlags(), parent.TraceState()
		}
	}
	for !c.TraceID.IsValid() {
		binary.LittleEndian.PutUint64(c.TraceID[:8], rand.Uint64())
		binary.LittleEndian.PutUint64(c.TraceID[8:], rand.Uint64())
	}
	for !c.SpanID.IsValid() {
		binary.LittleEndian.PutUint64(c.SpanID[:], rand.Uint64())
	}
	ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(c))
	return ctx, trace.SpanFromContext(ctx)
}
