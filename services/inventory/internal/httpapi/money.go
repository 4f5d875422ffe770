package httpapi

import (
	"net/http"

	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

// decimal is a JSON number of major units, kept as text: a float64 cannot hold 29.95.
type decimal string

// MarshalJSON writes the number.
func (d decimal) MarshalJSON() ([]byte, error) {
	if d == "" {
		return []byte("0"), nil
	}
	return []byte(d), nil
}

// UnmarshalJSON takes a plain number: no quotes, no exponent.
func (d *decimal) UnmarshalJSON(b []byte) error {
	for i, c := range b {
		if (c < '0' || c > '9') && c != '.' && (c != '-' || i > 0) {
			return problem.New(http.StatusBadRequest, "invalid-type", "a decimal number without exponent is expected")
		}
	}
	if len(b) > 24 { // more digits than int64 has in any currency
		return problem.New(http.StatusBadRequest, "invalid-type", "the number is too long")
	}
	*d = decimal(b)
	return nil
}

func money(minor int64, currency string) decimal { return decimal(stock.Major(minor, currency)) }
