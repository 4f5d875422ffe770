package problem

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// MaxBody bounds a body; the largest honest one, an order of 100 items, is about 8 KiB.
	MaxBody = 64 << 10
	// maxDepth bounds nesting; our deepest body has 4 levels.
	maxDepth = 32
	// maxArray bounds one array, so that the work per byte stays bounded.
	maxArray = 1000
	// maxParams bounds the query.
	maxParams = 100
)

// buffers holds bodies while they are decoded: values are copied out, so that a buffer is free afterwards.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// Decode reads the JSON body of r into a T, or says as a *Problem why not. Members that are absent keep their zero value: what is
// required is the caller's to check. It never accepts null: absence is written by leaving the member out.
func Decode[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	var v T
	if err := Media(r); err != nil {
		return v, err
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer func() { buf.Reset(); buffers.Put(buf) }()
	if err := readBody(w, r, buf); err != nil {
		return v, err
	}
	if err := Unmarshal(buf.Bytes(), &v); err != nil {
		var zero T
		return zero, err
	}
	return v, nil
}

// Unmarshal is Decode for bytes that are there already, such as a signed webhook whose raw body was checked first.
func Unmarshal(data []byte, v any) error {
	if err := scan(data); err != nil {
		return err
	}
	if err := json.Unmarshal(data, v, json.RejectUnknownMembers(true)); err != nil {
		return fromJSON(err)
	}
	return nil
}

// Media refuses a body that does not say that it is plain JSON. Decode does it; a handler that reads the raw body, because it is signed,
// does it itself.
func Media(r *http.Request) error {
	unsupported := func(detail string) error {
		return New(http.StatusUnsupportedMediaType, "unsupported-media-type", detail)
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return unsupported("send the body without Content-Encoding")
	}
	if len(r.Header.Values("Content-Type")) > 1 {
		return unsupported("more than one Content-Type")
	}
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return unsupported("Content-Type must be application/json")
	}
	if c := params["charset"]; c != "" && !strings.EqualFold(c, "utf-8") {
		return unsupported("JSON is UTF-8")
	}
	return nil
}

func readBody(w http.ResponseWriter, r *http.Request, buf *bytes.Buffer) error {
	tooLarge := New(http.StatusRequestEntityTooLarge, "body-too-large", "a body has at most 64 KiB")
	if r.ContentLength > MaxBody { // said before the first byte is read, so no 100 Continue goes out
		return tooLarge
	}
	_, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, MaxBody))
	var max *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &max):
		return tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return New(http.StatusRequestTimeout, "request-timeout", "the body took too long").Because(err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return malformed("", "the body ends early").Because(err)
	}
	return New(http.StatusBadRequest, "malformed-request", "the body cannot be read").Because(err)
}

func malformed(pointer, detail string) *Problem {
	p := New(http.StatusBadRequest, "malformed-json", "the body is not the JSON that is expected here")
	return p.Field(pointer, detail)
}

// scan walks the tokens once, before any value is made of them. jsontext itself refuses duplicate names, invalid UTF-8, lone surrogates
// and bad syntax; the walk adds what JSON allows and we do not.
func scan(data []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(data))
	if k := d.PeekKind(); k != jsontext.KindBeginObject && k > 0 && k != jsontext.KindInvalid {
		return malformed("", "the body must be an object")
	}
	for {
		t, err := d.ReadToken()
		if err == io.EOF {
			if d.InputOffset() == 0 || len(bytes.TrimSpace(data)) == 0 {
				return malformed("", "the body is empty")
			}
			return nil
		}
		if err != nil {
			return fromJSON(err)
		}
		switch t.Kind() {
		case jsontext.KindNull:
			return malformed(string(d.StackPointer()), "null is not accepted; leave the member out")
		case jsontext.KindString:
			if strings.ContainsRune(t.String(), 0) {
				return malformed(string(d.StackPointer()), "U+0000 is not accepted")
			}
		case jsontext.KindNumber:
			if s := t.String(); s == "-0" {
				return invalidType(string(d.StackPointer()), "-0 is not accepted")
			}
		case jsontext.KindBeginObject, jsontext.KindBeginArray:
			if d.StackDepth() > maxDepth {
				return New(http.StatusBadRequest, "too-deep", "values may be nested 32 deep")
			}
		}
		if kind, n := d.StackIndex(d.StackDepth()); kind == jsontext.KindBeginArray && n > maxArray {
			return New(http.StatusBadRequest, "too-many-items", "an array has at most 1,000 items").
				Field(string(d.StackPointer().Parent()), "too many items")
		}
		if d.StackDepth() == 0 { // the value is complete; only white space may follow
			if rest := bytes.TrimSpace(data[d.InputOffset():]); len(rest) > 0 {
				return malformed("", "something follows the value")
			}
			return nil
		}
	}
}

func invalidType(pointer, detail string) *Problem {
	return New(http.StatusBadRequest, "invalid-type", "a member has the wrong type").Field(pointer, detail)
}

// fromJSON words the library's errors in our own constant texts: theirs may quote the input, which may be personal data.
func fromJSON(err error) error {
	var p *Problem // a type's own UnmarshalJSON may return one, about its member
	var semantic *json.SemanticError
	var syntax *jsontext.SyntacticError
	switch {
	case errors.As(err, &p):
		if errors.As(err, &semantic) && len(p.Errors) == 0 {
			q := *p
			return q.Field(string(semantic.JSONPointer), p.Detail)
		}
		return p
	case errors.As(err, &semantic):
		pointer := string(semantic.JSONPointer)
		if errors.Is(err, json.ErrUnknownName) {
			return New(http.StatusBadRequest, "unknown-field", "the body has a member that is not known here").
				Field(pointer, "unknown member")
		}
		return invalidType(pointer, "wrong type or out of range")
	case errors.As(err, &syntax):
		detail := "not JSON"
		if errors.Is(err, jsontext.ErrDuplicateName) {
			detail = "this name comes twice"
		}
		return malformed(string(syntax.JSONPointer), detail)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return malformed("", "the body ends early").Because(err)
	}
	return malformed("", "not JSON")
}

// Query refuses parameters that are not allowed or come twice, so that a typing error is never a silently wider answer.
func Query(r *http.Request, allowed ...string) error {
	if r.URL.RawQuery == "" {
		return nil
	}
	bad := func(detail, name string) error {
		return New(http.StatusBadRequest, "unknown-parameter", detail).Field(name, detail)
	}
	if strings.Count(r.URL.RawQuery, "&") >= maxParams {
		return New(http.StatusBadRequest, "too-many-params", "a query has at most 100 parameters")
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return New(http.StatusBadRequest, "unknown-parameter", "the query cannot be read").Because(err)
	}
next:
	for name, v := range values {
		if len(v) > 1 {
			return bad("this parameter comes twice", name)
		}
		for _, a := range allowed {
			if a == name {
				continue next
			}
		}
		return bad("this parameter is not known here", name)
	}
	return nil
}
