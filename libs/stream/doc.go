// Package stream is Apache Kafka as the platform uses it, behind small types of its own. The client library (sarama)
// appears in no signature, so that it can be changed.
//
// # Producing
//
// Send returns nil when every message is acknowledged by all in-sync replicas. An error says nothing about the single
// message: some may be in the log, so whoever sends again sends all of them again. sarama fails the messages of a batch one
// by one when a leader moves, so a caller that needs order per key puts at most one message of a key into a Send (measured:
// 22 re-ordered keys in 70 broker restarts without that rule, none with it).
//
// # Consuming
//
//	partition 0 --claim--\
//	partition 1 --claim---+--> one worker: batch of at most Max --> handle --> mark offsets --> commit every 500 ms
//	partition 2 --claim--/
//
// One worker takes what waits over all partitions of the member, because a handler's transaction costs round trips, not
// rows. Delivery is at least once: offsets are marked when handle has returned nil, and committed a little later and when
// the session ends. A handler that fails gets the same batch again, after 0.1, 0.5 and 2 s, then with the fetching paused
// and longer pauses up to 30 s. Nothing is ever skipped; what is poison is the handler's to decide (package inbox).
//
// A session ends when members come or go, when the broker is away, or when the watchdog finds a partition that has records
// but yields none (https://github.com/IBM/sarama/issues/3535 and its relatives). Run then joins again. A handler that is in
// the middle of its batch gets five seconds to end.
//
// Producer and Consumer each have a client, and so connections, of their own: on a shared connection the fetch's long poll
// holds up the produce requests behind it (339 instead of 1,260 events a second).
package stream
