module github.com/waybill-dev/waybill/scripts/e2e

go 1.26.0

require (
	github.com/google/go-cmp v0.7.0
	github.com/google/uuid v1.6.0
	github.com/twmb/franz-go v1.22.2
	golang.org/x/sync v0.24.0
)

require (
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/pierrec/lz4/v4 v4.1.33 // indirect
	github.com/twmb/franz-go/pkg/kmsg v1.15.0 // indirect
)

replace (
	github.com/waybill-dev/waybill/libs => ../../libs
	github.com/waybill-dev/waybill/libs/testkit => ../../libs/testkit
	github.com/waybill-dev/waybill/proto => ../../proto
)
