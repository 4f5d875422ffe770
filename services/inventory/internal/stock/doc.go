// Package stock holds the rules of the stockroom: what a reservation may become, what an order's items cost, and how one
// decision changes products, ledger and events. It does no I/O: a Book is loaded with locked rows, decides order after
// order in memory, and what it has changed is written back in one go.
//
//	           hold                    lapse
//	(none) ───────────▶ HELD ─────────────────────▶ EXPIRED ─┐
//	   │                │  ▲                                 │
//	   │ pin            │  │ payment failed                  │ paid: taken anew
//	   │    pin, payment│  │                                 │ and confirmed, or
//	   │        started ▼  │        paid        goods back   ▼ an intervention
//	   ├──────────────▶ PINNED ───────────▶ CONFIRMED ───▶ RETURNED
//	   │                │                    ▲
//	   │ release, closed│ closed, abandoned  │ paid
//	   └──────────────▶ RELEASED ────────────┘
//
// HELD expires by itself. PINNED has a payment in flight and no sweeper takes it. RELEASED and EXPIRED are tombstones: a
// reservation that arrives after its release is refused for ever. The literal table is in lifecycle.go.
package stock
