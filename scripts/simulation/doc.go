// Package simulation runs the platform's rules against a bad world, thousands of times a minute.
//
// The rules are the services' own code, reached by symbolic links under internal/: the order's table, the stock book, the
// payment account, the shipment's order of states, the relay's memory and the inbox's decision by sequence. Around them
// is a model: databases that are maps, transactions that fail before or after their commit, a network that loses, delays
// and repeats calls, a broker whose producers are told the wrong thing, processes that die at any step and start again.
// Provider and carrier do what they were asked and answer something else.
//
// A run is a function of its seed: one goroutine, one clock, one source of chance. It ends when the faults have stopped
// and nothing moves any more; then money, stock, sagas and sequences must be where the books of provider and carrier
// say (check.go). A seed that found something stays in testdata/seeds.
package simulation
