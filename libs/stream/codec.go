package stream

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/libs/event"
)

// The headers of the envelope: CloudEvents 1.0 in Kafka's binary mode
// (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md), the extensions
// ce_tenantid and ce_aggregateseq, and W3C trace context.
const (
	headerSpecVersion = "ce_specversion"
	headerID          = "ce_id"
	headerSource      = "ce_source"
	headerType        = "ce_type"
	headerTime        = "ce_time"
	headerSubject     = "ce_subject"
	headerTenant      = "ce_tenantid"
	headerSeq         = "ce_aggregateseq"
	headerContentType = "content-type"
	headerTraceparent = "traceparent"
)

// headerNames in the order in which Encode writes them.
var headerNames = [...]string{
	headerSpecVersion, headerID, headerSource, headerType, headerTime, headerSubject, headerTenant, headerSeq,
	headerContentType, headerTraceparent,
}

const (
	specVersion = "1.0"
	contentType = "application/protobuf"
	// timeLayout is RFC 3339 with as much of the fraction as there is.
	timeLayout = time.RFC3339Nano
)

// What is the same in every record is shared by all of them; nobody writes to it.
var (
	specVersionValue = []byte(specVersion)
	contentTypeValue = []byte(contentType)
)

// Encode makes the record of an event. Its key is the subject, so that events about one thing stay in order.
func Encode(e event.Event) Message {
	// One allocation holds what differs from record to record; the headers are slices of it.
	b := make([]byte, 0, 36+len(e.Source)+len(e.Type)+len(timeLayout)+len(e.Subject)+2*20+len(e.Traceparent))
	h := make([]Header, len(headerNames))
	for i, name := range headerNames {
		start := len(b)
		switch name {
		case headerSpecVersion:
			h[i] = Header{name, specVersionValue}
			continue
		case headerContentType:
			h[i] = Header{name, contentTypeValue}
			continue
		case headerID:
			b = appendUUID(b, e.ID)
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
		}
		h[i] = Header{name, b[start:len(b):len(b)]}
	}
	return Message{Topic: e.Type.Topic(), Key: h[5].Value, Value: e.Data, Headers: h, Time: e.Time}
}

// appendUUID appends the 36 characters of id.
func appendUUID(b []byte, id uuid.UUID) []byte {
	text, _ := id.MarshalText() // never fails
	return append(b, text...)
}

// errEnvelope says why a record is no event.
func errEnvelope(format string, args ...any) error {
	return fmt.Errorf("decode record: %w: %s", event.ErrMalformed, fmt.Sprintf(format, args...))
}

// DecodeMessage reads the event of a record. An error wraps event.ErrMalformed: the record has no usable envelope. A type
// that the catalogue does not know is not an error here; whoever handles the event decides about it.
func DecodeMessage(m Message) (event.Event, error) {
	var e event.Event
	var seen [len(headerNames)]bool
	for _, h := range m.Headers {
		i := headerIndex(h.Key)
		if i < 0 {
			continue // other extensions are none of our business
		}
		if seen[i] {
			return event.Event{}, errEnvelope("header %s stands twice", h.Key)
		}
		seen[i] = true
		if err := setAttribute(&e, h); err != nil {
			return event.Event{}, errEnvelope("header %s: %v", h.Key, err)
		}
	}
	for i, ok := range seen {
		if !ok {
			return event.Event{}, errEnvelope("header %s is missing", headerNames[i])
		}
	}
	if string(m.Key) != e.Subject {
		return event.Event{}, errEnvelope("key %q is not the subject %q", m.Key, e.Subject)
	}
	e.Data = m.Value
	return e, nil
}

func headerIndex(key string) int {
	for i, name := range headerNames {
		if name == key {
			return i
		}
	}
	return -1
}

var (
	errEmpty    = errors.New("empty")
	errUnknown  = errors.New("not known here")
	errPositive = errors.New("not a positive number")
)

// setAttribute reads one header of the envelope into e.
func setAttribute(e *event.Event, h Header) (err error) {
	switch h.Key {
	case headerSpecVersion:
		if string(h.Value) != specVersion {
			return errUnknown
		}
	case headerContentType:
		if string(h.Value) != contentType {
			return errUnknown
		}
	case headerID:
		e.ID, err = uuid.ParseBytes(h.Value)
	case headerSource:
		e.Source, err = text(h.Value)
	case headerType:
		var s string
		s, err = text(h.Value)
		e.Type = event.Type(s)
	case headerTime:
		e.Time, err = time.Parse(timeLayout, string(h.Value))
		e.Time = e.Time.UTC()
	case headerSubject:
		e.Subject, err = text(h.Value)
	case headerTenant:
		e.Tenant, err = strconv.ParseInt(string(h.Value), 10, 64)
	case headerSeq:
		e.Seq, err = strconv.ParseInt(string(h.Value), 10, 64)
		if err == nil && e.Seq < 1 {
			err = errPositive
		}
	case headerTraceparent:
		e.Traceparent = string(h.Value)
	}
	return err
}

func text(b []byte) (string, error) {
	if len(b) == 0 {
		return "", errEmpty
	}
	return string(b), nil
}
