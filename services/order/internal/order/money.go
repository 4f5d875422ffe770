package order

import (
	"errors"
	"math/bits"
	"strconv"
)

// MaxAmount of one order in minor units: ten billion in most currencies, and far from where sums overflow.
const MaxAmount = 1_000_000_000_000

// ErrNotANumber says that a JSON value is not a plain decimal.
var ErrNotANumber = errors.New("not a plain decimal number")

// Decimal is an amount as JSON has it: digits, perhaps a point and more digits. What it is in minor units depends on the
// currency, which may stand later in the document.
type Decimal string

// UnmarshalJSON takes a JSON number without exponent and at most 15 digits, which every reader of JSON keeps exactly.
func (d *Decimal) UnmarshalJSON(b []byte) error {
	digits, point := 0, false
	for i, c := range b {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c == '-' && i == 0:
		case c == '.' && !point:
			point = true
		default:
			return ErrNotANumber
		}
	}
	if digits == 0 || digits > 15 {
		return ErrNotANumber
	}
	*d = Decimal(b)
	return nil
}

// MarshalJSON writes the number.
func (d Decimal) MarshalJSON() ([]byte, error) { return []byte(d), nil }

// The ways in which an amount can be wrong.
var (
	errDigits   = errors.New("more decimal digits than the currency has")
	errPositive = errors.New("must be more than 0")
	errTooMuch  = errors.New("too much")
)

// Minor is the amount in minor units of a currency with that many digits.
func (d Decimal) Minor(digits int) (int64, error) {
	if d == "" || d[0] == '-' {
		return 0, errPositive
	}
	whole, fraction := string(d), ""
	for i := range len(d) {
		if d[i] == '.' {
			whole, fraction = string(d[:i]), string(d[i+1:])
			break
		}
	}
	if len(fraction) > digits {
		return 0, errDigits
	}
	for len(fraction) < digits {
		fraction += "0"
	}
	n, err := strconv.ParseInt(whole+fraction, 10, 64)
	switch {
	case err != nil || n > MaxAmount:
		return 0, errTooMuch
	case n <= 0:
		return 0, errPositive
	}
	return n, nil
}

// Major writes minor units of a currency as a decimal, with all of the currency's digits.
func Major(minor int64, currency string) Decimal {
	digits := currencies[currency]
	s := strconv.FormatInt(minor, 10)
	if digits == 0 {
		return Decimal(s)
	}
	sign := ""
	if minor < 0 {
		sign, s = "-", s[1:]
	}
	for len(s) <= digits {
		s = "0" + s
	}
	return Decimal(sign + s[:len(s)-digits] + "." + s[len(s)-digits:])
}

// Sum adds the quantities of equal products up, keeping the order in which they first came. It reports the index of the
// first item whose quantity takes its product above max.
func Sum(items []Item, max int64) (sum []Item, over int) {
	at := make(map[string]int, len(items))
	for i, it := range items {
		j, known := at[it.ProductID]
		if !known {
			j = len(sum)
			at[it.ProductID] = j
			sum = append(sum, Item{ProductID: it.ProductID})
		}
		total, carry := bits.Add64(uint64(sum[j].Quantity), uint64(it.Quantity), 0)
		if carry != 0 || total > uint64(max) {
			return nil, i
		}
		sum[j].Quantity = int64(total)
	}
	return sum, -1
}
