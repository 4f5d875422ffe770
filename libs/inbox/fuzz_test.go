package inbox

import (
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/waybill-dev/waybill/libs/stream"
)

func FuzzKeyFrom(f *testing.F) {
	for _, s := range []string{"", "abc", `"abc"`, `"a\"b\\c"`, `"a\b"`, `"a"b`, "a b", "ü", strings.Repeat("k", 256), "\x7f"} {
		f.Add(s, "")
	}
	f.Add("one", "two")
	f.Fuzz(func(t *testing.T, first, second string) {
		r := &http.Request{Header: http.Header{"Idempotency-Key": {first}}}
		if second != "" {
			r.Header.Add("Idempotency-Key", second)
		}
		key, err := KeyFrom(r, "fallback")
		if err != nil {
			return
		}
		// What is taken is one visible word, and the same one when it is sent in the other form.
		if second != "" || len(key) < 1 || len(key) > 255 {
			t.Fatalf("%q and %q are the key %q", first, second, key)
		}
		for _, c := range []byte(key) {
			if c <= ' ' || c >= 0x7f {
				t.Fatalf("%q is the key %q", first, key)
			}
		}
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
		if again, err := KeyFrom(&http.Request{Header: http.Header{"Idempotency-Key": {quoted}}}, ""); err != nil || again != key {
			t.Fatalf("%q is the key %q, and %s is %q (%v)", first, key, quoted, again, err)
		}
	})
}

// FuzzDecode reads records as they may lie on a topic that somebody else can write to.
func FuzzDecode(f *testing.F) {
	add := func(m stream.Message) {
		var flat strings.Builder
		for _, h := range m.Headers {
			flat.WriteString(h.Key + "\x00" + string(h.Value) + "\x00")
		}
		f.Add(string(m.Key), flat.String(), m.Value)
	}
	good := ev("o-1", 1)
	good.Traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	add(stream.Encode(good))
	bad := good
	bad.Subject, bad.Traceparent = "a\x01\xff", "\x00"
	add(stream.Encode(bad))
	f.Fuzz(func(t *testing.T, key, flat string, value []byte) {
		m := stream.Message{Key: []byte(key), Value: value}
		parts := strings.Split(flat, "\x00")
		for n := 0; n+1 < len(parts); n += 2 {
			m.Headers = append(m.Headers, stream.Header{Key: parts[n], Value: []byte(parts[n+1])})
		}
		e, err := decode(m)
		if err != nil {
			return // it becomes a dead letter, whose reason is a text column
		}
		// What is taken can be written into the tables.
		for _, s := range []string{e.Source, e.Subject, string(e.Type), e.Traceparent, traceID(e.Traceparent)} {
			if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
				t.Fatalf("%q is no text", s)
			}
		}
		if e.Seq < 1 || e.Subject == "" || len(e.Subject) > nameLimit || len(e.Source) > nameLimit || len(e.Type) > nameLimit {
			t.Fatalf("decoded to %+v", e)
		}
		if len(payload(e)) == 0 { // a message of the catalogue, or base64
			t.Fatal("an event without a payload to show")
		}
	})
}

func FuzzPrintable(f *testing.F) {
	f.Add("plain")
	f.Add("a\x00b\xff" + strings.Repeat("ü", 1100))
	f.Fuzz(func(t *testing.T, s string) {
		got := printable(s)
		if !utf8.ValidString(got) || strings.ContainsRune(got, 0) || len(got) > 2000 || printable(got) != got {
			t.Fatalf("%q is printed as %q", s, got)
		}
	})
}
