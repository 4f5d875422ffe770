// Package testkit gives tests the real parts: a PostgreSQL database of their own, a
// Kafka broker in process, a logger that writes to the test. It is a module of its
// own so that no service can link it.
//
// Nothing here sleeps for a fixed time, and everything is undone by t.Cleanup.
package testkit
