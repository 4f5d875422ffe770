package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

// maxText bounds names and reasons, in characters.
const maxText = 200

// item is a line of a request or an answer.
type item struct {
	ProductID string `json:"product_id"`
	Quantity  int64  `json:"quantity"`
}

// idRule is told to clients.
const idRule = "1 to 64 of A-Z a-z 0-9 . _ -, not only dots"

// fields gathers what is wrong with a body.
type fields struct{ p *problem.Problem }

func (f *fields) bad(pointer, detail string) {
	if f.p == nil {
		f.p = problem.New(http.StatusUnprocessableEntity, "invalid-field", "A field has a value that is not accepted.")
	}
	f.p = f.p.Field(pointer, detail)
}

func (f *fields) err() error {
	if f.p == nil {
		return nil
	}
	return f.p
}

// id checks an order or product id.
func (f *fields) id(pointer, v string) {
	if !validID(v) {
		f.bad(pointer, idRule)
	}
}

// validID also refuses what is only dots: as a segment of a path it would mean another path.
func validID(v string) bool {
	if len(v) > 64 || strings.Trim(v, ".") == "" {
		return false
	}
	for _, c := range []byte(v) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// text checks a name or a reason that people write and read: no control characters, nothing that turns the direction of
// what follows.
func (f *fields) text(pointer, v string) {
	if strings.TrimSpace(v) == "" {
		f.bad(pointer, "must not be empty")
		return
	}
	if utf8.RuneCountInString(v) > maxText {
		f.bad(pointer, fmt.Sprintf("at most %d characters", maxText))
		return
	}
	for _, c := range v {
		if unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) || c == '\u2028' || c == '\u2029' {
			f.bad(pointer, "contains a character that is not accepted")
			return
		}
	}
}

// items checks and sums the lines of an order.
func (f *fields) items(pointer string, in []item) []stock.Item {
	if len(in) == 0 {
		f.bad(pointer, "at least one item")
		return nil
	}
	out := make([]stock.Item, len(in))
	for i, it := range in {
		f.id(fmt.Sprintf("%s/%d/product_id", pointer, i), it.ProductID)
		if it.Quantity < 1 || it.Quantity > stock.MaxQuantity {
			f.bad(fmt.Sprintf("%s/%d/quantity", pointer, i), fmt.Sprintf("1 to %d", stock.MaxQuantity))
		}
		out[i] = stock.Item{Product: it.ProductID, Quantity: it.Quantity}
	}
	if f.p != nil {
		return nil
	}
	sum, err := stock.Sum(out)
	if err != nil {
		f.bad(pointer, fmt.Sprintf("the quantities of one product add up to more than %d", stock.MaxQuantity))
	}
	return sum
}

func itemsOf(in []stock.Item) []item {
	out := make([]item, len(in))
	for i, it := range in {
		out[i] = item{it.Product, it.Quantity}
	}
	return out
}
