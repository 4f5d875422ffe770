package problem

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"
)

type thing struct {
	Name  string   `json:"name"`
	Count int64    `json:"count"`
	Tags  []string `json:"tags"`
	Inner *thing   `json:"inner"`
}

func decode(t *testing.T, body string, header ...string) (thing, error) {
	t.Helper()
	r := httptest.NewRequest("POST", "/things", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return Decode[thing](httptest.NewRecorder(), r)
}

func TestDecode(t *testing.T) {
	got, err := decode(t, ` {"name":"a","count":3,"tags":["x"],"inner":{"name":"b"}} `, "Content-Type", "application/json; charset=UTF-8")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(thing{Name: "a", Count: 3, Tags: []string{"x"}, Inner: &thing{Name: "b"}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeRefuses(t *testing.T) {
	deep := strings.Repeat(`{"inner":`, 33) + `{}` + strings.Repeat(`}`, 33)
	for name, c := range map[string]struct {
		body    string
		status  int
		slug    string
		pointer string
	}{
		"empty":                {"", 400, "malformed-json", ""},
		"white space":          {" \n\t ", 400, "malformed-json", ""},
		"truncated":            {`{"name":"a"`, 400, "malformed-json", ""},
		"byte order mark":      {"\ufeff{}", 400, "malformed-json", ""},
		"second value":         {`{"name":"a"}{"name":"b"}`, 400, "malformed-json", ""},
		"trailing text":        {`{"name":"a"} x`, 400, "malformed-json", ""},
		"null":                 {`null`, 400, "malformed-json", ""},
		"array":                {`[]`, 400, "malformed-json", ""},
		"string":               {`"x"`, 400, "malformed-json", ""},
		"null member":          {`{"inner":{"name":null}}`, 400, "malformed-json", "/inner/name"},
		"duplicate name":       {`{"name":"a","name":"b"}`, 400, "malformed-json", "/name"},
		"deep duplicate":       {`{"inner":{"name":"a","name":"b"}}`, 400, "malformed-json", "/inner/name"},
		"other case":           {`{"NAME":"a"}`, 400, "unknown-field", "/NAME"},
		"unknown":              {`{"other":1}`, 400, "unknown-field", "/other"},
		"invalid UTF-8":        {"{\"name\":\"\xff\"}", 400, "malformed-json", "/name"},
		"lone surrogate":       {`{"name":"\ud800"}`, 400, "malformed-json", "/name"},
		"U+0000":               {`{"name":"a\u0000"}`, 400, "malformed-json", "/name"},
		"number as string":     {`{"count":"1"}`, 400, "invalid-type", "/count"},
		"string as number":     {`{"name":1}`, 400, "invalid-type", "/name"},
		"bool as number":       {`{"count":true}`, 400, "invalid-type", "/count"},
		"exponent":             {`{"count":1e2}`, 400, "invalid-type", "/count"},
		"fraction":             {`{"count":1.0}`, 400, "invalid-type", "/count"},
		"minus zero":           {`{"count":-0}`, 400, "invalid-type", "/count"},
		"beyond int64":         {`{"count":9223372036854775808}`, 400, "invalid-type", "/count"},
		"not a number":         {`{"count":NaN}`, 400, "malformed-json", "/count"},
		"leading zero":         {`{"count":01}`, 400, "malformed-json", ""},
		"comment":              {`{/* */}`, 400, "malformed-json", ""},
		"too deep":             {deep, 400, "too-deep", ""},
		"a million brackets":   {strings.Repeat(`{"inner":`, 7000), 400, "too-deep", ""},
		"too many items":       {`{"tags":[` + strings.Repeat(`"x",`, 1000) + `"x"]}`, 400, "too-many-items", "/tags"},
		"too large":            {`{"name":"` + strings.Repeat("x", MaxBody) + `"}`, 413, "body-too-large", ""},
		"object for an array":  {`{"tags":{}}`, 400, "invalid-type", "/tags"},
		"array for an object":  {`{"inner":[]}`, 400, "invalid-type", "/inner"},
		"unescaped line break": {"{\"name\":\"a\nb\"}", 400, "malformed-json", "/name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decode(t, c.body)
			var p *Problem
			if !errors.As(err, &p) || p.Status != c.status || p.Slug != c.slug {
				t.Fatalf("got %v; want %d %s", err, c.status, c.slug)
			}
			if c.pointer != "" && (len(p.Errors) != 1 || p.Errors[0].Pointer != c.pointer) {
				t.Errorf("pointer: got %v, want %s", p.Errors, c.pointer)
			}
		})
	}
}

func TestDecodeRefusesMedia(t *testing.T) {
	for name, header := range map[string][]string{
		"form":         {"Content-Type", "application/x-www-form-urlencoded"},
		"plain":        {"Content-Type", "text/plain"},
		"none":         {"Content-Type", ""},
		"other suffix": {"Content-Type", "application/jsonx"},
		"charset":      {"Content-Type", "application/json; charset=latin1"},
		"gzip":         {"Content-Encoding", "gzip"},
	} {
		if _, err := decode(t, `{}`, header...); !errors.Is(err, New(415, "unsupported-media-type", "")) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// FuzzUnmarshal: whatever is accepted means the same after another round, and was one object.
func FuzzUnmarshal(f *testing.F) {
	for _, s := range []string{`{"name":"a"}`, `{"name":"a","name":"b"}`, `{"NAME":1}`, `{"count":-0}`, `{"inner":{"inner":{}}}`, "\xff", `{"tags":[null]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var a, b thing
		if Unmarshal(data, &a) != nil {
			return
		}
		again, err := json.Marshal(a, json.OmitZeroStructFields(true))
		if err != nil {
			t.Fatalf("%q was accepted and cannot be written: %v", data, err)
		}
		if err := Unmarshal(again, &b); err != nil {
			t.Fatalf("%q became %q, which is refused: %v", data, again, err)
		}
		if a.Name != b.Name || a.Count != b.Count || len(a.Tags) != len(b.Tags) {
			t.Fatalf("%q: %+v became %+v", data, a, b)
		}
	})
}

type away struct{}

func (away) Error() string     { return "connection refused to 10.0.0.1" }
func (away) Unavailable() bool { return true }

func TestWrite(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		status int
		want   string
		after  string
	}{
		"problem": {New(422, "address-invalid", "look").Field("/address/city", "missing"), 422,
			`{"type":"urn:problem:address-invalid","title":"Unprocessable Entity","status":422,"detail":"look","instance":"/a%20b","trace_id":"01000000000000000000000000000000","errors":[{"pointer":"/address/city","detail":"missing"}]}`, ""},
		"wrapped": {fmt.Errorf("store: %w", New(409, "order-exists", "")), 409, `"type":"urn:problem:order-exists"`, ""},
		"away":    {fmt.Errorf("query: %w", away{}), 503, `"type":"urn:problem:unavailable"`, "2"},
		"other":   {errors.New("pq: secret"), 500, `{"type":"urn:problem:internal","title":"Internal Server Error","status":500,"instance":"/a%20b","trace_id":"01000000000000000000000000000000"}`, ""},
		"after":   {New(429, "rate-limited", "").After(1100 * time.Millisecond), 429, `"status":429`, "2"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/a%20b", nil)
			r = r.WithContext(trace.ContextWithSpanContext(r.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}})))
			rec := &failing{ResponseRecorder: httptest.NewRecorder()}
			Write(rec, r, c.err)
			if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.want) || rec.Header().Get("Retry-After") != c.after {
				t.Errorf("got %d %s %v", rec.Code, rec.Body, rec.Header())
			}
			if rec.err == nil || strings.Contains(rec.Body.String(), "secret") || strings.Contains(rec.Body.String(), "10.0.0.1") {
				t.Errorf("cause: logged %v, sent %s", rec.err, rec.Body)
			}
		})
	}
}

func TestClientsThatWentAwayAreNoErrors(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx  context.Context
		want int
	}{{ctx, 499}, {t.Context(), 500}} { // in a request that goes on, a cancelled context is a bug
		rec := &failing{ResponseRecorder: httptest.NewRecorder()}
		Write(rec, httptest.NewRequest("GET", "/", nil).WithContext(c.ctx), fmt.Errorf("query: %w", context.Canceled))
		if rec.Code != c.want {
			t.Errorf("got %d, want %d", rec.Code, c.want)
		}
	}
}

type failing struct {
	*httptest.ResponseRecorder
	err error
}

func (f *failing) Fail(err error) { f.err = err }

func TestMethodNotAllowedSaysWhatIs(t *testing.T) {
	r := chi.NewRouter()
	r.MethodNotAllowed(MethodNotAllowed)
	r.Route("/a", func(r chi.Router) {
		r.Get("/{id}", func(http.ResponseWriter, *http.Request) {})
		r.Put("/{id}", func(http.ResponseWriter, *http.Request) {})
	})
	rec := httptest.NewRecorder()
	r.ServeHTTP(rec, httptest.NewRequest("POST", "/a/1", nil))
	if diff := cmp.Diff([]string{"GET", "PUT"}, rec.Header()["Allow"]); diff != "" || rec.Code != 405 {
		t.Errorf("%d %s", rec.Code, diff)
	}
}

func TestQuery(t *testing.T) {
	for query, ok := range map[string]bool{
		"": true, "limit=1": true, "limit=1&status=a": true, "limit=": true,
		"limit=1&limit=2": false, "other=1": false, "Limit=1": false, "limit=%zz": false, "a;b": false,
		strings.Repeat("limit&", 101): false,
	} {
		err := Query(httptest.NewRequest("GET", "/", nil).WithContext(context.Background()), "limit", "status")
		if query != "" {
			r := httptest.NewRequest("GET", "/", nil)
			r.URL.RawQuery = query
			err = Query(r, "limit", "status")
		}
		if (err == nil) != ok {
			t.Errorf("%q: %v", query, err)
		}
	}
}

func FuzzQuery(f *testing.F) {
	for _, q := range []string{"", "limit=1", "limit=1&limit=2", "nobody=1", "a=%zz", "limit=%00", "limit;cursor=1", "=", "&&", "LIMIT=1"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, q string) {
		r := &http.Request{URL: &url.URL{Path: "/", RawQuery: q}}
		if Query(r, "limit", "cursor") != nil {
			return
		}
		// What passes can be read with Get: known names, once each, nothing lost on the way.
		values, err := url.ParseQuery(q)
		if err != nil {
			t.Fatalf("%q passes and cannot be read: %v", q, err)
		}
		for name, v := range values {
			if name != "limit" && name != "cursor" || len(v) != 1 {
				t.Fatalf("%q passes with %q = %q", q, name, v)
			}
		}
	})
}
