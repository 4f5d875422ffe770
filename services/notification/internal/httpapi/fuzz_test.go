package httpapi

import "testing"

func FuzzRead(f *testing.F) {
	f.Add("o-1", "100", "z")
	f.Add("", "0", "-1")
	f.Add("o/1", "1e2", "zzzzzzzzzzzzzzzzzzz")
	f.Fuzz(func(t *testing.T, id, limit, cursor string) {
		gotID, n, after, err := read(id, limit, cursor)
		if err == nil && (gotID != id || !validID(id) || n < 1 || n > maxPage || after < 0 || cursor != "" && after < 1) {
			t.Fatalf("%q, %q, %q is read as %q, %d, %d", id, limit, cursor, gotID, n, after)
		}
	})
}
