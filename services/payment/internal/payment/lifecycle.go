package payment

// Status is where a payment stands. The names are part of the public contract.
type Status string

// The statuses of a payment.
const (
	Initiated Status = "initiated" // stored; the provider has not given an answer yet
	Unknown   Status = "unknown"   // the provider was called and nobody knows whether it charged
	Captured  Status = "captured"
	Declined  Status = "declined" // the provider's definite no
	Failed    Status = "failed"   // given up and voided, or never sent
	Refunded  Status = "refunded"
)

// Statuses lists every status, in the order of the story.
func Statuses() []Status {
	return []Status{Initiated, Unknown, Captured, Declined, Failed, Refunded}
}

// Open says that the queue still has to find out what became of the charge.
func (s Status) Open() bool { return s == Initiated || s == Unknown }

// Fact is something that happened to a payment. A condition is a fact of another name, so the table has no guards.
type Fact string

// The facts. Those of a charge come from the call, from asking by key, from voiding, or from a webhook: it does not
// matter which.
const (
	ChargeCaptured    Fact = "charge.captured"
	ChargeDeclined    Fact = "charge.declined"
	ChargeVoided      Fact = "charge.voided"
	ChargeUnknown     Fact = "charge.unknown"      // time-out, 5xx, or no usable answer
	ClosedUnsent      Fact = "closed.unsent"       // the order was closed before anything went to the provider
	RefundDone        Fact = "refund.done"         // the provider gave the money back
	RefundRefused     Fact = "refund.refused"      // for good, and the order waits for the answer
	RefundRefusedLate Fact = "refund.refused_late" // for good, and the order is closed: nobody else will act
	ReturnedOutside   Fact = "returned.outside"    // a person returned the money by other means
)

// Facts lists every fact.
func Facts() []Fact {
	return []Fact{ChargeCaptured, ChargeDeclined, ChargeVoided, ChargeUnknown, ClosedUnsent,
		RefundDone, RefundRefused, RefundRefusedLate, ReturnedOutside}
}

// Effect names what has to be written in the same transaction as the new status.
type Effect string

// The effects.
const (
	TellProcessed    Effect = "payment.processed"
	TellFailed       Effect = "payment.failed"
	TellRefunded     Effect = "payment.refunded"
	TellRefundFailed Effect = "payment.refund_failed"
	BookCapture      Effect = "book capture"
	BookRefund       Effect = "book refund"
	BookWriteOff     Effect = "book write-off"
	CallPerson       Effect = "intervention"
)

type rule struct {
	from    Status
	fact    Fact
	to      Status
	effects []Effect
}

// lifecycle is the whole life of a payment.
var lifecycle = []rule{
	{Initiated, ChargeCaptured, Captured, []Effect{BookCapture, TellProcessed}},
	{Initiated, ChargeDeclined, Declined, []Effect{TellFailed}},
	{Initiated, ChargeVoided, Failed, []Effect{TellFailed}},
	{Initiated, ChargeUnknown, Unknown, nil},
	{Initiated, ClosedUnsent, Failed, []Effect{TellFailed}},

	{Unknown, ChargeCaptured, Captured, []Effect{BookCapture, TellProcessed}},
	{Unknown, ChargeDeclined, Declined, []Effect{TellFailed}},
	{Unknown, ChargeVoided, Failed, []Effect{TellFailed}},
	{Unknown, ChargeUnknown, Unknown, nil},

	// The provider takes its no back. Money that moved is always booked; the order was told of a failure, so it
	// is closed or about to be, and closing it sends the money back.
	{Declined, ChargeCaptured, Captured, []Effect{BookCapture, TellProcessed}},
	{Failed, ChargeCaptured, Captured, []Effect{BookCapture, TellProcessed}},

	{Captured, RefundDone, Refunded, []Effect{BookRefund, TellRefunded}},
	{Captured, RefundRefused, Captured, []Effect{TellRefundFailed}},
	{Captured, RefundRefusedLate, Captured, []Effect{CallPerson}},
	{Captured, ReturnedOutside, Refunded, []Effect{BookWriteOff, TellRefunded}},
}

// stale lists what may arrive late or twice and changes nothing. What is in neither list is a bug.
var stale = map[Status][]Fact{
	Captured: {ChargeCaptured, ChargeDeclined, ChargeVoided, ChargeUnknown},
	Declined: {ChargeDeclined, ChargeVoided, ChargeUnknown},
	Failed:   {ChargeDeclined, ChargeVoided, ChargeUnknown},
	Refunded: {ChargeCaptured, ChargeDeclined, ChargeVoided, ChargeUnknown,
		RefundDone, RefundRefused, RefundRefusedLate, ReturnedOutside},
}

// Outcome is what Next found.
type Outcome int

// The three outcomes of a pair of status and fact.
const (
	Impossible Outcome = iota // in no list: nobody sends this
	Moved
	Stale
)

// Next is the table as a function.
func Next(from Status, f Fact) (to Status, effects []Effect, outcome Outcome) {
	for i := range lifecycle {
		if r := &lifecycle[i]; r.from == from && r.fact == f {
			return r.to, r.effects, Moved
		}
	}
	for _, s := range stale[from] {
		if s == f {
			return from, nil, Stale
		}
	}
	return from, nil, Impossible
}
