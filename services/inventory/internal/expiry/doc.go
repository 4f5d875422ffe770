// Package expiry frees stock that nobody will use.
//
// A hold ends by itself when its time is over. A pin has a payment in flight and never does: when it is older than any
// order may take, the order service is asked, and only an order that is dead there loses its pin. What the answer is worth
// is checked again under the row's lock: a reservation that has changed since it was listed is left alone. All times are
// the database's, so replicas with different clocks agree.
//
//	HELD, due_at over      ──▶ EXPIRED, inventory.released
//	PINNED, due_at over    ──▶ GET /orders/{order_id}
//	    failed, cancelled  ──▶ RELEASED, inventory.released
//	    any other status   ──▶ PINNED for another bound
//	    404                ──▶ PINNED for another bound, and a warning: an order is always committed before it reserves, so
//	                           its absence is a fault elsewhere and no reason to give its stock away
//	    no answer          ──▶ asked again by the next sweep
package expiry
