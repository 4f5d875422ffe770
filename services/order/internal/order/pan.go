package order

// carriesPAN says that a text holds what may be a card number: 13 to 19 digits, perhaps in groups, that pass Luhn's
// check. A tenth of all such runs passes by chance; that is the price of never storing one.
func carriesPAN(s string) bool {
	var digits []byte
	check := func() bool {
		n := len(digits)
		if n <= 19 {
			return isCard(digits)
		}
		for i := 0; i+13 <= n; i++ { // a longer run may have one anywhere in it
			for j := i + 13; j <= min(n, i+19); j++ {
				if isCard(digits[i:j]) {
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
	var digits []byte
	for i := range len(s) {
		if s[i] >= '0' && s[i] <= '9' {
			digits = append(digits, s[i]-'0')
		}
	}
	return isCard(digits)
}

// isCard compares the whole run with what a card number is: its first digit is one that banking, travel and trade have (ISO/IEC
// 7812: 2 to 6), and Luhn's check passes.
func isCard(d []byte) bool {
	return len(d) >= 13 && len(d) <= 19 && d[0] >= 2 && d[0] <= 6 && luhn(d)
}

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
