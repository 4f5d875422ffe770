// Package telemetry gives a process its logger, metrics registry and traces, and a server its middleware.
//
// Trace ids exist in every process: they tie log lines, problem documents and events together. Where OTLP_ENDPOINT is
// unset nothing records spans, but ids are made, inherited and passed on all the same (see ids.go), so a log line of notification can be
// found by the id that the gateway gave the order.
//
// The middleware is on the hot path: one allocation for its state, one for the context, a histogram look-up, and a log line
// only for the first successes of each second (errors are always logged).
package telemetry
