package order

import "regexp"

// countries are the officially assigned codes of ISO 3166-1 alpha-2.
var countries = func() map[string]bool {
	const codes = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ " +
		"CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB " +
		"GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH " +
		"KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX " +
		"MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE " +
		"SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC " +
		"VE VG VI VN VU WF WS YE YT ZA ZM ZW"
	m := map[string]bool{}
	for i := 0; i+2 <= len(codes); i += 3 {
		m[codes[i:i+2]] = true
	}
	return m
}()

// postalCodes are the shapes of postal codes where we know them. A shape that is not listed is not guessed at: see anyPostalCode.
var postalCodes = func() map[string]*regexp.Regexp {
	m := map[string]*regexp.Regexp{}
	for shape, codes := range map[string][]string{
		`\d{3}`:                            {"IS", "FO"},
		`\d{4}`:                            {"AT", "AU", "BE", "BG", "CH", "CY", "DK", "GE", "HU", "LI", "LU", "NO", "NZ", "PH", "SI", "TN", "ZA"},
		`\d{5}`:                            {"DE", "EE", "ES", "FI", "FR", "HR", "ID", "IT", "KR", "MC", "ME", "MX", "MY", "RS", "SM", "TH", "TR", "UA", "VA"},
		`\d{6}`:                            {"CN", "IN", "RO", "RU", "SG", "KZ"},
		`\d{5}(-\d{4})?`:                   {"US", "PR"},
		`\d{3} ?\d{2}`:                     {"CZ", "GR", "SE", "SK"},
		`\d{2}-\d{3}`:                      {"PL"},
		`\d{4}-\d{3}`:                      {"PT"},
		`\d{5}-?\d{3}`:                     {"BR"},
		`\d{3}-?\d{4}`:                     {"JP"},
		`\d{7}|\d{5}`:                      {"IL"},
		`\d{4} ?[A-Z]{2}`:                  {"NL"},
		`(LT-)?\d{5}`:                      {"LT"},
		`(LV-)?\d{4}`:                      {"LV"},
		`[A-Z]\d[A-Z] ?\d[A-Z]\d`:          {"CA"},
		`[A-Z]\d[\dW] ?[A-Z\d]{4}`:         {"IE"},
		`[A-Z]{3} ?\d{4}`:                  {"MT"},
		`([A-Z]\d{4}[A-Z]{3})|\d{4}`:       {"AR"},
		`[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}`: {"GB", "GG", "IM", "JE"},
	} {
		for _, c := range codes {
			m[c] = regexp.MustCompile(`^(` + shape + `)$`)
		}
	}
	return m
}()

// anyPostalCode is what a postal code of any other country looks like; some countries (AE, HK, …) have none.
var anyPostalCode = regexp.MustCompile(`^[A-Z0-9][A-Z0-9 -]{0,9}$`)

// postalCodeFits compares the code with the shape of its country.
func postalCodeFits(country, code string) bool {
	if shape := postalCodes[country]; shape != nil {
		return shape.MatchString(code)
	}
	return code == "" || anyPostalCode.MatchString(code)
}
