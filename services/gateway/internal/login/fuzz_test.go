package login

import "testing"

// A token has one form.
func FuzzParseToken(f *testing.F) {
	f.Add(NewToken().String())
	f.Add("")
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB")
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n")
	f.Fuzz(func(t *testing.T, s string) {
		token, ok := ParseToken(s)
		if ok && token.String() != s {
			t.Fatalf("%q is read as %s", s, token)
		}
		if again, ok := ParseToken(token.String()); !ok || again != token {
			t.Fatalf("%s is not read again", token)
		}
		if Seal(token, Seal(token, token)) != token {
			t.Fatal("sealed twice is not open")
		}
	})
}
