// Package document merges the OpenAPI documents of all services into the gateway's own.
//
// Each service serves its document at /openapi.yaml; the gateway fetches them when it is asked for /openapi.json and keeps the
// result for a minute. (Embedding them would tie eight modules together at build time.) A service that is away is named under x-missing.
package document

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"go.yaml.in/yaml/v3"

	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/gateway/internal/route"
)

const (
	keepFor      = time.Minute
	keepPartly   = 5 * time.Second // while a service is missing
	fetchTimeout = 3 * time.Second
	maxDocument  = 2 << 20
)

// Merger makes and keeps the merged document.
type Merger struct {
	own       []byte
	upstreams map[route.Service]string
	client    *http.Client

	mu    sync.Mutex
	doc   []byte
	until time.Time
}

// New merges into own, the gateway's document in YAML.
func New(own []byte, upstreams map[route.Service]string, transport http.RoundTripper) *Merger {
	return &Merger{own: own, upstreams: upstreams, client: &http.Client{Transport: transport, Timeout: fetchTimeout}}
}

// ServeHTTP is GET /openapi.json.
func (m *Merger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock() // those who ask meanwhile share the result
	if time.Now().After(m.until) {
		doc, missing, err := m.merge(context.WithoutCancel(r.Context()))
		if err != nil {
			problem.Write(w, r, err)
			return
		}
		m.doc, m.until = doc, time.Now().Add(keepFor)
		if missing > 0 {
			m.until = time.Now().Add(keepPartly)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "max-age=60")
	_, _ = w.Write(m.doc)
}

type object = map[string]any

func (m *Merger) merge(ctx context.Context) (doc []byte, missing int, err error) {
	merged, err := parse(m.own)
	if err != nil {
		return nil, 0, fmt.Errorf("read own document: %w", err)
	}
	services := make([]route.Service, 0, len(m.upstreams))
	for s := range m.upstreams {
		services = append(services, s)
	}
	sort.Slice(services, func(i, j int) bool { return services[i] < services[j] })
	var gone []string
	docs := make([]object, len(services))
	var wg sync.WaitGroup
	for i, s := range services {
		wg.Go(func() { docs[i], _ = m.fetch(ctx, m.upstreams[s]) })
	}
	wg.Wait()
	for i, s := range services {
		if docs[i] == nil {
			gone = append(gone, string(s))
			continue
		}
		add(merged, docs[i], s)
	}
	if len(gone) > 0 {
		merged["x-missing"] = gone
	}
	doc, err = json.Marshal(merged, json.Deterministic(true))
	if err != nil {
		return nil, 0, fmt.Errorf("encode merged document: %w", err)
	}
	return doc, len(gone), nil
}

func (m *Merger) fetch(ctx context.Context, base string) (object, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+"/openapi.yaml", nil)
	if err != nil {
		return nil, err
	}
	resp, err := m.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument))
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("service answers %d: %w", resp.StatusCode, err)
	}
	return parse(raw)
}

// parse reads YAML whose keys may be numbers, as status codes are when nobody quotes them.
func parse(raw []byte) (object, error) {
	var doc any
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return nil, err
	}
	o, ok := normal(doc).(object)
	if !ok {
		return nil, fmt.Errorf("document is no mapping")
	}
	return o, nil
}

func normal(v any) any {
	switch v := v.(type) {
	case map[any]any:
		o := make(object, len(v))
		for k, x := range v {
			o[fmt.Sprint(k)] = normal(x)
		}
		return o
	case object:
		for k, x := range v {
			v[k] = normal(x)
		}
	case []any:
		for i, x := range v {
			v[i] = normal(x)
		}
	}
	return v
}

// add takes over a service's paths as the gateway serves them, with its components under names of its own.
func add(merged, doc object, s route.Service) {
	rename(doc, s)
	paths := child(merged, "paths")
	for path, item := range child(doc, "paths") {
		if public, ok := publicPath(path, s); ok {
			nameOperations(asObject(item), s)
			paths[public] = item
		}
	}
	components := child(merged, "components")
	for kind, named := range child(doc, "components") {
		for name, c := range asObject(named) {
			if kind != "securitySchemes" { // which are named, not referred to; one name is one scheme in all services
				name = prefixed(name, s)
			}
			child(components, kind)[name] = c
		}
	}
}

// nameOperations makes operation ids unique: each service has a listInterventions.
func nameOperations(item object, s route.Service) {
	for _, op := range item {
		if op, ok := op.(object); ok {
			if id, ok := op["operationId"].(string); ok {
				op["operationId"] = prefixed(id, s)
			}
		}
	}
}

// publicPath is the path under which the gateway serves a service's path, if it does.
func publicPath(path string, s route.Service) (string, bool) {
	if path == "/openapi.yaml" {
		return "", false
	}
	for _, p := range route.Internal {
		if path == p {
			return "", false
		}
	}
	if rest, ok := strings.CutPrefix(path, "/interventions"); ok {
		return "/interventions/" + string(s) + rest, true
	}
	for _, to := range route.Table {
		if to.To != s {
			continue
		}
		if to.Strip != "" {
			return to.Strip + path, true
		}
		if to.Pattern == path || strings.HasSuffix(to.Pattern, "/*") && strings.HasPrefix(path, strings.TrimSuffix(to.Pattern, "*")) {
			return path, true
		}
	}
	return "", false
}

func prefixed(name string, s route.Service) string { return string(s) + "." + name }

const components = "#/components/"

// rename gives every reference to a component the service's prefix. Schemes stay: they are named in security, not by reference.
func rename(v any, s route.Service) {
	switch v := v.(type) {
	case object:
		for k, x := range v {
			if ref, ok := x.(string); ok && k == "$ref" && strings.HasPrefix(ref, components) {
				kind, name, _ := strings.Cut(strings.TrimPrefix(ref, components), "/")
				v[k] = components + kind + "/" + prefixed(name, s)
				continue
			}
			rename(x, s)
		}
	case []any:
		for _, x := range v {
			rename(x, s)
		}
	}
}

func child(o object, name string) object {
	c := asObject(o[name])
	o[name] = c
	return c
}

func asObject(v any) object {
	if o, ok := v.(object); ok {
		return o
	}
	return object{}
}
