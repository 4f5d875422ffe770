// Package recount compares what should be on the shelf with what is: a stock-take against the system's stock, and the
// ledger against the rows that it explains.
//
// A stock-take says what was counted, and when. Orders go on meanwhile, so a count is compared with the stock of its own
// moment: on_hand now, less what the ledger has moved since. The difference is booked on today's stock, with a reason.
package recount
