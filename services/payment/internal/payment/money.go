package payment

import (
	"errors"
	"strconv"
	"strings"
)

// exponents holds the currencies of ISO 4217 whose minor unit is not a hundredth.
var exponents = map[string]int{
	"BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0, "RWF": 0, "UGX": 0,
	"UYI": 0, "VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
	"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3,
	"CLF": 4, "UYW": 4,
}

// Digits is the number of decimal places of a currency.
func Digits(currency string) int {
	if n, ok := exponents[currency]; ok {
		return n
	}
	return 2
}

// MaxAmount bounds an amount in minor units: sums over 9 million such payments still fit into 64 bits.
const MaxAmount = 1_000_000_000_000

// ErrAmount says that a text is no amount of the currency.
var ErrAmount = errors.New("not an amount")

// ParseAmount reads a decimal in major units, without sign or exponent and with at most the currency's decimal
// places, as minor units.
func ParseAmount(text, currency string) (int64, error) {
	whole, fraction, dotted := strings.Cut(text, ".")
	digits := Digits(currency)
	if whole == "" || (dotted && fraction == "") || len(fraction) > digits || len(whole) > 13 ||
		(len(whole) > 1 && whole[0] == '0') {
		return 0, ErrAmount
	}
	all := whole + fraction + strings.Repeat("0", digits-len(fraction))
	for _, c := range []byte(all) {
		if c < '0' || c > '9' {
			return 0, ErrAmount
		}
	}
	n, err := strconv.ParseInt(all, 10, 64)
	if err != nil || n <= 0 || n > MaxAmount {
		return 0, ErrAmount
	}
	return n, nil
}

// FormatAmount writes minor units as a decimal in major units with all decimal places: 5990 EUR is 59.90.
func FormatAmount(minor int64, currency string) string {
	digits := Digits(currency)
	s := strconv.FormatInt(minor, 10)
	if digits == 0 {
		return s
	}
	if len(s) <= digits {
		s = strings.Repeat("0", digits+1-len(s)) + s
	}
	return s[:len(s)-digits] + "." + s[len(s)-digits:]
}
