// Package inbox sees to it that what comes in has its effect once: events of the topics, and HTTP requests that carry an
// Idempotency-Key.
//
// # Events
//
// A consumer group keeps one row per key, which is (group, source, subject), with the last sequence that it has applied.
// Consume takes a batch of records through one transaction:
//
//	BEGIN, last sequences                                        one round trip; another where a key is parked, or
//	                                                             has early events
//	the handler's locks and reads                                its own
//	the handler's changes, last sequences, outbox, COMMIT        one round trip
//
// The last sequences are written only where they still are what was read; otherwise the unit fails with 40001 and runs
// again, and sees that another consumer was faster. So a consumer that was stopped and wakes up as a zombie has no effect.
//
//	seq <= last      duplicate: counted and dropped
//	seq == last + 1  applied
//	seq >  last + 1  gap: waits in early_events; after 60 s its key is parked
//
// The first event that a group meets of a key must have sequence 1, or it is a gap as well. Only where the group joined a
// partition whose older records were already deleted (inbox_partitions remembers that) is it taken as the base.
//
// # What goes wrong
//
// Errors that time heals (pg.Retryable, and every error that is not known to be permanent) are returned: the consumer
// pauses and brings the whole batch again. Permanent ones (see Permanent) are bisected down to the event, and that event
// parks its key: it and every later event of the key wait in parked_events, no last sequence is written for them, and
// everything else flows on.
//
//	        permanent error                     redrive: queue empty
//	flowing ---------------> parked (poison) -----------------------> flowing
//	        60 s in a gap                       predecessor came, or discard
//	        ---------------> parked (gap) --------------------------> flowing
//
// Diverting an event holds the row of its key FOR SHARE, closing the key holds it FOR UPDATE, so no event slips between
// the two. A redrive goes by sequence through the same handler with the same events: driving twice changes nothing.
//
// More than 20 keys parked within a minute at one event type are not poison but a bug: Consume refuses from then on and
// Healthy says so, until the process is started again.
//
// # Unordered groups
//
// A group whose handler has its effect once by the event's id, in any order (Options.Unordered), keeps no sequences: the
// handler is all that it costs. What fails for good becomes a dead letter.
//
// # Requests
//
// FindResponses and StoreResponses keep the answers of requests in the transaction of their effect. A concurrent duplicate
// waits those milliseconds for the first one's commit, runs again and finds the answer.
package inbox
