package telemetry

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Config names the process and where its telemetry goes.
type Config struct {
	Service      string
	LogLevel     string // debug, info, warn, error; empty is info
	OTLPEndpoint string // URL of an OTLP/HTTP collector; empty: ids only
}

// Telemetry is what a process logs, counts and traces with.
type Telemetry struct {
	Log      *zap.Logger
	Registry *prometheus.Registry
	tracer   trace.Tracer
	requests *zap.Logger // Log, sampled for the lines of successful requests
	duration *prometheus.HistogramVec
	shutdown func(context.Context) error
}

// New starts telemetry. It sets OpenTelemetry's global tracer provider, because a span is started by packages that
// know nothing of this one.
func New(ctx context.Context, c Config) (*Telemetry, error) {
	level := zapcore.InfoLevel
	if c.LogLevel != "" {
		if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
			return nil, fmt.Errorf("read LOG_LEVEL: %w", err)
		}
	}
	t := build(newLog(c.Service, level))
	var provider trace.TracerProvider = idProvider{}
	if c.OTLPEndpoint != "" {
		exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(c.OTLPEndpoint))
		if err != nil {
			return nil, fmt.Errorf("open OTLP exporter: %w", err)
		}
		p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter),
			sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", c.Service))))
		provider, t.shutdown = p, p.Shutdown
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { t.Log.Warn("export traces", zap.Error(err)) }))
	}
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	t.tracer = provider.Tracer("waybill")
	return t, nil
}

// Discard is telemetry for tests: a given logger, a registry of its own, trace ids, no globals.
func Discard(log *zap.Logger) *Telemetry {
	t := build(log)
	t.tracer = idProvider{}.Tracer("waybill")
	return t
}

func build(log *zap.Logger) *Telemetry {
	t := &Telemetry{
		Log:      log,
		Registry: prometheus.NewRegistry(),
		shutdown: func(context.Context) error { return nil },
	}
	// 20 successes a second say what goes on; at 1,600 orders/s a line for each would cost 2 % of a core and a disk.
	t.requests = log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(c, time.Second, 20, 1000)
	}))
	t.duration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "waybill_http_request_duration_seconds",
		Help: "Time from a request's headers to the end of its answer, by route pattern.",
		// From a cache hit to the write time-out.
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"method", "route", "code"})
	t.Registry.MustRegister(t.duration,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return t
}

func newLog(service string, level zapcore.Level) *zap.Logger {
	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey, enc.MessageKey = "time", "message"
	enc.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	enc.EncodeDuration = zapcore.SecondsDurationEncoder
	core := zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.Lock(os.Stderr), level)
	return zap.New(core, zap.AddStacktrace(zapcore.DPanicLevel)).With(zap.String("service", service))
}

// Shutdown sends what spans are left, within ctx.
func (t *Telemetry) Shutdown(ctx context.Context) {
	if err := t.shutdown(ctx); err != nil {
		t.Log.Warn("flush traces", zap.Error(err))
	}
	_ = t.Log.Sync() // a terminal or pipe cannot be synced; what was written is out already
}

// Log is log with the trace id of ctx.
func Log(ctx context.Context, log *zap.Logger) *zap.Logger {
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		return log.With(zap.String("trace_id", sc.TraceID().String()))
	}
	return log
}
