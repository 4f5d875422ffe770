package workload

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/client"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/history"
)

const (
	products = 50
	// zipf is the exponent of how popular products are: the first gets a quarter of all.
	zipf = 1.1
)

// product ids sort by popularity.
func productID(i int) string { return fmt.Sprintf("chaos-%02d", i+1) }

// price in cents.
func price(i int) int64 { return 500 + 25*int64(i) }

// ranks draws products by Zipf's law.
type ranks struct{ sums []float64 }

func newRanks() ranks {
	r := ranks{sums: make([]float64, products)}
	sum := 0.0
	for i := range r.sums {
		sum += math.Pow(float64(i+1), -zipf)
		r.sums[i] = sum
	}
	return r
}

func (r ranks) draw(rnd *rand.Rand) int {
	i, _ := slices.BinarySearch(r.sums, rnd.Float64()*r.sums[len(r.sums)-1])
	return min(i, products-1)
}

// share is a value and how many of a hundred have it.
type share struct {
	value string
	of100 int
}

func draw(rnd *rand.Rand, shares []share) string {
	n := rnd.IntN(100)
	for _, s := range shares {
		if n -= s.of100; n < 0 {
			return s.value
		}
	}
	return shares[0].value
}

// methods and cities are the sandbox's test values, in shares after RELIABILITY 4.
var (
	methods = []share{{"card", 80}, {"card_declined", 8}, {"card_timeout", 5}, {"card_flaky", 4}, {"card_slow", 2}, {"card_down", 1}}
	cities  = []share{{"Berlin", 88}, {"Delayed", 5}, {"Nowhere", 4}, {"Lost", 3}}
)

// chargeOnly is the share of orders without items, in percent.
const chargeOnly = 10

// placed is an order as it was asked for.
type placed struct {
	id, key string
	body    json.RawMessage
	order   history.Order
	shopper *shopper
}

// newOrder draws an order.
func (w *Workload) newOrder(rnd *rand.Rand, id string, s *shopper) *placed {
	p := &placed{id: id, shopper: s}
	if rnd.IntN(100) < 70 { // the others have their order_id stand in
		p.key = "key-" + id
	}
	o := history.Order{ID: id, Currency: "EUR", Method: draw(rnd, methods), Email: id + "@example.com"}
	in := client.NewOrder{OrderID: id, Currency: o.Currency, PaymentMethod: o.Method, Email: o.Email}
	if s.tenant != 1 || rnd.IntN(100) < chargeOnly {
		o.Amount = 100 + rnd.Int64N(20_000)
	} else {
		o.Items = map[string]int64{}
		prices := map[string]int64{}
		for range 1 + rnd.IntN(5) {
			i := w.ranks.draw(rnd)
			o.Items[productID(i)] += 1 + rnd.Int64N(2)
			prices[productID(i)] = price(i)
		}
		for _, id := range slices.Sorted(maps.Keys(o.Items)) {
			o.Amount += o.Items[id] * prices[id]
			in.Items = append(in.Items, client.Item{ProductID: id, Quantity: int(o.Items[id])})
		}
		in.Address = &client.Address{Name: "C. Haos", Line1: "1 Main St", City: draw(rnd, cities), PostalCode: "10115", Country: "DE"}
	}
	in.Amount = decimal(o.Amount)
	p.order = o
	p.body, _ = json.Marshal(in)
	return p
}

func decimal(cents int64) json.Number {
	return json.Number(strconv.FormatInt(cents/100, 10) + fmt.Sprintf(".%02d", cents%100))
}

// otherBody is the same order for another amount.
func (p *placed) otherBody() (json.RawMessage, history.Order) {
	var in client.NewOrder
	_ = json.Unmarshal(p.body, &in)
	o := p.order
	o.Amount += 100
	o.Email = "other@example.com"
	in.Amount, in.Email = decimal(o.Amount), o.Email
	body, _ := json.Marshal(in)
	return body, o
}
