// Package route is the table of what the gateway passes on, and to whom. A path that is not in it does not exist.
package route

import "time"

// Service names the upstreams.
type Service string

// The services behind the gateway.
const (
	Order            Service = "order"
	Payment          Service = "payment"
	Inventory        Service = "inventory"
	Shipping         Service = "shipping"
	Notification     Service = "notification"
	Analytics        Service = "analytics"
	MetricsProcessor Service = "metrics-processor"
)

// Access says who may pass.
type Access int

const (
	// User needs a user's token; which roles may do what is the service's to say.
	User Access = iota
	// Signed has no token: the sender signs the body, and the service checks that.
	Signed
)

const (
	// usual is longer than any answer and than the server's 15 s for a body, so that a client that is late is told that it is (408), but
	// shorter than its 30 s write time-out, so that a late service becomes a 504.
	usual = 18 * time.Second
	// streaming has no end; each write has a deadline of its own.
	streaming = 0
)

// Route is one line of the table.
type Route struct {
	Pattern string // chi
	To      Service
	Access  Access
	Timeout time.Duration // 0: a stream
	Strip   string        // prefix that the service does not know
}

// Table is the whole of it. Patterns are literal: no method is named, because the service answers 405 itself.
var Table = []Route{
	{"/orders", Order, User, usual, ""},
	{"/orders/*", Order, User, usual, ""},
	{"/orders/{order_id}/events", Order, User, streaming, ""},
	{"/payment/{order_id}", Order, User, usual, ""},
	{"/payments", Payment, User, usual, ""},
	{"/payments/*", Payment, User, usual, ""},
	{"/webhooks/payments", Payment, Signed, usual, ""},
	{"/inventory/*", Inventory, User, usual, ""},
	{"/products", Inventory, User, usual, ""},
	{"/products/*", Inventory, User, usual, ""},
	{"/shipping", Shipping, User, usual, ""},
	{"/shipping/*", Shipping, User, usual, ""},
	{"/webhooks/shipping", Shipping, Signed, usual, ""},
	{"/notifications", Notification, User, usual, ""},
	{"/notifications/*", Notification, User, usual, ""},
	{"/events", Analytics, User, usual, ""},
	{"/events/*", Analytics, User, usual, ""},
	{"/stats", Analytics, User, usual, ""},
	{"/stats/*", Analytics, User, usual, ""},
	{"/reports", Analytics, User, usual, ""},
	{"/reports/*", Analytics, User, usual, ""},
	{"/metrics-processor/*", MetricsProcessor, User, usual, "/metrics-processor"},
	{"/metrics-processor/stream", MetricsProcessor, User, streaming, "/metrics-processor"},
}

// Interventions are reached by the name of the service that keeps them: /interventions/{service}/… → /interventions/….
func Interventions() []Route {
	var out []Route
	for _, s := range []Service{Order, Payment, Inventory, Shipping, Notification, Analytics, MetricsProcessor} {
		prefix := "/interventions/" + string(s)
		out = append(out,
			Route{prefix, s, User, usual, prefix},
			Route{prefix + "/*", s, User, usual, prefix})
	}
	return out
}

// Internal are paths of services that only services call. A user's token would be refused there; the gateway does not even ask.
var Internal = []string{"/inventory/reservations"}
