package postgres_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

// model is what the stockroom should be: states and counts, without rows, locks or arrays.
type model struct {
	onHand, reserved map[string]int64
	state            map[string]stock.State
	items            map[string][]stock.Item
}

func (m *model) fits(items, own []stock.Item) bool {
	free := map[string]int64{}
	for p, n := range m.onHand {
		free[p] = n - m.reserved[p]
	}
	for _, it := range own {
		free[it.Product] += it.Quantity
	}
	for _, it := range items {
		if free[it.Product] < it.Quantity {
			return false
		}
	}
	return true
}

func (m *model) set(id string, s stock.State, items []stock.Item) {
	for sign, of := range map[int64]string{-1: "before", +1: "after"} {
		st, its := m.state[id], m.items[id]
		if of == "after" {
			st, its = s, items
		}
		for _, it := range its {
			if st.Reserving() {
				m.reserved[it.Product] += sign * it.Quantity
			}
			if st == stock.Confirmed {
				m.onHand[it.Product] -= sign * it.Quantity
			}
		}
	}
	m.state[id], m.items[id] = s, items
}

func (m *model) String() string {
	var stocks, states []string
	for _, p := range slices.Sorted(maps.Keys(m.onHand)) {
		stocks = append(stocks, fmt.Sprintf("%s %d/%d", p, m.onHand[p], m.reserved[p]))
	}
	for _, id := range slices.Sorted(maps.Keys(m.state)) {
		states = append(states, id+" "+string(m.state[id]))
	}
	return strings.Join(stocks, ", ") + "; " + strings.Join(states, ", ")
}

// The store does what a page of plain rules says, over any sequence of calls.
func TestStoreAgainstModel(t *testing.T) {
	t.Parallel()
	s := open(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		s.exec(`DELETE FROM reservations`)
		s.exec(`DELETE FROM published`)
		s.exec(`UPDATE products SET reserved = 0`)
		m := &model{onHand: map[string]int64{}, reserved: map[string]int64{}, state: map[string]stock.State{}, items: map[string][]stock.Item{}}
		for p := range prices {
			m.onHand[p] = one[int64](s, `SELECT on_hand FROM products WHERE product_id = $1`, p)
		}
		order := func() string {
			return fmt.Sprintf("%d-%s", run, rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "order"))
		}
		items := func() []stock.Item {
			var raw []stock.Item
			for range rapid.IntRange(1, 3).Draw(rt, "lines") {
				raw = append(raw, stock.Item{Product: rapid.SampledFrom([]string{"mug", "lamp", "cup"}).Draw(rt, "product"), Quantity: rapid.Int64Range(1, 30).Draw(rt, "quantity")})
			}
			sum, err := stock.Sum(raw)
			if err != nil {
				rt.Fatal(err)
			}
			return sum
		}
		follow := func(e event.Event) {
			if err := s.follow(e); err != nil {
				rt.Fatal(err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"pin": func(rt *rapid.T) {
				id, want := order(), items()
				replies, err := s.Reserve(context.Background(), []postgres.Ask{pin(id, want...)})
				if err != nil {
					rt.Fatal(err)
				}
				expect := stock.OutcomePinned
				switch was := m.state[id]; was {
				case stock.None, stock.Held, stock.Pinned:
					var own []stock.Item
					if was.Reserving() {
						own = m.items[id]
					}
					if m.fits(want, own) {
						m.set(id, stock.Pinned, want)
					} else {
						expect = stock.OutcomeRefused
					}
				case stock.Confirmed:
					if fmt.Sprint(m.items[id]) != fmt.Sprint(want) {
						expect = stock.OutcomeClosed
					}
				default:
					expect = stock.OutcomeClosed
				}
				if got := replies[0].Outcome; got != expect {
					rt.Fatalf("%s: %s, want %s", id, got, expect)
				}
			},
			"hold": func(rt *rapid.T) {
				id, want := order(), items()
				replies, err := s.Reserve(context.Background(), []postgres.Ask{hold(id, want...)})
				if err != nil {
					rt.Fatal(err)
				}
				var expect stock.Outcome
				switch was := m.state[id]; {
				case was == stock.None && m.fits(want, nil):
					expect = stock.OutcomeHeld
					m.set(id, stock.Held, want)
				case was == stock.None:
					expect = stock.OutcomeRefused
				case was == stock.Released || was == stock.Expired || was == stock.Returned:
					expect = stock.OutcomeClosed
				case fmt.Sprint(m.items[id]) != fmt.Sprint(want):
					expect = stock.OutcomeDiffers
				case was == stock.Held:
					expect = stock.OutcomeHeld
				default:
					expect = stock.OutcomePinned
				}
				if got := replies[0].Outcome; got != expect {
					rt.Fatalf("%s: %s, want %s", id, got, expect)
				}
			},
			"release": func(rt *rapid.T) {
				id := order()
				s.release(id)
				if was := m.state[id]; was == stock.None || was == stock.Held {
					m.set(id, stock.Released, m.items[id])
				}
			},
			"expire": func(rt *rapid.T) {
				id := order()
				s.exec(`UPDATE reservations SET due_at = now() WHERE order_id = $1 AND state = 'HELD'`, id)
				if _, err := s.ExpireHeld(context.Background(), 10); err != nil {
					rt.Fatal(err)
				}
				if m.state[id] == stock.Held {
					m.set(id, stock.Expired, m.items[id])
				}
			},
			"paid": func(rt *rapid.T) {
				id, want := order(), items()
				follow(paid(id, want...))
				was := m.state[id]
				if was == stock.Confirmed || was == stock.Returned {
					return
				}
				var own []stock.Item
				if was.Reserving() {
					own = m.items[id]
				}
				switch {
				case m.fits(want, own):
					m.set(id, stock.Confirmed, want)
				case was == stock.None || was.Reserving():
					m.set(id, stock.Released, want)
				default:
					m.set(id, was, want)
				}
			},
			"cancelled": func(rt *rapid.T) {
				id := order()
				back := rapid.Bool().Draw(rt, "goods returned")
				goods := ""
				if back {
					goods = "returned"
				}
				follow(cancelled(id, goods))
				switch was := m.state[id]; {
				case was == stock.None || was.Reserving():
					m.set(id, stock.Released, m.items[id])
				case was == stock.Confirmed && back:
					m.set(id, stock.Returned, m.items[id])
				}
			},
			"payment initiated": func(rt *rapid.T) {
				id := order()
				follow(initiated(id))
				if m.state[id] == stock.Held {
					m.set(id, stock.Pinned, m.items[id])
				}
			},
			"payment failed": func(rt *rapid.T) {
				id := order()
				follow(paymentFailed(id))
				if m.state[id] == stock.Pinned {
					m.set(id, stock.Held, m.items[id])
				}
			},
			"": func(rt *rapid.T) {
				// One query: this runs after each step.
				got := one[string](s, `SELECT COALESCE((SELECT string_agg(product_id || ' ' || on_hand || '/' || reserved, ', ' ORDER BY product_id) FROM products), '') || '; ' ||
					COALESCE((SELECT string_agg(order_id || ' ' || state, ', ' ORDER BY order_id) FROM reservations), '')`)
				if want := m.String(); got != want {
					rt.Fatalf("store: %s\nmodel: %s", got, want)
				}
			},
		})
	})
}
