package testkit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
)

// Contract checks what a service does against its openapi.yaml.
type Contract struct {
	doc    *openapi3.T
	router routers.Router
	mu     sync.Mutex
	seen   map[string]bool // "GET /orders 200"
}

// OpenAPI reads and validates an OpenAPI 3.1 document.
func OpenAPI(t testing.TB, specPath string) *Contract {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile(specPath)
	if err != nil {
		t.Fatalf("read %s: %v", specPath, err)
	}
	doc.Servers = nil // tests serve on ports of their own
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatalf("%s is not a sound document: %v", specPath, err)
	}
	return &Contract{doc: doc, router: router, seen: map[string]bool{}}
}

// Check fails the test where the answer is not one of the documented ones, or where a request that was accepted does not fit
// the document. resp.Body is read and put back. A path or method that the document does not have must have been answered 4xx.
func (c *Contract) Check(t testing.TB, req *http.Request, reqBody []byte, resp *http.Response) {
	t.Helper()
	if err := c.check(req, reqBody, resp); err != nil {
		t.Errorf("%s %s → %d breaks the contract: %v", req.Method, req.URL.Path, resp.StatusCode, err)
	}
}

func (c *Contract) check(req *http.Request, reqBody []byte, resp *http.Response) error {
	body, err := readAgain(resp)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	route, params, err := c.router.FindRoute(req)
	if err != nil {
		if resp.StatusCode >= 400 && resp.StatusCode < 500 {
			return nil
		}
		return err
	}
	c.mu.Lock()
	c.seen[key(route.Method, route.Path, strconv.Itoa(resp.StatusCode))] = true
	c.mu.Unlock()
	again := req.Clone(req.Context())
	again.Body = io.NopCloser(bytes.NewReader(reqBody))
	again.ContentLength = int64(len(reqBody))
	options := &openapi3filter.Options{
		IncludeResponseStatus: true,
		AuthenticationFunc:    openapi3filter.NoopAuthenticationFunc,
		// Answers are the proof of what the service does with a token; the document only says that one is needed.
		SkipSettingDefaults: true,
	}
	in := &openapi3filter.RequestValidationInput{Request: again, PathParams: params, Route: route, Options: options}
	if resp.StatusCode < 300 {
		if err := openapi3filter.ValidateRequest(req.Context(), in); err != nil {
			return fmt.Errorf("accepted request: %w", err)
		}
	}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if route.Operation.Responses.Status(resp.StatusCode) == nil && anywhere(body) {
		return nil
	}
	if resp.StatusCode >= 400 && media != "application/problem+json" && req.Method != http.MethodHead {
		return fmt.Errorf("an error is %q, not a problem document", media)
	}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: resp.StatusCode, Header: resp.Header, Options: options,
		Body: io.NopCloser(bytes.NewReader(body)),
	}
	if media != "application/json" && media != "application/problem+json" {
		without := *options
		without.ExcludeResponseBody = true // text and streams have no schema worth the name
		out.Options = &without
	}
	return openapi3filter.ValidateResponse(req.Context(), out)
}

// anywhere says whether an answer is one of those that libs/service gives on any path, before the service is asked: a document that named
// them at each operation would say nothing more.
func anywhere(body []byte) bool {
	var p struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(body, &p) != nil {
		return false
	}
	switch strings.TrimPrefix(p.Type, "urn:problem:") {
	case "bad-path", "bad-header", "too-many-params", "uri-too-long", "not-acceptable", "method-not-allowed", "overloaded":
		return true
	}
	return false
}

func readAgain(resp *http.Response) ([]byte, error) {
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.Body == nil || media == "text/event-stream" {
		return nil, nil
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil && !errors.Is(err, http.ErrBodyReadAfterClose) {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return body, nil
}

// Wrap checks all that goes through a handler. Answers are held back until they are whole, so it is not for streams.
func (c *Contract) Wrap(t testing.TB, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		rec := httptest.NewRecorder()
		original := r.Clone(r.Context())
		next.ServeHTTP(rec, r)
		resp := rec.Result()
		c.Check(t, original, body, resp)
		for name, v := range resp.Header {
			w.Header()[name] = v
		}
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	})
}

// Complete fails for each documented answer that no checked request got, but for those named in except ("GET /orders 503").
func (c *Contract) Complete(t testing.TB, except ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var missing []string
	for path, item := range c.doc.Paths.Map() {
		for method, op := range item.Operations() {
			for status := range op.Responses.Map() {
				if k := key(method, path, status); !c.seen[k] && !slices.Contains(except, k) {
					missing = append(missing, k)
				}
			}
		}
	}
	slices.Sort(missing)
	for _, k := range missing {
		t.Errorf("documented, but no test saw it: %s", k)
	}
}

func key(method, path, status string) string { return method + " " + path + " " + status }
