// Package problem turns errors into RFC 9457 documents and bodies into values, both strictly.
//
// A handler returns an error; Write is the only place where one becomes a response. A *Problem goes out as it is, an error that says
// of itself that something is unavailable becomes 503 with Retry-After, and the rest is a 500 whose body never says
// why: the reason belongs into the log line of the request, which the telemetry middleware writes (it finds the error through the
// response writer, so nothing is logged twice).
//
// Decode refuses what encoding/json lets through and two readers could understand differently: duplicate names, names
// in another case, unknown names, a second value after the first, null, invalid UTF-8, deep nesting.
package problem
