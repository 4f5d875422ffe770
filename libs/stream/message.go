package stream

import "time"

// Header is one record header.
type Header struct {
	Key   string
	Value []byte
}

// Message is one Kafka record. Partition and Offset are set on what was consumed.
type Message struct {
	Topic      string
	Partition  int32
	Offset     int64
	Key, Value []byte
	Headers    []Header
	Time       time.Time
}
