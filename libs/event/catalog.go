package event

// Type names what happened. It is the CloudEvents type, exactly as it stands on the wire.
type Type string

// The topic orders, written by the order service.
const (
	OrderCreated           Type = "order.created"
	OrderPaymentRequested  Type = "order.payment_requested"
	OrderPaymentProcessed  Type = "order.payment_processed"
	OrderRefundRequested   Type = "order.refund_requested"
	OrderShippingRequested Type = "order.shipping_requested"
	OrderCompleted         Type = "order.completed"
	OrderCancelled         Type = "order.cancelled"
	OrderFailed            Type = "order.failed"
	OrderAttention         Type = "order.attention"
)

// The topic inventory, written by the inventory service.
const (
	InventoryReserved Type = "inventory.reserved"
	InventoryReleased Type = "inventory.released"
	InventoryUpdated  Type = "inventory.updated"
)

// The topic payments, written by the payment service.
const (
	PaymentInitiated    Type = "payment.initiated"
	PaymentProcessed    Type = "payment.processed"
	PaymentFailed       Type = "payment.failed"
	PaymentRefunded     Type = "payment.refunded"
	PaymentRefundFailed Type = "payment.refund_failed"
)

// The topic shipping, written by the shipping service.
const (
	ShippingRequested Type = "shipping.requested"
	ShippingProgress  Type = "shipping.progress"
	ShippingCompleted Type = "shipping.completed"
	ShippingFailed    Type = "shipping.failed"
)

// The four topics. Each has one writer.
const (
	Orders    = "orders"
	Inventory = "inventory"
	Payments  = "payments"
	Shipping  = "shipping"
)

// catalog lists every type of each topic, in the order of its story.
var catalog = []struct {
	topic string
	types []Type
}{
	{Orders, []Type{OrderCreated, OrderPaymentRequested, OrderPaymentProcessed, OrderRefundRequested, OrderShippingRequested,
		OrderCompleted, OrderCancelled, OrderFailed, OrderAttention}},
	{Inventory, []Type{InventoryReserved, InventoryReleased, InventoryUpdated}},
	{Payments, []Type{PaymentInitiated, PaymentProcessed, PaymentFailed, PaymentRefunded, PaymentRefundFailed}},
	{Shipping, []Type{ShippingRequested, ShippingProgress, ShippingCompleted, ShippingFailed}},
}

var topicOf = func() map[Type]string {
	m := map[Type]string{}
	for _, c := range catalog {
		for _, t := range c.types {
			m[t] = c.topic
		}
	}
	return m
}()

// Topic is the topic that events of this type are written to, empty for a type that the catalogue does not know.
func (t Type) Topic() string { return topicOf[t] }

// Types lists the whole catalogue, topic by topic.
func Types() []Type {
	var all []Type
	for _, c := range catalog {
		all = append(all, c.types...)
	}
	return all
}

// Topics lists the topics.
func Topics() []string {
	var all []string
	for _, c := range catalog {
		all = append(all, c.topic)
	}
	return all
}
