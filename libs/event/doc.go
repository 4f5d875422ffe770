// Package event holds the envelope that every message of the platform travels in and the catalogue of what may be said.
//
// The envelope is CloudEvents 1.0 (https://github.com/cloudevents/spec, v1.0.2) in Kafka's binary content mode; package
// stream puts it into record headers. Value, key and subject: the protobuf message of package proto, and the id of the
// thing that the event is about.
//
// Events of one source about one subject are numbered from 1 without a gap (Seq, the extension ce_aggregateseq). That
// makes order and loss things that can be checked: a reader that has applied number n drops what is not above n, and
// knows that something is missing when n+2 comes.
package event
