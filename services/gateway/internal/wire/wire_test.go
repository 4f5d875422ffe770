package wire

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// serve answers with the body's length, behind a watched listener.
func serve(t *testing.T) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(400)
			return
		}
		fmt.Fprintf(w, "%s %d", r.URL.Path, len(b))
	}))
	s.Config.MaxHeaderBytes = 16 << 10
	s.Listener = Listener(s.Listener)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// talk sends raw bytes, in pieces of that size, and reads all answers.
func talk(t *testing.T, addr, raw string, piece int) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	go func() {
		for len(raw) > 0 {
			n := min(piece, len(raw))
			if _, err := io.WriteString(c, raw[:n]); err != nil {
				return
			}
			raw = raw[n:]
		}
	}()
	var out []string
	for r := bufio.NewReader(c); ; {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return strings.Join(out, ", ")
		}
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode == 200 {
			out = append(out, string(b))
		} else {
			out = append(out, fmt.Sprint(resp.StatusCode))
			var doc struct{ Status int }
			if resp.Header.Get("Content-Type") == "application/problem+json" && json.Unmarshal(b, &doc) == nil && doc.Status == resp.StatusCode {
				if resp.Close {
					return strings.Join(out, ", ")
				}
				continue
			}
			if len(b) > 0 { // the handler's own has none
				t.Errorf("%d is no problem document: %s", resp.StatusCode, b)
			}
		}
		if resp.Close {
			return strings.Join(out, ", ")
		}
	}
}

func TestListener(t *testing.T) {
	addr := serve(t)
	const last = "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	for name, c := range map[string]struct{ raw, want string }{
		"plain":                 {last, "/last 0"},
		"length, then another":  {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" + last, "/a 5, /last 0"},
		"chunks, then another":  {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n" + last, "/a 8, /last 0"},
		"a request in a body":   {fmt.Sprintf("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(last), last) + last, fmt.Sprintf("/a %d, /last 0", len(last))},
		"folds in a body":       {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na\r\n b\r\n c" + last, "/a 9, /last 0"},
		"empty line after POST": {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx\r\n" + last, "/a 1, /last 0"},
		"long header":           {"GET /a HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 3000) + "\r\n\r\n" + last, "/a 0, /last 0"},
		"equal lengths":         {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx" + last, "/a 1, /last 0"},

		"CL.TE":                {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG" + last, "400"},
		"TE.CL":                {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + last, "400"},
		"CL.TE, other case":    {"POST /a HTTP/1.1\r\nHost: x\r\ncontent-LENGTH: 6\r\ntRANSFER-encoding: chunked\r\n\r\n0\r\n\r\nG" + last, "400"},
		"CL.TE, second":        {"GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG" + last, "/a 0, 400"},
		"two lengths":          {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx" + last, "400"},
		"length with a sign":   {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n" + last, "400"},
		"length in hex":        {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello" + last, "400"},
		"list of lengths":      {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello" + last, "400"},
		"folded header":        {"GET /a HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n" + last, "400"},
		"folded with tab":      {"GET /a HTTP/1.1\r\nHost: x\r\nX: a\r\n\tb\r\n\r\n" + last, "400"},
		"folded TE":            {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + last, "400"},
		"expects wonders":      {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: wonders\r\n\r\nx" + last, "400"},
		"large header":         {"GET /a HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 64<<10) + "\r\n\r\n", "431"},
		"version of tomorrow":  {"GET /a HTTP/3.0\r\nHost: x\r\n\r\n", "505"},
		"space before colon":   {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nhello" + last, "400"},
		"TE in 1.0":            {"POST /a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		"unknown coding":       {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + last, "501"},
		"two codings":          {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + last, "501"},
		"two hosts":            {"GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + last, "400"},
		"no host":              {"GET /a HTTP/1.1\r\n\r\n" + last, "400"},
		"NUL in a header":      {"GET /a HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n" + last, "400"},
		"bare CR in a header":  {"GET /a HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n" + last, "400"},
		"chunk size is no hex": {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n" + last, ""},
	} {
		for _, piece := range []int{1, 7, len(c.raw)} {
			got := talk(t, addr, c.raw, piece)
			if name == "chunk size is no hex" && got == "400" {
				continue // the handler was quicker than the end of the connection
			}
			if got != c.want {
				t.Errorf("%s, in pieces of %d: got %q, want %q", name, piece, got, c.want)
			}
		}
	}
}

// FuzzFollow: how the bytes are cut into reads does not matter.
func FuzzFollow(f *testing.F) {
	f.Add([]byte("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nxxGET / HTTP/1.1\r\n a\r\n\r\n"), 3)
	f.Add([]byte("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"), 5)
	f.Fuzz(func(t *testing.T, data []byte, piece int) {
		if piece < 1 || piece > 1000 {
			return
		}
		whole, cut := append([]byte(nil), data...), append([]byte(nil), data...)
		var a, b framing
		errA := a.follow(whole)
		var errB error
		for i := 0; i < len(cut) && errB == nil; i += piece {
			errB = b.follow(cut[i:min(i+piece, len(cut))])
		}
		if errA != errB || string(whole) != string(cut) && errA == nil || a.at != b.at || a.left != b.left {
			t.Errorf("whole %v %+v, in pieces %v %+v", errA, a, errB, b)
		}
	})
}
