// Package aggregate turns samples into windows: per series count, sum, minimum, maximum, last value, rate and quantiles.
//
// Time is cut into panes of equal length. A window is a number of adjacent panes, so tumbling and sliding windows of any
// length are answered from the same state. The watermark is the clock less Options.Lateness: a pane is open until the watermark
// has passed its end, then it is closed and packed into a frame; a sample for a closed pane is late. What happens to a late
// sample is its source's to say: it is dropped, or counted in the oldest pane that is open.
//
// State lies in as many shards as there are processors. A shard has one writer at a time and holds a part of any series;
// reading adds the parts up. A writer takes the shard it used last, or any that is free, for a block of samples, so a
// processor keeps its shard in its cache. In a shard, a series is found by the bytes that name it in a message: they are
// decoded only when they are seen for the first time, and any order of labels leads to the same series. A block goes through
// its steps (slot, key, cell, counter) for all its samples together, because cache misses that overlap cost a tenth of those
// that are waited for one by one.
//
// Memory is bounded by Options: series beyond the budget are counted in overflow series, by metric name; closed panes are
// given up, oldest first, when they take more than HistoryBytes. Every sample that was accepted is either aggregated or
// dropped for one of the Reasons; Ledger adds them up under all locks, so the sum is exact at any time.
package aggregate
