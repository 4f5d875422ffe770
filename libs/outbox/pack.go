package outbox

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/waybill-dev/waybill/libs/event"
)

// packing is the first byte of a body. Another layout gets another number, so that rows outlive an upgrade: before 2 there
// was no time of the cause.
const packing = 2

var errPacked = errors.New("outbox row is damaged")

// pack lays the events of a row one behind the other: id, then sequence, tenant, time and the cause's time (0: none) as
// varints, then type, subject, traceparent and data with their lengths. The source is the same for all rows of a database and is not repeated.
func pack(events []event.Event) []byte {
	n := 1
	for i := range events {
		e := &events[i]
		n += 64 + len(e.Type) + len(e.Subject) + len(e.Traceparent) + len(e.Data)
	}
	b := append(make([]byte, 0, n), packing)
	for i := range events {
		e := &events[i]
		b = append(b, e.ID[:]...)
		b = binary.AppendVarint(b, e.Seq)
		b = binary.AppendVarint(b, e.Tenant)
		b = binary.AppendVarint(b, e.Time.UnixNano())
		cause := int64(0)
		if !e.Cause.IsZero() {
			cause = e.Cause.UnixNano()
		}
		b = binary.AppendVarint(b, cause)
		for _, s := range []string{string(e.Type), e.Subject, e.Traceparent} {
			b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
		}
		b = append(binary.AppendUvarint(b, uint64(len(e.Data))), e.Data...)
	}
	return b
}

// Unpack reads a row's events. Their source is empty.
func Unpack(body []byte) ([]event.Event, error) {
	if len(body) == 0 || body[0] < 1 || body[0] > packing {
		return nil, errPacked
	}
	r := reader{body[1:], false}
	var events []event.Event
	for len(r.b) > 0 && !r.failed {
		var e event.Event
		copy(e.ID[:], r.bytes(uint64(len(e.ID))))
		e.Seq, e.Tenant, e.Time = r.varint(), r.varint(), time.Unix(0, r.varint()).UTC()
		if body[0] > 1 {
			if cause := r.varint(); cause != 0 {
				e.Cause = time.Unix(0, cause).UTC()
			}
		}
		e.Type, e.Subject, e.Traceparent = event.Type(r.sized()), string(r.sized()), string(r.sized())
		e.Data = r.sized()
		events = append(events, e)
	}
	if r.failed || len(events) == 0 {
		return nil, errPacked
	}
	return events, nil
}

type reader struct {
	b      []byte
	failed bool
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.failed, r.b = true, nil
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	r.bytes(uint64(max(n, 0)))
	r.failed = r.failed || n <= 0
	return v
}

func (r *reader) sized() []byte {
	v, n := binary.Uvarint(r.b)
	r.bytes(uint64(max(n, 0)))
	r.failed = r.failed || n <= 0
	return r.bytes(v)
}
