module github.com/waybill-dev/waybill/libs

go 1.26.0

require (
	github.com/waybill-dev/waybill/libs/testkit v0.0.0
)

replace (
	github.com/waybill-dev/waybill/libs/testkit => ./testkit
)
