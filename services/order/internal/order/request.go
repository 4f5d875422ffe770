package order

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/mail"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxItems is how many items a request may have, before equal products are summed.
	MaxItems = 100
	// MaxQuantity of one product.
	MaxQuantity = 10_000
	// DefaultCurrency is meant where a request names none.
	DefaultCurrency = "EUR"
	maxID           = 64
)

// methods are the payment methods: `card`, and the provider sandbox's test values.
var methods = map[string]bool{
	"card": true, "card_declined": true, "card_flaky": true, "card_down": true, "card_timeout": true, "card_slow": true,
}

// Request is what a client wants to order, before anything was checked.
type Request struct {
	OrderID  string // empty: the service makes one
	Amount   Decimal
	Currency string
	Method   string
	Email    string
	Items    []Item
	Address  *Address
}

// Field says what is wrong with a member of a request.
type Field struct{ Pointer, Detail string }

// Invalid is a request that was understood and is refused.
type Invalid struct {
	Slug   string // kind of the refusal: invalid-field, address-invalid, too-many-items, pan-not-allowed
	Fields []Field
}

func (e *Invalid) Error() string { return fmt.Sprintf("%s: %v", e.Slug, e.Fields) }

// complaints collects what is wrong.
type complaints struct {
	fields            []Field
	address, pan, all int
}

func (c *complaints) add(pointer, detail string) {
	c.all++
	if strings.HasPrefix(pointer, "/address") {
		c.address++
	}
	if len(c.fields) < 20 { // more would not help anyone
		c.fields = append(c.fields, Field{pointer, detail})
	}
}

func (c *complaints) card(pointer string) {
	c.pan++
	c.add(pointer, "looks like a card number")
}

func (c *complaints) err() error {
	switch {
	case c.all == 0:
		return nil
	case c.pan > 0:
		return &Invalid{"pan-not-allowed", c.fields}
	case c.address == c.all:
		return &Invalid{"address-invalid", c.fields}
	}
	return &Invalid{"invalid-field", c.fields}
}

// Check makes an order of a request, or says as *Invalid all that is wrong with it. The order has no owner, no times and,
// where the request names none, no id yet.
func (r *Request) Check() (*Order, error) {
	if len(r.Items) > MaxItems {
		return nil, &Invalid{"too-many-items", []Field{{"/items", "at most " + strconv.Itoa(MaxItems) + " items"}}}
	}
	var c complaints
	o := &Order{ID: r.OrderID, Currency: r.Currency, Method: r.Method, Email: r.Email, Status: Pending}
	if r.OrderID != "" && !ValidID(r.OrderID) {
		c.add("/order_id", "1 to 64 of letters, digits, '.', '_' and '-', not only dots")
	}
	if o.Currency == "" {
		o.Currency = DefaultCurrency
	}
	digits, known := currencies[o.Currency]
	if !known {
		c.add("/currency", "not an ISO 4217 code")
		digits = 2
	}
	var err error
	if r.Amount == "" {
		c.add("/amount", "is required")
	} else if o.Amount, err = r.Amount.Minor(digits); err != nil {
		c.add("/amount", err.Error())
	}
	switch {
	case r.Method == "":
		c.add("/payment_method", "is required")
	case !methods[r.Method]:
		c.add("/payment_method", "not a known payment method")
	}
	if r.Email != "" && !validEmail(r.Email) {
		c.add("/email", "not an e-mail address")
	}
	o.Items = r.items(&c)
	r.address(&c)
	r.cards(&c)
	if err := c.err(); err != nil {
		return nil, err
	}
	if len(o.Items) > 0 {
		a := *r.Address
		o.Address = &a
	}
	o.Fingerprint = r.fingerprint(o)
	return o, nil
}

func (r *Request) items(c *complaints) []Item {
	before := c.all
	for i, it := range r.Items {
		at := "/items/" + strconv.Itoa(i)
		if !ValidID(it.ProductID) {
			c.add(at+"/product_id", "1 to 64 of letters, digits, '.', '_' and '-', not only dots")
		}
		if it.Quantity < 1 || it.Quantity > MaxQuantity {
			c.add(at+"/quantity", "1 to "+strconv.Itoa(MaxQuantity))
		}
	}
	if c.all > before {
		return nil
	}
	sum, over := Sum(r.Items, MaxQuantity)
	if over >= 0 {
		c.add("/items/"+strconv.Itoa(over)+"/quantity", "at most "+strconv.Itoa(MaxQuantity)+" of one product")
	}
	return sum
}

func (r *Request) address(c *complaints) {
	switch {
	case r.Address != nil:
		for _, f := range r.Address.Check() {
			c.add("/address"+f.Pointer, f.Detail)
		}
	case len(r.Items) > 0:
		c.add("/address", "is required with items")
	}
}

// Check says what is wrong with an address; pointers are relative to it.
func (a *Address) Check() []Field {
	var out []Field
	add := func(pointer, detail string) { out = append(out, Field{pointer, detail}) }
	for _, f := range []struct {
		pointer, value string
		max            int
		required       bool
	}{
		{"/name", a.Name, 100, true}, {"/line1", a.Line1, 100, true}, {"/line2", a.Line2, 100, false},
		{"/city", a.City, 100, true}, {"/region", a.Region, 100, false},
	} {
		switch {
		case f.required && strings.TrimSpace(f.value) == "":
			add(f.pointer, "is required")
		case utf8.RuneCountInString(f.value) > f.max:
			add(f.pointer, "at most "+strconv.Itoa(f.max)+" characters")
		case !printable(f.value):
			add(f.pointer, "has characters that cannot be printed on a label")
		}
	}
	switch {
	case a.Country == "":
		add("/country", "is required")
	case !countries[a.Country]:
		add("/country", "not an ISO 3166-1 alpha-2 code")
	case !postalCodeFits(a.Country, a.PostalCode):
		add("/postal_code", "not a postal code of "+a.Country)
	}
	return out
}

// printable refuses control and format characters: line breaks that forge log lines, marks that turn the direction of a
// name around.
func printable(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || !(unicode.IsPrint(r)) {
			return false
		}
	}
	return true
}

// cards refuses card numbers in whatever a client could write one into.
func (r *Request) cards(c *complaints) {
	for _, f := range []struct{ pointer, value string }{
		{"/order_id", r.OrderID}, {"/payment_method", r.Method}, {"/currency", r.Currency}, {"/amount", string(r.Amount)},
	} {
		if isPAN(f.value) {
			c.card(f.pointer)
		}
	}
	for i, it := range r.Items {
		if isPAN(it.ProductID) {
			c.card("/items/" + strconv.Itoa(i) + "/product_id")
		}
	}
	if carriesPAN(r.Email) {
		c.card("/email")
	}
	if r.Address != nil {
		for _, f := range r.Address.cards() {
			c.card("/address" + f)
		}
	}
}

// cards names the members that hold a card number.
func (a *Address) cards() (pointers []string) {
	for _, f := range []struct{ pointer, value string }{
		{"/name", a.Name}, {"/line1", a.Line1}, {"/line2", a.Line2}, {"/city", a.City}, {"/region", a.Region}, {"/postal_code", a.PostalCode},
	} {
		if carriesPAN(f.value) {
			pointers = append(pointers, f.pointer)
		}
	}
	return pointers
}

// CheckAddress is for an address that comes alone, with a person's decision.
func CheckAddress(a *Address) error {
	var c complaints
	for _, f := range a.Check() {
		c.add("/address"+f.Pointer, f.Detail)
	}
	for _, p := range a.cards() {
		c.card("/address" + p)
	}
	return c.err()
}

// CheckNote is for the free text that a person gives as a reason.
func CheckNote(s string) error {
	var c complaints
	switch {
	case strings.TrimSpace(s) == "":
		c.add("/reason", "is required")
	case utf8.RuneCountInString(s) > 500:
		c.add("/reason", "at most 500 characters")
	case !printable(s):
		c.add("/reason", "has characters that cannot be printed")
	case carriesPAN(s):
		c.card("/reason")
	}
	return c.err()
}

// ValidID says that an id of an order or a product has its shape: 1 to 64 of [A-Za-z0-9._-]. Only dots would be a way, not
// a name, in the path of a URL.
func ValidID(s string) bool {
	if len(s) < 1 || len(s) > maxID {
		return false
	}
	dots := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			dots++
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return dots < len(s)
}

func validEmail(s string) bool {
	if len(s) > 254 || !printable(s) || strings.ContainsAny(s, " <>,;\"") {
		return false
	}
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s {
		return false
	}
	local, host, _ := strings.Cut(s, "@")
	return len(local) <= 64 && host != "" && !strings.HasPrefix(host, "[")
}

// fingerprint is equal for two requests that mean the same: it is taken of the checked values, each with its length.
func (r *Request) fingerprint(o *Order) [32]byte {
	var b []byte
	text := func(ss ...string) {
		for _, s := range ss {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
	}
	text("POST /orders v1", r.OrderID, o.Currency, o.Method, o.Email)
	b = binary.AppendVarint(b, o.Amount)
	b = binary.AppendUvarint(b, uint64(len(o.Items)))
	for _, it := range o.Items {
		text(it.ProductID)
		b = binary.AppendVarint(b, it.Quantity)
	}
	if a := r.Address; a != nil {
		text(a.Name, a.Line1, a.Line2, a.City, a.Region, a.PostalCode, a.Country)
	}
	return sha256.Sum256(b)
}
