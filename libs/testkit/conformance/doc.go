// Package conformance shows that what a service commits to its outbox has its effect once, in order per key, in every
// reader, whatever happens in between. It is a suite, not a test: Run takes any brokers and a way to restart them.
//
//	replica 1: writers, relay, consumer --\                    /-- kill -9, SIGSTOP
//	replica 2: writers, relay, consumer ---+-- PostgreSQL     +--- backends terminated
//	                                       \-- Kafka          \--- brokers killed and started again
//
// Replicas and the embedded broker are processes, made from the test binary itself, because a goroutine can be neither
// killed nor stopped. Each replica writes transactions over a few hundred aggregates (several aggregates and events in
// each, some of them slow to commit), relays when it has the lock, and consumes its own topic through an inbox into an
// append-only table of effects.
//
// When the faults are over, the aggregates say what was committed. The topic is read from its beginning: every event must
// be there, and the first occurrences of each key must be in sequence. The effects must be the same events, each once, in
// sequence. A run in which no relay was replaced, no duplicate was published or nothing went through the hand-off proves
// nothing and fails too.
//
// Its own test runs it against the embedded broker, about 40 s, and "make conformance-kafka" against Apache Kafka, about
// 150 s: most of them are sessions of killed consumers, which take 8 s to end, and the broker's four starts.
package conformance
