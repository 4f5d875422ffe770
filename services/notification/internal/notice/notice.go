// Package notice holds what the customer is told and when: which events are worth a message, its words, and which message
// has become untrue before it was sent. It does no I/O.
package notice

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Kind says what a message is about.
type Kind string

// The kinds. An accepted order is answered on the spot and confirmed when it is paid, seconds later: it gets no message.
const (
	Confirmed Kind = "confirmed" // paid, will be sent
	Resent    Kind = "resent"    // the parcel is sent once more
	Completed Kind = "completed"
	Cancelled Kind = "cancelled"
	Failed    Kind = "failed" // refused before anything was charged
	Refunding Kind = "refunding"
	Attention Kind = "attention" // something went wrong that people take care of
)

// Email is the channel that there is. A notice is unique by event and channel, so another one can be added.
const Email = "email"

// Promises are the kinds that say that all is well. One that was not told yet when a Reversal of a later sequence comes is
// never told: nobody hears "confirmed" after "cancelled".
var Promises = []string{string(Confirmed), string(Resent)}

// Reversals are the kinds that make an earlier promise untrue.
var Reversals = []string{string(Cancelled), string(Failed), string(Refunding)}

// Statuses of a notice.
const (
	Pending     = "pending"
	Sent        = "sent"
	Superseded  = "superseded" // untrue before it was told
	Undelivered = "failed"     // given up; an intervention is open
)

// Notice is a message to the customer about one event.
type Notice struct {
	EventID     uuid.UUID
	Channel     string
	OrderID     string
	Tenant      int64
	Seq         int64 // of the event, among those about the order
	Kind        Kind
	Recipient   string // personal data: never logged, erased once the message is told
	Masked      string
	Subject     string
	Text        string
	Status      string
	Tries       int
	Traceparent string
	CreatedAt   time.Time
	FinishedAt  *time.Time
}

// MessageID names the message for ever: SMTP can deliver it twice, and then both copies have this id.
func (n Notice) MessageID(domain string) string {
	return n.EventID.String() + "." + n.Channel + "@" + domain
}

// Mask shows enough of an address to recognise it: j***@example.com.
func Mask(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at <= 0 {
		return "***"
	}
	_, size := utf8.DecodeRuneInString(address)
	return address[:size] + "***" + address[at:]
}
