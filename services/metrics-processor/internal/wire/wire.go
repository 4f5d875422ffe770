// Package wire reads what agents send. A decoder finds where a message names a series and hands those bytes on as they are:
// the aggregator knows them from the last time. Only the first sight of a series is decoded. Measured against the decoders
// of the formats' own projects, which decode every label of every sample, that is several times as fast (bench, peers).
package wire

import (
	"errors"
	"strconv"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
)

// ErrMalformed says that a body cannot be read. What stood before the fault has been taken.
var ErrMalformed = errors.New("malformed")

// The numbers of the formats, unique among all that name series.
const (
	numberStatsD = iota + 1
	numberJSON
	numberJSONCounter
	numberJSONGauge
	numberWrite1
	numberWrite2
	numberOTLP
)

// Decoder reads bodies of one format. It is one goroutine's.
type Decoder interface {
	// Decode takes the samples of a body. When it returns they are aggregated, and body may be used again.
	Decode(body []byte) error
	// Dropped is how many samples were dropped, by reason, since it was last asked.
	Dropped() [len(aggregate.Reasons)]uint64
}

// tens are the powers of ten that a float64 holds exactly.
var tens = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// number reads a decimal number. Up to 15 digits without an exponent are exact by one division; the rest is strconv's.
func number(b []byte) (float64, bool) {
	var m uint64
	point, digits := -1, b
	if len(b) > 0 && b[0] == '-' {
		digits = b[1:]
	}
	if len(digits) > 0 && len(digits) <= 16 {
		for i, c := range digits {
			if d := c - '0'; d <= 9 {
				m = m*10 + uint64(d)
			} else if c == '.' && point < 0 {
				point = i
			} else {
				return slowNumber(b)
			}
		}
		n := len(digits)
		if point >= 0 {
			n--
		}
		if n > 0 && n <= 15 {
			v := float64(m)
			if point >= 0 {
				v /= tens[n-point]
			}
			if len(digits) < len(b) {
				v = -v
			}
			return v, true
		}
	}
	return slowNumber(b)
}

func slowNumber(b []byte) (float64, bool) {
	v, err := strconv.ParseFloat(string(b), 64)
	return v, err == nil || errors.Is(err, strconv.ErrRange)
}
