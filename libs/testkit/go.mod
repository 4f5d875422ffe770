module github.com/waybill-dev/waybill/libs/testkit

go 1.26.0

require (
	github.com/waybill-dev/waybill/libs v0.0.0
)

replace (
	github.com/waybill-dev/waybill/libs => ../
)
