//go:build race

package aggregate

// overread is off: the race detector rightly minds reads of a neighbour's bytes.
const overread = false
