package stock

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// digits are the minor digits of the currencies of ISO 4217 that have others than two. (The list of 2024; MRU and MGA
// divide by five and are given two, as the standard does.)
var digits = map[string]int{
	"BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0, "RWF": 0, "UGX": 0, "VND": 0, "VUV": 0, "XAF": 0,
	"XOF": 0, "XPF": 0, "BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3,
}

// currencies are the others.
const currencies = "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC CUP CVE CZK " +
	"DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD " +
	"LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG " +
	"SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VES WST XCD YER ZAR ZMW ZWG"

func init() {
	for c := range strings.FieldsSeq(currencies) {
		digits[c] = 2
	}
}

// Digits says how many minor digits a currency has; ok is false for a code that is none.
func Digits(currency string) (n int, ok bool) {
	n, ok = digits[currency]
	return n, ok
}

// What is wrong with a decimal.
var (
	ErrDigits = errors.New("more digits than the currency has")
	ErrRange  = errors.New("out of range")
)

// Minor turns a decimal of major units, as JSON has it, into minor units of the currency.
func Minor(decimal, currency string) (int64, error) {
	n := digits[currency]
	whole, fraction, _ := strings.Cut(decimal, ".")
	if len(fraction) > n {
		return 0, ErrDigits
	}
	v, err := strconv.ParseInt(whole+fraction+strings.Repeat("0", n-len(fraction)), 10, 64)
	if err != nil || v == math.MinInt64 {
		return 0, ErrRange
	}
	return v, nil
}

// Major is the decimal of minor units, with all digits that the currency has.
func Major(minor int64, currency string) string {
	n := digits[currency]
	sign := ""
	if minor < 0 {
		sign, minor = "-", -minor
	}
	s := strconv.FormatInt(minor, 10)
	if n == 0 {
		return sign + s
	}
	if len(s) <= n {
		s = strings.Repeat("0", n+1-len(s)) + s
	}
	return sign + s[:len(s)-n] + "." + s[len(s)-n:]
}
