package order

// carriesPAN says that a text holds what may be a card number: 13 to 19 digits, perhaps in groups, that pass Luhn's
// check. A tenth of all such runs passes by chance; that is the price of never storing one.
func carriesPAN(s string) bool {
	var digits []byte
	check := func() bool {
		// A longer run of digits may hold a card number as well: any window of it.
		for n := 13; n <= 19; n++ {
			for i := 0; i+n <= len(digits); i++ {
				if issued(digits[i:i+n]) && luhn(digits[i:i+n]) {
					return true
				}
			}
		}
		return false
	}
	gap := false
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digits = append(digits, c-'0')
			gap = false
		case (c == ' ' || c == '-' || c == '.') && len(digits) > 0 && !gap:
			gap = true
		default:
			if check() {
				return true
			}
			digits, gap = digits[:0], false
		}
	}
	return check()
}

// isPAN says that a name (an order's, a product's, a key) is nothing but a card number. Names with other characters in
// them are let through: a UUID may hold 13 digits in a row.
func isPAN(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && c != ' ' && c != '-' && c != '.' {
			return false
		}
	}
	n := 0
	for i := range len(s) {
		if s[i] >= '0' && s[i] <= '9' {
			n++
		}
	}
	return n >= 13 && n <= 19 && carriesPAN(s)
}

// issued compares the first digits with those that card networks use (ISO/IEC 7812: 2 to 6 are banking, travel and trade).
func issued(d []byte) bool { return d[0] >= 2 && d[0] <= 6 }

func luhn(d []byte) bool {
	sum := 0
	for i := range d {
		n := int(d[len(d)-1-i])
		if i%2 == 1 {
			if n *= 2; n > 9 {
				n -= 9
			}
		}
		sum += n
	}
	return sum%10 == 0
}
