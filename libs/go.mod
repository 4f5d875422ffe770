module github.com/waybill-dev/waybill/libs

go 1.26.0

require github.com/waybill-dev/waybill/libs/testkit v0.0.0

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/google/uuid v1.6.0 // indirect
	go.opentelemetry.io/otel v1.47.0 // indirect
	go.opentelemetry.io/otel/trace v1.47.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/waybill-dev/waybill/libs/testkit => ./testkit
