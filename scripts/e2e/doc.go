// Package e2e holds the stories that the platform must tell, seen from outside: over
// HTTP through the gateway, over Kafka, and in what the sandbox that plays payment
// provider, carrier and mail server has seen. Nothing here knows a table or a package of
// a service.
//
// The tests start a stack of their own, on free ports, with data in a temporary
// directory and two processes of each service:
//
//	go test ./...
//
// or use one that runs:
//
//	WAYBILL_E2E_DATA=../../.waybill go test ./...      # of "waybill up" on this machine
//	WAYBILL_E2E_GATEWAY=http://127.0.0.1:8080 \
//	WAYBILL_E2E_SANDBOX=http://127.0.0.1:8090 go test ./...   # of Compose or a cluster
//
// badinput_test.go and its neighbours hold about a thousand bad inputs, each with the one
// answer that it may have, and look afterwards whether anything of them was stored,
// sent or logged:
//
//	go test -run 'TestBad|TestSlowClients' ./...
//
// What needs more than is given (Kafka's address, process ids to kill) is skipped, and
// says so. WAYBILL_E2E_KAFKA=host:port runs the stack of their own on that Kafka.
package e2e
