package stock

import "testing"

// Each pair of state and fact must be in exactly one of the three tables: nothing is ignored silently.
func TestEveryPairIsDecided(t *testing.T) {
	for _, s := range States() {
		for _, f := range Facts() {
			p := pair{s, f}
			n := 0
			if _, ok := lifecycle[p]; ok {
				n++
			}
			if stands[p] {
				n++
			}
			if refused[p] {
				n++
			}
			if n != 1 {
				t.Errorf("%q, %s stands in %d tables", s, f, n)
			}
		}
	}
	if got, want := len(lifecycle)+len(stands)+len(refused), len(States())*len(Facts()); got != want {
		t.Errorf("tables have %d pairs, there are %d", got, want)
	}
}

func TestLifecycle(t *testing.T) {
	reached := map[State]bool{None: true}
	for range States() {
		for p, to := range lifecycle {
			if p.from == to {
				t.Errorf("%s, %s moves nowhere", p.from, p.fact)
			}
			if reached[p.from] {
				reached[to] = true
			}
		}
	}
	for _, s := range States() {
		if !reached[s] {
			t.Errorf("%s cannot be reached", s)
		}
	}
	for p := range lifecycle {
		switch {
		case p.from == Returned:
			t.Errorf("RETURNED is final, but %s leaves it", p.fact)
		case (p.from == Released || p.from == Expired) && p.fact != Paid:
			t.Errorf("%s is a tombstone, but %s leaves it", p.from, p.fact)
		case p.from == Confirmed && p.fact != GoodsBack:
			t.Errorf("what is sold comes back with the goods only, not by %s", p.fact)
		}
	}
}

func TestNextUnknown(t *testing.T) {
	if s, v := Next(Held, "no such fact"); s != Held || v != Unknown {
		t.Errorf("got %s, %v", s, v)
	}
}
