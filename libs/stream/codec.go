package stream

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/libs/event"
)

// The headers of the envelope in the order in which Encode writes them: CloudEvents 1.0 in Kafka's binary mode
// (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md), the extensions
// ce_tenantid, ce_aggregateseq and ce_causetime, and W3C trace context. What comes from headerCause on may be absent.
const (
	headerSpecVersion = iota
	headerID
	headerSource
	headerType
	headerTime
	headerSubject
	headerTenant
	headerSeq
	headerContentType
	headerTraceparent
	headerCause
	headers
)

var headerNames = [headers]string{
	"ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_tenantid", "ce_aggregateseq", "content-type", "traceparent",
	"ce_causetime",
}

// What is the same in every record is shared by all of them; nobody writes to it.
var specVersion, contentType = []byte("1.0"), []byte("application/protobuf")

// timeLayout is RFC 3339 with as much of the fraction as there is.
const timeLayout = time.RFC3339Nano

// Encode makes the record of an event. Its key is the subject, so that events about one thing stay in order.
func Encode(e event.Event) Message {
	// One allocation holds what differs from record to record; the headers are slices of it.
	b := make([]byte, 0, 36+len(e.Source)+len(e.Type)+2*len(timeLayout)+len(e.Subject)+2*20+len(e.Traceparent))
	h := make([]Header, headers)
	if e.Cause.IsZero() {
		h = h[:headerCause]
	}
	for i := range h {
		start := len(b)
		switch i {
		case headerSpecVersion:
			h[i] = Header{headerNames[i], specVersion}
			continue
		case headerContentType:
			h[i] = Header{headerNames[i], contentType}
			continue
		case headerID:
			text, _ := e.ID.MarshalText() // never fails
			b = append(b, text...)
		case headerSource:
			b = append(b, e.Source...)
		case headerType:
			b = append(b, e.Type...)
		case headerTime:
			b = e.Time.UTC().AppendFormat(b, timeLayout)
		case headerSubject:
			b = append(b, e.Subject...)
		case headerTenant:
			b = strconv.AppendInt(b, e.Tenant, 10)
		case headerSeq:
			b = strconv.AppendInt(b, e.Seq, 10)
		case headerTraceparent:
			b = append(b, e.Traceparent...)
		case headerCause:
			b = e.Cause.UTC().AppendFormat(b, timeLayout)
		}
		h[i] = Header{headerNames[i], b[start:len(b):len(b)]}
	}
	return Message{Topic: e.Type.Topic(), Key: h[headerSubject].Value, Value: e.Data, Headers: h, Time: e.Time}
}

// malformed says why a record is no event.
func malformed(format string, args ...any) error {
	return fmt.Errorf("decode record: %w: %s", event.ErrMalformed, fmt.Sprintf(format, args...))
}

// DecodeMessage reads the event of a record. An error wraps event.ErrMalformed: the record has no usable envelope. A type
// that the catalogue does not know is not an error here; whoever handles the event decides about it.
func DecodeMessage(m Message) (event.Event, error) {
	var e event.Event
	var seen [headers]bool
	for _, h := range m.Headers {
		i := slices.Index(headerNames[:], h.Key)
		if i < 0 {
			continue // other extensions are none of our business
		}
		if seen[i] {
			return event.Event{}, malformed("header %s stands twice", h.Key)
		}
		seen[i] = true
		if err := setAttribute(&e, i, h.Value); err != nil {
			return event.Event{}, malformed("header %s: %v", h.Key, err)
		}
	}
	for i, ok := range seen[:headerCause] {
		if !ok {
			return event.Event{}, malformed("header %s is missing", headerNames[i])
		}
	}
	if string(m.Key) != e.Subject {
		return event.Event{}, malformed("key %q is not the subject %q", m.Key, e.Subject)
	}
	e.Data = m.Value
	return e, nil
}

var (
	errEmpty    = errors.New("empty")
	errUnknown  = errors.New("not known here")
	errPositive = errors.New("not a positive number")
)

// setAttribute reads the i-th header of the envelope into e.
func setAttribute(e *event.Event, i int, value []byte) (err error) {
	switch i {
	case headerSpecVersion:
		if string(value) != string(specVersion) {
			return errUnknown
		}
	case headerContentType:
		if string(value) != string(contentType) {
			return errUnknown
		}
	case headerID:
		e.ID, err = uuid.ParseBytes(value)
	case headerSource:
		e.Source = string(value)
	case headerType:
		e.Type = event.Type(value)
	case headerTime:
		e.Time, err = time.Parse(timeLayout, string(value))
		e.Time = e.Time.UTC()
	case headerSubject:
		e.Subject = string(value)
	case headerTenant:
		e.Tenant, err = strconv.ParseInt(string(value), 10, 64)
	case headerSeq:
		e.Seq, err = strconv.ParseInt(string(value), 10, 64)
		if err == nil && e.Seq < 1 {
			err = errPositive
		}
	case headerTraceparent:
		e.Traceparent = string(value)
		return nil // may be empty
	case headerCause:
		e.Cause, err = time.Parse(timeLayout, string(value))
		e.Cause = e.Cause.UTC()
	}
	if len(value) == 0 {
		return errEmpty
	}
	return err
}
