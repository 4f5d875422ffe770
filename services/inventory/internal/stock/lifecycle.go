package stock

// State is where a reservation stands.
type State string

// The states of a reservation. None is an order that has no row yet.
const (
	None      State = ""
	Held      State = "HELD"      // set aside over the API, expires
	Pinned    State = "PINNED"    // set aside for a payment in flight, does not expire
	Confirmed State = "CONFIRMED" // paid: the stock has left on_hand
	Released  State = "RELEASED"  // given up; a tombstone
	Expired   State = "EXPIRED"   // ran out; a tombstone
	Returned  State = "RETURNED"  // confirmed, and the goods came back
)

// States lists all of them.
func States() []State {
	return []State{None, Held, Pinned, Confirmed, Released, Expired, Returned}
}

// Reserving says that the reservation's items count in products.reserved.
func (s State) Reserving() bool { return s == Held || s == Pinned }

// Fact is something that happened to an order or was asked for.
type Fact string

// The facts that move a reservation.
const (
	Hold           Fact = "hold"            // POST /inventory/reserve
	Pin            Fact = "pin"             // the order service reserves
	Free           Fact = "free"            // POST /inventory/release
	Lapse          Fact = "lapse"           // the hold's time is over
	Abandoned      Fact = "abandoned"       // the order service says that the order is dead
	PaymentStarted Fact = "payment_started" // payment.initiated
	PaymentFailed  Fact = "payment_failed"  // payment.failed
	Paid           Fact = "paid"            // order.payment_processed with items
	PaidShort      Fact = "paid_short"      // Paid, and the items are not there
	Closed         Fact = "closed"          // order.failed, order.cancelled
	GoodsBack      Fact = "goods_back"      // order.cancelled, and the goods are back on the shelf
)

// Facts lists all of them.
func Facts() []Fact {
	return []Fact{Hold, Pin, Free, Lapse, Abandoned, PaymentStarted, PaymentFailed, Paid, PaidShort, Closed, GoodsBack}
}

// Verdict is what the table says about a fact in a state.
type Verdict int

// The verdicts.
const (
	Unknown Verdict = iota // not in any table: a bug
	Moves                  // the reservation goes to another state
	Stands                 // late, repeated or about something that is not here; nothing changes
	Refused                // the caller is told no
)

type pair struct {
	from State
	fact Fact
}

// lifecycle is every move that exists.
var lifecycle = map[pair]State{
	{None, Hold}:      Held,
	{None, Pin}:       Pinned,
	{None, Paid}:      Confirmed, // should not happen; the order is paid, so its stock goes
	{None, PaidShort}: Released,  // a tombstone that is owed its items, as the two below
	{None, Free}:      Released,  // a tombstone before the reservation: the late one is refused
	{None, Closed}:    Released,
	{None, GoodsBack}: Released,

	{Held, Pin}:            Pinned, // the order of that id takes the hold over
	{Held, PaymentStarted}: Pinned,
	{Held, Paid}:           Confirmed,
	{Held, PaidShort}:      Released, // held or pinned were other items than what was paid for
	{Held, Free}:           Released,
	{Held, Closed}:         Released,
	{Held, GoodsBack}:      Released,
	{Held, Lapse}:          Expired,

	{Pinned, Paid}:          Confirmed,
	{Pinned, PaidShort}:     Released,
	{Pinned, PaymentFailed}: Held, // with a short expiry: frees itself where no order.cancelled comes
	{Pinned, Closed}:        Released,
	{Pinned, GoodsBack}:     Released,
	{Pinned, Abandoned}:     Released,

	{Confirmed, GoodsBack}: Returned,

	{Released, Paid}: Confirmed, // taken anew
	{Expired, Paid}:  Confirmed,
}

// stands is every pair that changes nothing, each for a reason that can happen.
var stands = map[pair]bool{
	{None, PaymentStarted}: true, // an order without items
	{None, PaymentFailed}:  true,
	{None, Lapse}:          true, // sweepers look again under the lock: the state has moved on since
	{None, Abandoned}:      true,

	{Held, Hold}:          true, // asked again
	{Held, PaymentFailed}: true,
	{Held, Abandoned}:     true,

	{Pinned, Hold}:           true,
	{Pinned, Pin}:            true, // asked again after a time-out: the same answer
	{Pinned, PaymentStarted}: true, // each order of the saga
	{Pinned, Lapse}:          true,

	{Confirmed, Hold}:           true,
	{Confirmed, Pin}:            true,
	{Confirmed, Paid}:           true,
	{Confirmed, PaidShort}:      true, // it has its items
	{Confirmed, PaymentStarted}: true, // topics have no order between them
	{Confirmed, PaymentFailed}:  true,
	{Confirmed, Closed}:         true, // the goods are lost: the loss stays booked
	{Confirmed, Lapse}:          true,
	{Confirmed, Abandoned}:      true,

	{Released, Free}:           true,
	{Released, Closed}:         true,
	{Released, GoodsBack}:      true,
	{Released, PaidShort}:      true, // stays a tombstone, and is owed its items
	{Released, PaymentStarted}: true,
	{Released, PaymentFailed}:  true,
	{Released, Lapse}:          true,
	{Released, Abandoned}:      true,

	{Expired, Free}:           true,
	{Expired, Closed}:         true,
	{Expired, GoodsBack}:      true,
	{Expired, PaidShort}:      true,
	{Expired, PaymentStarted}: true,
	{Expired, PaymentFailed}:  true,
	{Expired, Lapse}:          true,
	{Expired, Abandoned}:      true,

	{Returned, Free}:           true,
	{Returned, Paid}:           true,
	{Returned, Closed}:         true,
	{Returned, GoodsBack}:      true,
	{Returned, PaidShort}:      true,
	{Returned, PaymentStarted}: true,
	{Returned, PaymentFailed}:  true,
	{Returned, Lapse}:          true,
	{Returned, Abandoned}:      true,
}

// refused is every pair that the caller hears a no to.
var refused = map[pair]bool{
	{Pinned, Free}:    true, // reservation-in-use: a payment is in flight
	{Confirmed, Free}: true,
	{Released, Hold}:  true, // reservation-closed
	{Released, Pin}:   true,
	{Expired, Hold}:   true,
	{Expired, Pin}:    true,
	{Returned, Hold}:  true,
	{Returned, Pin}:   true,
}

// Next looks a fact up. The state is the new one where the verdict is Moves, otherwise the one that was given.
func Next(from State, f Fact) (State, Verdict) {
	p := pair{from, f}
	if to, ok := lifecycle[p]; ok {
		return to, Moves
	}
	switch {
	case stands[p]:
		return from, Stands
	case refused[p]:
		return from, Refused
	}
	return from, Unknown
}
