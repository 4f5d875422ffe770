// Package wire refuses requests whose end two readers could find in different places.
//
// net/http accepts a request with both Content-Length and Transfer-Encoding (the latter wins, the former is removed before a handler could
// see it), folded header lines, and Transfer-Encoding in HTTP/1.0, which it ignores. All are allowed to a server and all are what request
// smuggling is made of, so the gateway does not take them. The listener follows the framing of each connection, and where it finds one of
// them it spoils the byte it stands at: net/http then sees a malformed header, answers 400 and closes, as for any other. Its answers to what
// it cannot read are text; on their way out they become problem documents.
//
//	head line → header lines → (body of n bytes | chunk size → chunk → … → trailer lines) → head line …
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/waybill-dev/waybill/libs/problem"
)

// errFraming ends a connection whose chunks cannot be followed; net/http could not either.
var errFraming = errors.New("chunks cannot be read")

// maxLine is how much of a line is kept: enough for the headers that count, and for a chunk's size. Longer lines are followed all the same.
const maxLine = 256

// Listener is l with watched connections.
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c}, nil
}

type conn struct {
	net.Conn
	frame framing
}

// Write gives net/http's own refusals, which no handler sees, the form of all others.
func (c *conn) Write(b []byte) (int, error) {
	if doc := refusal(b); doc != nil {
		if _, err := c.Conn.Write(doc); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// refusal is the problem document for what net/http says of a request that it cannot read, or nil where b is anything else. It is known by
// its header, in one short write and without a Date, which no answer of a handler has.
func refusal(b []byte) []byte {
	const headers = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
	status, ok := bytes.CutPrefix(b, []byte("HTTP/1.1 "))
	if !ok || len(b) > 512 {
		return nil
	}
	line, _, ok := bytes.Cut(status, []byte(headers))
	if !ok || len(line) < 3 || bytes.IndexByte(line, '\r') >= 0 {
		return nil
	}
	code, err := strconv.Atoi(string(line[:3]))
	if err != nil || code < 400 {
		return nil
	}
	slug, detail := "malformed-request", "the request cannot be read"
	switch code {
	case http.StatusRequestHeaderFieldsTooLarge:
		slug, detail = "header-too-large", "a header has at most 16 KiB"
	case http.StatusNotImplemented:
		slug, detail = "not-implemented", "chunked is the one transfer coding"
	case http.StatusHTTPVersionNotSupported:
		slug, detail = "http-version-unsupported", "HTTP/1.1 is spoken here"
	}
	title := http.StatusText(code)
	body := fmt.Sprintf(`{"type":"urn:problem:%s","title":%q,"status":%d,"detail":%q}`+"\n", slug, title, code, detail)
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nCache-Control: no-store\r\nConnection: close\r\nContent-Length: %d\r\nContent-Type: %s\r\n\r\n%s",
		code, title, len(body), problem.ContentType, body)
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if e := c.frame.follow(b[:n]); e != nil {
		return 0, e
	}
	return n, err
}

type part int

const (
	headLine part = iota
	headers
	body
	chunkSize
	chunk
	trailers
	spoiled // net/http closes; what comes is not read
)

// framing is where a connection stands.
type framing struct {
	at                 part
	line               []byte // the beginning of the current line
	long               bool   // the line is longer than what is kept
	left               int64  // bytes of body or chunk to come
	length             int64
	hasLength, hasCode bool
	old                bool // HTTP/1.0
}

// follow reads b, and spoils the byte that makes it ambiguous.
func (f *framing) follow(b []byte) error {
	for i := 0; i < len(b); {
		switch f.at {
		case spoiled:
			return nil
		case body, chunk:
			n := min(f.left, int64(len(b)-i))
			i += int(n)
			if f.left -= n; f.left > 0 {
				return nil
			}
			if f.at == body {
				f.begin()
			} else {
				f.at = chunkSize
			}
		default:
			if f.at == headers && len(f.line) == 0 && (b[i] == ' ' || b[i] == '\t') {
				b[i], f.at = 0, spoiled
				return nil
			}
			end := bytes.IndexByte(b[i:], '\n')
			if end < 0 {
				f.keep(b[i:])
				return nil
			}
			f.keep(b[i : i+end])
			i += end + 1
			ok, err := f.endLine()
			if err != nil {
				return err
			}
			if !ok {
				b[i-1], f.at = 0, spoiled
				return nil
			}
		}
	}
	return nil
}

func (f *framing) begin() { *f = framing{line: f.line[:0]} }

func (f *framing) keep(b []byte) {
	room := maxLine - len(f.line)
	if len(b) > room {
		b, f.long = b[:room], true
	}
	f.line = append(f.line, b...)
}

// endLine acts on a whole line: false spoils it.
func (f *framing) endLine() (ok bool, err error) {
	line, long := strings.TrimSuffix(string(f.line), "\r"), f.long
	f.line, f.long = f.line[:0], false
	switch f.at {
	case headLine:
		if line != "" { // net/http forgives an empty line after a POST
			f.old = strings.HasSuffix(line, " HTTP/1.0")
			f.at = headers
		}
	case headers:
		if line == "" && !long {
			f.endHeaders()
			return true, nil
		}
		return f.header(line), nil
	case chunkSize:
		size, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(strings.TrimRight(size, " \t"), 16, 62)
		if err != nil || long {
			return true, errFraming
		}
		if n == 0 {
			f.at = trailers
		} else {
			f.at, f.left = chunk, int64(n)+2 // with its CRLF
		}
	case trailers:
		if line == "" && !long {
			f.begin()
		}
	}
	return true, nil
}

func (f *framing) header(line string) bool {
	name, value, _ := strings.Cut(line, ":")
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "content-length":
		n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 63)
		if err != nil || n < 0 || f.hasLength && n != f.length {
			return false
		}
		f.hasLength, f.length = true, n
	case "transfer-encoding":
		f.hasCode = true
	case "expect": // net/http would answer 417, without a word
		if !strings.EqualFold(strings.TrimSpace(value), "100-continue") {
			return false
		}
	}
	return !(f.hasLength && f.hasCode) && !(f.hasCode && f.old)
}

func (f *framing) endHeaders() {
	switch {
	case f.hasCode:
		f.at = chunkSize
	case f.hasLength && f.length > 0:
		f.at, f.left = body, f.length
	default:
		f.begin()
	}
}
