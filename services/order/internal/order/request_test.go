package order

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func valid() Request {
	return Request{
		OrderID: "o-1", Amount: "59.90", Method: "card", Email: "a@example.com",
		Items:   []Item{{"sku-0001", 2}},
		Address: &Address{Name: "A. Buyer", Line1: "1 Main St", City: "Berlin", PostalCode: "10115", Country: "DE"},
	}
}

func TestAnOrderIsMadeOfAValidRequest(t *testing.T) {
	r := valid()
	r.Items = []Item{{"sku-2", 1}, {"sku-1", 2}, {"sku-2", 3}}
	o, err := r.Check()
	if err != nil {
		t.Fatal(err)
	}
	want := &Order{ID: "o-1", Amount: 5990, Currency: "EUR", Method: "card", Email: "a@example.com", Status: Pending,
		Items: []Item{{"sku-2", 4}, {"sku-1", 2}}, Address: r.Address, Fingerprint: o.Fingerprint}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Errorf("want - got +\n%s", diff)
	}
}

func TestTheMinimalRequestIsValid(t *testing.T) {
	r := Request{OrderID: "o-1", Amount: "5", Method: "card"}
	o, err := r.Check()
	if err != nil || o.Amount != 500 || o.Currency != "EUR" || len(o.Items) != 0 || o.Address != nil {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestRefusedRequests(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*Request)
		slug    string
		pointer string
	}{
		"id of other characters":   {func(r *Request) { r.OrderID = "o 1" }, "invalid-field", "/order_id"},
		"id with a slash":          {func(r *Request) { r.OrderID = "a/b" }, "invalid-field", "/order_id"},
		"id of dots":               {func(r *Request) { r.OrderID = ".." }, "invalid-field", "/order_id"},
		"id too long":              {func(r *Request) { r.OrderID = strings.Repeat("x", 65) }, "invalid-field", "/order_id"},
		"no amount":                {func(r *Request) { r.Amount = "" }, "invalid-field", "/amount"},
		"amount of nothing":        {func(r *Request) { r.Amount = "0" }, "invalid-field", "/amount"},
		"negative amount":          {func(r *Request) { r.Amount = "-1" }, "invalid-field", "/amount"},
		"too many digits":          {func(r *Request) { r.Amount = "1.001" }, "invalid-field", "/amount"},
		"digits of a yen":          {func(r *Request) { r.Currency, r.Amount = "JPY", "1.5" }, "invalid-field", "/amount"},
		"too much":                 {func(r *Request) { r.Amount = "10000000000.01" }, "invalid-field", "/amount"},
		"currency unknown":         {func(r *Request) { r.Currency = "XXX" }, "invalid-field", "/currency"},
		"currency in small":        {func(r *Request) { r.Currency = "eur" }, "invalid-field", "/currency"},
		"no method":                {func(r *Request) { r.Method = "" }, "invalid-field", "/payment_method"},
		"method unknown":           {func(r *Request) { r.Method = "cash" }, "invalid-field", "/payment_method"},
		"e-mail without host":      {func(r *Request) { r.Email = "a@" }, "invalid-field", "/email"},
		"e-mail with a name":       {func(r *Request) { r.Email = "A <a@example.com>" }, "invalid-field", "/email"},
		"e-mail with a line break": {func(r *Request) { r.Email = "a@example.com\r\nBcc: b@example.com" }, "invalid-field", "/email"},
		"two e-mails":              {func(r *Request) { r.Email = "a@example.com,b@example.com" }, "invalid-field", "/email"},
		"no quantity":              {func(r *Request) { r.Items[0].Quantity = 0 }, "invalid-field", "/items/0/quantity"},
		"quantity too large":       {func(r *Request) { r.Items[0].Quantity = 10_001 }, "invalid-field", "/items/0/quantity"},
		"quantities too large":     {func(r *Request) { r.Items = []Item{{"a", 9_999}, {"b", 1}, {"a", 2}} }, "invalid-field", "/items/2/quantity"},
		"no product":               {func(r *Request) { r.Items[0].ProductID = "" }, "invalid-field", "/items/0/product_id"},
		"product with a quote":     {func(r *Request) { r.Items[0].ProductID = `sku"` }, "invalid-field", "/items/0/product_id"},
		"101 items":                {func(r *Request) { r.Items = make([]Item, 101) }, "too-many-items", "/items"},
		"items without address":    {func(r *Request) { r.Address = nil }, "address-invalid", "/address"},
		"no name":                  {func(r *Request) { r.Address.Name = " " }, "address-invalid", "/address/name"},
		"no line":                  {func(r *Request) { r.Address.Line1 = "" }, "address-invalid", "/address/line1"},
		"no city":                  {func(r *Request) { r.Address.City = "" }, "address-invalid", "/address/city"},
		"city too long":            {func(r *Request) { r.Address.City = strings.Repeat("ü", 101) }, "address-invalid", "/address/city"},
		"name turned around":       {func(r *Request) { r.Address.Name = "a\u202eb" }, "address-invalid", "/address/name"},
		"name with a line break":   {func(r *Request) { r.Address.Name = "a\nlevel=error" }, "address-invalid", "/address/name"},
		"name in colour":           {func(r *Request) { r.Address.Name = "\x1b[31mred" }, "address-invalid", "/address/name"},
		"no country":               {func(r *Request) { r.Address.Country = "" }, "address-invalid", "/address/country"},
		"country unknown":          {func(r *Request) { r.Address.Country = "XX" }, "address-invalid", "/address/country"},
		"country in full":          {func(r *Request) { r.Address.Country = "Germany" }, "address-invalid", "/address/country"},
		"postal code of elsewhere": {func(r *Request) { r.Address.PostalCode = "SW1A 1AA" }, "address-invalid", "/address/postal_code"},
		"no postal code":           {func(r *Request) { r.Address.PostalCode = "" }, "address-invalid", "/address/postal_code"},
		"card number as a name":    {func(r *Request) { r.Address.Name = "4111 1111 1111 1111" }, "pan-not-allowed", "/address/name"},
		"card number in a line":    {func(r *Request) { r.Address.Line2 = "card 5500-0055-5555-5559 exp 12/29" }, "pan-not-allowed", "/address/line2"},
		"card number as an id":     {func(r *Request) { r.OrderID = "4242424242424242" }, "pan-not-allowed", "/order_id"},
		"card number as a method":  {func(r *Request) { r.Method = "4242424242424242" }, "pan-not-allowed", "/payment_method"},
		"card number as a product": {func(r *Request) { r.Items[0].ProductID = "378282246310005" }, "pan-not-allowed", "/items/0/product_id"},
		"card number in an e-mail": {func(r *Request) { r.Email = "4242424242424242@example.com" }, "pan-not-allowed", "/email"},
	} {
		t.Run(name, func(t *testing.T) {
			r := valid()
			c.change(&r)
			o, err := r.Check()
			var invalid *Invalid
			if !errors.As(err, &invalid) {
				t.Fatalf("accepted as %+v, %v", o, err)
			}
			found := false
			for _, f := range invalid.Fields {
				found = found || f.Pointer == c.pointer
			}
			if invalid.Slug != c.slug || !found {
				t.Errorf("refused as %s for %v, want %s for %s", invalid.Slug, invalid.Fields, c.slug, c.pointer)
			}
		})
	}
}

func TestAllThatIsWrongIsNamed(t *testing.T) {
	r := valid()
	r.Amount, r.Method, r.Address.City, r.Items[0].Quantity = "0", "cash", "", -1
	_, err := r.Check()
	var invalid *Invalid
	if !errors.As(err, &invalid) {
		t.Fatal(err)
	}
	var got []string
	for _, f := range invalid.Fields {
		got = append(got, f.Pointer)
	}
	if diff := cmp.Diff([]string{"/amount", "/payment_method", "/items/0/quantity", "/address/city"}, got); diff != "" {
		t.Errorf("want - got +\n%s", diff)
	}
}

// What looks odd and is somebody's address.
func TestAcceptedTexts(t *testing.T) {
	for _, name := range []string{"O'Neill", "Robert'); DROP TABLE orders;--", "<b>Bold & Söhne</b>", "李小龍", "{{.}} ${x} %s", "Nguyễn Văn A", "名前 一郎", "é"} {
		r := valid()
		r.Address.Name = name
		if o, err := r.Check(); err != nil || o.Address.Name != name {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestPostalCodes(t *testing.T) {
	for country, codes := range map[string][]string{
		"DE": {"10115"}, "GB": {"SW1A 1AA", "M1 1AE", "EC1A1BB"}, "US": {"94105", "94105-1234"}, "NL": {"1012 AB"}, "CA": {"K1A 0B1"}, "IE": {"D02 AF30", "D6W XY00"},
		"PL": {"00-950"}, "PT": {"1000-001"}, "SE": {"114 55", "11455"}, "JP": {"100-0001"}, "BR": {"01001-000"}, "AE": {""}, "HK": {""}, "CL": {"8320000"},
	} {
		for _, code := range codes {
			if !postalCodeFits(country, code) {
				t.Errorf("%s is a postal code of %s", code, country)
			}
		}
	}
	for country, codes := range map[string][]string{"DE": {"1011", "101155", "D-10115", ""}, "US": {"9410"}, "GB": {"12345"}, "CL": {"a very long code"}} {
		for _, code := range codes {
			if postalCodeFits(country, code) {
				t.Errorf("%s is no postal code of %s", code, country)
			}
		}
	}
}

func TestFingerprints(t *testing.T) {
	print := func(change func(*Request)) [32]byte {
		r := valid()
		change(&r)
		o, err := r.Check()
		if err != nil {
			t.Fatal(err)
		}
		return o.Fingerprint
	}
	same := print(func(*Request) {})
	for name, change := range map[string]func(*Request){
		"amount without its zero": func(r *Request) { r.Amount = "59.9" },
		"currency by name":        func(r *Request) { r.Currency = "EUR" },
		"items apart":             func(r *Request) { r.Items = []Item{{"sku-0001", 1}, {"sku-0001", 1}} },
	} {
		if print(change) != same {
			t.Errorf("%s is another request", name)
		}
	}
	for name, change := range map[string]func(*Request){
		"id": func(r *Request) { r.OrderID = "o-2" }, "no id": func(r *Request) { r.OrderID = "" }, "amount": func(r *Request) { r.Amount = "59.91" },
		"currency": func(r *Request) { r.Currency = "USD" }, "method": func(r *Request) { r.Method = "card_slow" }, "e-mail": func(r *Request) { r.Email = "" },
		"quantity": func(r *Request) { r.Items[0].Quantity = 3 }, "product": func(r *Request) { r.Items[0].ProductID = "sku-0002" },
		"line": func(r *Request) { r.Address.Line2 = "x" }, "fields shifted": func(r *Request) { r.Address.Name, r.Address.Line1 = "A. Buyer1", " Main St" },
	} {
		if print(change) == same {
			t.Errorf("another %s is the same request", name)
		}
	}
}

func TestNamesWithDigitsAreNoCards(t *testing.T) {
	for _, id := range []string{"01997e6c-4111-7111-8111-111111111111", "o-4242424242424242", "1700000000000123", "4242424242424241", "20261122"} {
		if isPAN(id) {
			t.Errorf("%s was taken for a card number", id)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("o-1", "59.90", "EUR", "card", "a@example.com", "sku-1", int64(2), "A", "10115", "DE")
	f.Add("", "1e5", "JPY", "card_slow", "", "", int64(-1), "\u202e", "", "AE")
	f.Fuzz(func(t *testing.T, id, amount, currency, method, email, product string, quantity int64, text, code, country string) {
		r := Request{OrderID: id, Currency: currency, Method: method, Email: email, Items: []Item{{product, quantity}},
			Address: &Address{Name: text, Line1: text, City: text, PostalCode: code, Country: country}}
		if r.Amount.UnmarshalJSON([]byte(amount)) != nil {
			return
		}
		o, err := r.Check()
		if err != nil {
			return
		}
		// What is accepted has the shape that the schema and the other services count on.
		if o.Amount <= 0 || o.Amount > MaxAmount || (o.ID != "" && !ValidID(o.ID)) || len(o.Items) != 1 || !ValidID(o.Items[0].ProductID) {
			t.Errorf("accepted %+v", o)
		}
		if again, err := r.Check(); err != nil || again.Fingerprint != o.Fingerprint {
			t.Errorf("the same request has two fingerprints")
		}
	})
}
