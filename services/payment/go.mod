module github.com/waybill-dev/waybill/services/payment

go 1.26.0

require (
	github.com/waybill-dev/waybill/libs v0.0.0
	github.com/waybill-dev/waybill/libs/testkit v0.0.0
	github.com/waybill-dev/waybill/proto v0.0.0
)

replace (
	github.com/waybill-dev/waybill/libs => ../../libs
	github.com/waybill-dev/waybill/libs/testkit => ../../libs/testkit
	github.com/waybill-dev/waybill/proto => ../../proto
)
