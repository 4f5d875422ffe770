package event

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"
)

// ErrMalformed marks an event whose data is not what its type promises. It is permanent: reading it again does not help.
var ErrMalformed = errors.New("malformed event")

// Event is one thing that happened.
type Event struct {
	ID      uuid.UUID // UUIDv7; the same for each delivery and each redrive
	Type    Type
	Source  string // "/waybill/<service>"; set by the outbox
	Subject string // what it is about, and the Kafka key
	Seq     int64  // from 1, contiguous per source and subject
	Tenant  int64
	Time    time.Time
	// Cause is the Time of the event that this one follows from; zero where none on the platform did, as with a request.
	Cause time.Time
	// Traceparent is the W3C trace context of what caused the event, so that a trace outlives the outbox.
	Traceparent string
	Data        []byte // protobuf
}

// New makes an event that the request or job in ctx caused. Its trace is that of ctx; a background job that has none
// starts one. It panics where m cannot be marshalled: strings must have been checked for UTF-8 when they came in.
func New(ctx context.Context, t Type, subject string, tenant, seq int64, m proto.Message) Event {
	return build(t, subject, tenant, seq, Traceparent(ctx), m)
}

// Next makes an event that cause has caused: it keeps tenant and trace, and says when its cause happened.
func (cause Event) Next(t Type, subject string, seq int64, m proto.Message) Event {
	e := build(t, subject, cause.Tenant, seq, cause.Traceparent, m)
	e.Cause = cause.Time
	return e
}

func build(t Type, subject string, tenant, seq int64, traceparent string, m proto.Message) Event {
	if t.Topic() == "" {
		panic("event: type " + string(t) + " is not in the catalogue")
	}
	data, err := proto.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("event: marshal %s: %v", t, err))
	}
	return Event{
		ID: newID(), Type: t, Subject: subject, Seq: seq, Tenant: tenant,
		Time: time.Now().UTC(), Traceparent: traceparent, Data: data,
	}
}

// Decode reads the event's data into m. An error wraps ErrMalformed.
func (e Event) Decode(m proto.Message) error {
	if err := proto.Unmarshal(e.Data, m); err != nil {
		return fmt.Errorf("decode %s %s: %w: %v", e.Type, e.ID, ErrMalformed, err)
	}
	return nil
}

// Traceparent is the W3C header (https://www.w3.org/TR/trace-context/, version 00) of the span in ctx. Without one it
// starts a trace of its own, not sampled.
func Traceparent(ctx context.Context) string {
	sc := trace.SpanContextFromContext(ctx)
	var b [55]byte
	copy(b[:], "00-")
	tid, sid, flags := sc.TraceID(), sc.SpanID(), byte(sc.TraceFlags())
	if !sc.IsValid() {
		flags = 0
		_, _ = rand.Read(tid[:]) // crypto/rand.Read never fails since Go 1.24
		_, _ = rand.Read(sid[:])
	}
	hex.Encode(b[3:35], tid[:])
	b[35] = '-'
	hex.Encode(b[36:52], sid[:])
	b[52] = '-'
	hex.Encode(b[53:55], []byte{flags})
	return string(b[:])
}

// newID makes a UUIDv7 (RFC 9562, 5.7): sorted by time, so that indexes on it grow at one end.
func newID() uuid.UUID {
	id, err := uuid.NewV7()
	if err != nil {
		panic(err) // the system has no randomness left
	}
	return id
}

func init() {
	// One read of the kernel's randomness serves many ids. They are names, not secrets.
	uuid.EnableRandPool()
}
