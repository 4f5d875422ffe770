package notice

import (
	"fmt"
	"strconv"
	"strings"
)

// Facts are what a message can speak of.
type Facts struct {
	OrderID  string
	Amount   int64 // minor units
	Currency string
	Reason   string
	// WrittenOff: the money was returned outside the platform.
	WrittenOff bool
}

// Write puts a message into words.
func Write(k Kind, f Facts) (subject, text string) {
	amount := f.Currency + " " + Amount(f.Amount, f.Currency)
	var body string
	switch k {
	case Confirmed:
		subject = "Your order " + f.OrderID + " is confirmed"
		body = "Thank you for your order. We have received your payment of " + amount + " and are preparing your parcel."
	case Resent:
		subject = "Your order " + f.OrderID + " is on its way again"
		body = "Your parcel could not be delivered at the first attempt. We are sending it to you again, at no extra cost."
	case Completed:
		subject = "Your order " + f.OrderID + " is complete"
		body = "Your order of " + amount + " is complete. We hope that everything is to your satisfaction, and thank you for your trust."
	case Refunding:
		subject = "Refund for your order " + f.OrderID
		body = "We are returning " + amount + " to the payment method that you used. Depending on your bank this may take a few days."
	case Attention:
		subject, body = attention(f, amount)
	case Failed:
		subject = "Your order " + f.OrderID + " could not be accepted"
		body = "We are sorry that we could not accept your order: " + phrase(failures, f.Reason, "it could not be processed") +
			". You have not been charged."
	case Cancelled:
		subject = "Your order " + f.OrderID + " was cancelled"
		body = cancelled(f, amount)
	default:
		panic("notice: no words for " + string(k))
	}
	return subject, "Dear customer,\n\n" + wrap(body) + "\n\nOrder: " + f.OrderID + "\nAmount: " + amount +
		"\n\n" + closing + "\n\nKind regards\nYour customer service\n"
}

var closing = wrap("If you have any questions, please reply to this message and quote your order number.")

// failures completes "We could not accept your order:".
var failures = map[string]string{
	"out_of_stock":        "an item is no longer in stock",
	"unknown_product":     "an item is not part of our range",
	"amount_mismatch":     "the price of an item has changed",
	"reservation_expired": "the reservation of your items has expired",
}

// cancellations completes "Your order was cancelled".
var cancellations = map[string]string{
	"payment_declined": "because your payment was declined",
	"payment_failed":   "because your payment could not be processed",
	"customer_request": "as you requested",
	"expired":          "because it could not be completed in time",
	"shipping_failed":  "because it could not be delivered",
}

func phrase(m map[string]string, reason, otherwise string) string {
	if p, ok := m[reason]; ok {
		return p
	}
	return otherwise
}

func cancelled(f Facts, amount string) string {
	body := "Your order was cancelled, " + phrase(cancellations, f.Reason, "because it could not be carried out") + "."
	switch {
	case f.WrittenOff:
		return body + " Your payment of " + amount + " has been returned to you."
	case f.Reason == "payment_declined" || f.Reason == "payment_failed":
		return body + " You have not been charged. You are welcome to order again with another payment method."
	case f.Reason == "shipping_failed":
		return body + " Your payment of " + amount + " has been refunded. We apologise for the inconvenience."
	}
	return body + " If a payment had been made, it has been refunded in full."
}

func attention(f Facts, amount string) (subject, body string) {
	if f.Reason == "refund_failed" {
		return "The refund for your order " + f.OrderID + " is delayed",
			"We are sorry that we could not return " + amount + " to you at once. Our customer service is taking care of it " +
				"and will come back to you; there is nothing that you need to do."
	}
	return "A problem with the delivery of your order " + f.OrderID,
		"We are sorry that your parcel could not be delivered. Our customer service is taking care of it and will come back " +
			"to you shortly; there is nothing that you need to do."
}

// digits are the currencies of ISO 4217 whose minor unit is not a hundredth.
var digits = map[string]int{
	"BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0, "RWF": 0, "UGX": 0, "UYI": 0,
	"VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
	"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3, "CLF": 4, "UYW": 4,
}

// Amount writes minor units as people do: 5990 euro cents are 59.90.
func Amount(minor int64, currency string) string {
	n, ok := digits[currency]
	if !ok {
		n = 2
	}
	s := strconv.FormatInt(minor, 10)
	sign := ""
	if minor < 0 {
		sign, s = "-", s[1:]
	}
	if n == 0 {
		return sign + s
	}
	s = fmt.Sprintf("%0*s", n+1, s)
	return sign + s[:len(s)-n] + "." + s[len(s)-n:]
}

// lineLength is where mail is wrapped (RFC 3676 recommends 66 to 78).
const lineLength = 72

func wrap(s string) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(s) {
		switch {
		case i == 0:
		case column+1+len(word) > lineLength:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}
