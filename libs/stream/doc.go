// Package stream is Apache Kafka as the platform uses it, behind small types of its own. The client library (sarama)
// appears in no signature, so that it can be changed.
package stream
