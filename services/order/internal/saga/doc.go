// Package saga drives orders. Whatever happens to an order, wherever it comes from, goes through one executor: lock the
// orders by id, ask the table of package order for each fact, write the new states, the lines of the timelines and the
// events that follow, all in one transaction, all as sets.
//
//	HTTP: create, cancel, resolve ──┐
//	Kafka: payments, inventory,     │    lock ▸ Next ▸ guarded UPDATE, history, outbox
//	       shipping (in batches)  ──┼──▶ ─────────────────────────────────────────────
//	inventory's answers (in         │    one transaction for a batch of up to 256 facts
//	       batches of up to 256)  ──┤
//	deadlines                     ──┘
//
// Reserving stock is the one call that the saga makes. It is sent right after the order's commit, from memory, together
// with whatever else waits (Reserver). A time-out says nothing: the order stays pending, and the sweeper has the same
// question asked again, under the same order id, until there is an answer. A crash between the commit and the call is
// the same case.
package saga
