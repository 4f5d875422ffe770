module github.com/waybill-dev/waybill/scripts/simulation

go 1.26.0

require (
	github.com/google/go-cmp v0.7.0
	github.com/google/uuid v1.6.0
	github.com/waybill-dev/waybill/libs v0.0.0
	pgregory.net/rapid v1.3.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	go.opentelemetry.io/otel v1.47.0 // indirect
	go.opentelemetry.io/otel/trace v1.47.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/waybill-dev/waybill/libs => ../../libs

replace github.com/waybill-dev/waybill/libs/testkit => ../../libs/testkit
