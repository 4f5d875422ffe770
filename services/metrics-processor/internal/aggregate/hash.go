package aggregate

import (
	"math/bits"
	"math/rand/v2"
	"unsafe"
)

// The seeds are the process's own, so that nobody outside can choose labels that collide.
var seeds = [3]uint64{rand.Uint64() | 1, rand.Uint64() | 1, rand.Uint64() | 1}

func word(p unsafe.Pointer, at int) uint64 { return *(*uint64)(unsafe.Add(p, at)) }

func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// page is the smallest there is: a word that does not cross it is there when its first byte is.
const page = 4096

// short packs fewer than eight bytes into a word.
func short(p unsafe.Pointer, n int) (w uint64) {
	if n == 0 {
		return 0
	}
	if overread && uintptr(p)%page <= page-8 {
		return word(p, 0) & (1<<(8*uint(n)) - 1)
	}
	for i := n - 1; i >= 0; i-- {
		w = w<<8 | uint64(*(*byte)(unsafe.Add(p, i)))
	}
	return w
}

// ends packs up to 16 bytes into two words that overlap where there are fewer.
func ends(p unsafe.Pointer, n int) (a, b uint64) {
	if n >= 8 {
		return word(p, 0), word(p, n-8)
	}
	return short(p, n), 0
}

// hashBytes folds n bytes into h. Long keys go in two lanes, so that the multiplications overlap.
func hashBytes(h uint64, p unsafe.Pointer, n int) uint64 {
	if n <= 16 {
		a, b := ends(p, n)
		return fold(a^seeds[1]^uint64(n), b^h)
	}
	i, g := 0, h
	for ; i+32 < n; i += 32 {
		h = fold(word(p, i)^seeds[0], word(p, i+8)^h)
		g = fold(word(p, i+16)^seeds[2], word(p, i+24)^g)
	}
	if i > 0 {
		h ^= g
	}
	if i+16 < n {
		h = fold(word(p, i)^seeds[0], word(p, i+8)^h)
	}
	return fold(word(p, n-16)^seeds[1]^uint64(n), word(p, n-8)^h)
}

// different is 0 where n bytes are the same.
func different(p, q unsafe.Pointer, n int) uint64 {
	if n < 8 {
		return short(p, n) ^ short(q, n)
	}
	d := word(p, n-8) ^ word(q, n-8)
	for i := 0; i < n-8; i += 8 {
		d |= word(p, i) ^ word(q, i)
	}
	return d
}
