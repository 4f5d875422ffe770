package wire

import (
	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// OTLPJSON reads what OTLP reads, written as JSON. Who cares for speed sends protobuf: this is turned into it.
type OTLPJSON struct{ *OTLP }

// Decode reads a request. Fields that are not known are passed over, as the specification asks.
func (d OTLPJSON) Decode(b []byte) error {
	var request collector.ExportMetricsServiceRequest
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, &request); err != nil {
		return ErrMalformed
	}
	b, err := proto.Marshal(&request)
	if err != nil {
		return ErrMalformed
	}
	return d.OTLP.Decode(b)
}
