package stream

import (
	"time"

	"github.com/IBM/sarama"
)

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

// headerKeys are headerNames as the client library wants them. Every record shares them.
var headerKeys = func() (keys [headers][]byte) {
	for i, name := range headerNames {
		keys[i] = []byte(name)
	}
	return keys
}()

// keyBytes is the key of the i-th header of a record. Those of the envelope stand in Encode's order and cost nothing.
func keyBytes(i int, key string) []byte {
	if i < headers && headerNames[i] == key {
		return headerKeys[i]
	}
	return []byte(key)
}

// keyString is the way back.
func keyString(i int, key []byte) string {
	if i < headers && headerNames[i] == string(key) {
		return headerNames[i]
	}
	return string(key)
}

// received turns records into messages. All headers of the batch share one array.
func received(records []*sarama.ConsumerMessage) []Message {
	n := 0
	for _, r := range records {
		n += len(r.Headers)
	}
	all := make([]Header, 0, n)
	batch := make([]Message, len(records))
	for i, r := range records {
		start := len(all)
		for j, h := range r.Headers {
			all = append(all, Header{keyString(j, h.Key), h.Value})
		}
		batch[i] = Message{
			Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value,
			Headers: all[start:len(all):len(all)], Time: r.Timestamp,
		}
	}
	return batch
}
