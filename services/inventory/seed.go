package main

import (
	"fmt"

	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

const (
	seedTenant   = 1 // acme
	seedProducts = 100
	// seedStock lasts for benchmarks: a thousand orders a second of one product for a minute and a half.
	seedStock = 100_000
)

// catalogue is the stock of the development profile: sku-0001 costs 29.95, each product after it 0.50 more.
func catalogue() []stock.Product {
	kinds := []string{"Mug", "Notebook", "Lamp", "Backpack", "Kettle", "Headphones", "Desk mat", "Umbrella", "Water bottle", "Keyboard"}
	out := make([]stock.Product, seedProducts)
	for i := range out {
		out[i] = stock.Product{
			Key:  stock.Key{Tenant: seedTenant, Product: fmt.Sprintf("sku-%04d", i+1)},
			Name: fmt.Sprintf("%s no. %d", kinds[i%len(kinds)], i/len(kinds)+1), Price: 2995 + 50*int64(i), Currency: "EUR", OnHand: seedStock,
		}
	}
	return out
}
