package stock

import (
	"cmp"
	"errors"
	"math/bits"
	"slices"
)

// Item is a product and how many of it.
type Item struct {
	Product  string
	Quantity int64
}

const (
	// MaxItems is what one order may have, before equal products are summed.
	MaxItems = 100
	// MaxQuantity of one product in one order, and of one movement. A thousand times it still fits int64 with any
	// price that MaxPrice allows, or Price says so.
	MaxQuantity = 1_000_000_000
	// MaxStock of one product: far above any shelf, far below where additions overflow.
	MaxStock = 1_000_000_000_000
	// MaxPrice of a product in minor units.
	MaxPrice = 1_000_000_000_000
)

// ErrQuantity says that the quantities of one product add up to more than MaxQuantity, or that one is not positive.
var ErrQuantity = errors.New("quantity out of range")

// Sum adds up the quantities of equal products and sorts the result by product, the order in which rows are locked.
func Sum(items []Item) ([]Item, error) {
	out := slices.Clone(items)
	for _, it := range out {
		if it.Quantity <= 0 || it.Quantity > MaxQuantity {
			return nil, ErrQuantity
		}
	}
	slices.SortFunc(out, func(a, b Item) int { return cmp.Compare(a.Product, b.Product) })
	n := 0
	for i, it := range out {
		if i > 0 && out[n-1].Product == it.Product {
			out[n-1].Quantity += it.Quantity // at most MaxItems times MaxQuantity
			if out[n-1].Quantity > MaxQuantity {
				return nil, ErrQuantity
			}
			continue
		}
		out[n] = it
		n++
	}
	return out[:n], nil
}

// times multiplies a price by a quantity; ok is false where the product does not fit int64.
func times(price, quantity int64) (int64, bool) {
	hi, lo := bits.Mul64(uint64(price), uint64(quantity))
	return int64(lo), hi == 0 && lo <= 1<<63-1
}
