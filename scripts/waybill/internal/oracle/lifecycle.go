package oracle

import "strings"

// moves is the order's transition table, as docs/order-lifecycle.md has it; a test compares the two. It is a copy on
// purpose: an oracle that asked the order service's own code would share its mistakes.
var moves = map[string]map[string][]string{
	"pending": {
		"stock.reserved": {"paying"}, "charge_only": {"paying"},
		"stock.mismatch": {"failed"}, "stock.refused": {"failed"}, "stock.closed": {"failed"},
		"cancel": {"cancelled"}, "deadline": {"cancelled"},
	},
	"paying": {
		"payment.processed": {"paid", "completed"}, // the latter without items
		"payment.failed":    {"cancelled"},
		"cancel":            {"cancelling"}, "deadline": {"cancelling"},
	},
	"cancelling": {
		"payment.failed": {"cancelled"}, "payment.refunded": {"cancelled"},
		"payment.processed": {"cancelling"}, "payment.refund_failed": {"attention"},
	},
	"paid": {
		"shipping.requested": {"shipping"}, "shipping.completed": {"completed"}, "shipping.failed": {"attention"},
	},
	"shipping": {
		"shipping.completed": {"completed"}, "shipping.failed": {"attention"},
	},
	"attention": {
		"person.resend": {"paid"}, "person.refund": {"cancelling"}, "person.write_off": {"cancelled"},
	},
}

// aliases are events that the timeline shows under their own name where the table has a condition.
var aliases = map[string]string{"inventory.reserved": "stock.reserved"}

// allowed says whether an order may go from one status to another at a line of its timeline. Lines that change nothing may
// always stand there.
func allowed(from, line, to string) bool {
	if from == to {
		return true
	}
	if a := aliases[line]; a != "" {
		line = a
	}
	name, _, _ := strings.Cut(line, " (")
	for _, status := range moves[from][name] {
		if status == to {
			return true
		}
	}
	return false
}

// final says that nothing takes an order out of a status but, from attention, a person.
func final(status string) bool {
	switch status {
	case "completed", "failed", "cancelled", "attention":
		return true
	}
	return false
}
