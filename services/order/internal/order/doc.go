// Package order holds the rules of an order: what a request must look like, what may happen to an order and where that
// takes it. It does no I/O. The saga is the literal table in lifecycle.go; Next looks into it, and Apply is Next with the
// order's own data: it turns a condition into another event before the table is asked, and keeps what the table
// does not know (reasons, attempts, what became of the goods).
//
//	pending ──▶ paying ──▶ paid ──▶ shipping ──▶ completed
//	   │           │         └────┬────┘
//	   │           │              ▼
//	   │           │          attention ──▶ a person: paid again, cancelling or cancelled
//	   │           ▼              ▲
//	   │       cancelling ────────┘
//	   ▼           ▼
//	failed     cancelled
//
// The whole diagram, rendered from the table, is docs/order-lifecycle.md.
package order
