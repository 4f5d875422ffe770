package proxy

import "time"

// Direction is which way of a connection a toxic spoils.
type Direction string

// The directions. Both is what JSON without one means.
const (
	Both      Direction = ""
	Requests  Direction = "requests"  // from the caller to the callee
	Responses Direction = "responses" // back: done, but the caller does not hear of it
)

func (d Direction) covers(way Direction) bool { return d == Both || d == way }

// Toxic is what is wrong with an edge. Its zero value is nothing.
type Toxic struct {
	// Down: nobody listens, and who is connected is reset.
	Down bool `json:"down,omitzero"`
	// Blackhole passes nothing, not even the end of a connection. What was sent meanwhile
	// arrives when it is over, unless the sender has given up: as with lost packets.
	Blackhole bool `json:"blackhole,omitzero"`
	// LatencyMS and JitterMS delay what passes, in order: by LatencyMS and up to JitterMS more.
	LatencyMS int `json:"latency_ms,omitzero"`
	JitterMS  int `json:"jitter_ms,omitzero"`
	// BytesPerSecond bounds each direction of each connection.
	BytesPerSecond int `json:"bytes_per_second,omitzero"`
	// ResetAfterMS resets each connection (RST) so long after the toxic or the connection
	// began, whichever is later.
	ResetAfterMS int `json:"reset_after_ms,omitzero"`
	// LimitBytes ends a connection after so many bytes in a direction, in mid-message.
	LimitBytes int `json:"limit_bytes,omitzero"`
	// SliceBytes passes pieces of at most so many bytes, a millisecond apart.
	SliceBytes int `json:"slice_bytes,omitzero"`
	// Direction is which way suffers; resets and Down do not know directions.
	Direction Direction `json:"direction,omitzero"`
}

// Name is the toxic in a word.
func (t Toxic) Name() string {
	switch {
	case t.Down:
		return "down"
	case t.Blackhole:
		return "blackhole"
	case t.ResetAfterMS > 0:
		return "reset_peer"
	case t.LimitBytes > 0:
		return "limit_data"
	case t.BytesPerSecond > 0:
		return "bandwidth"
	case t.LatencyMS > 0 || t.JitterMS > 0:
		return "latency"
	case t.SliceBytes > 0:
		return "slicer"
	}
	return "none"
}

// mix is what several toxics do together to one direction: each the worst of all.
func mix(toxics map[string]Toxic, way Direction) Toxic {
	var m Toxic
	least := func(a, b int) int {
		if a == 0 || b > 0 && b < a {
			return b
		}
		return a
	}
	for _, t := range toxics {
		m.Down = m.Down || t.Down
		m.ResetAfterMS = least(m.ResetAfterMS, t.ResetAfterMS)
		if !t.Direction.covers(way) {
			continue
		}
		m.Blackhole = m.Blackhole || t.Blackhole
		m.LatencyMS, m.JitterMS = max(m.LatencyMS, t.LatencyMS), max(m.JitterMS, t.JitterMS)
		m.BytesPerSecond = least(m.BytesPerSecond, t.BytesPerSecond)
		m.LimitBytes = least(m.LimitBytes, t.LimitBytes)
		m.SliceBytes = least(m.SliceBytes, t.SliceBytes)
	}
	return m
}

// condition is the state of an edge; another one takes its place when something changes.
type condition struct {
	since     time.Time
	requests  Toxic
	responses Toxic
	changed   chan struct{} // closed then
}

func (c *condition) of(way Direction) Toxic {
	if way == Requests {
		return c.requests
	}
	return c.responses
}
