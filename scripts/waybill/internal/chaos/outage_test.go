package chaos

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/client"
)

// platform serves a document with so many paths, and answers everything else with a status.
func platform(t *testing.T, paths int, missing []string, status int) *client.Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/auth/login":
			_, _ = w.Write([]byte(`{"access_token":"t"}`))
		case "/openapi.json":
			doc := map[string]any{"paths": map[string]any{}}
			for i := range paths {
				doc["paths"].(map[string]any)[fmt.Sprintf("/things/%d/{id}", i)] = map[string]any{"get": map[string]any{}, "post": map[string]any{}, "parameters": []any{}}
			}
			if missing != nil {
				doc["x-missing"] = missing
			}
			_ = json.NewEncoder(w).Encode(doc)
		default:
			w.WriteHeader(status)
		}
	}))
	t.Cleanup(server.Close)
	return &client.Client{Base: server.URL, User: "admin", Password: "password"}
}

func TestEveryOperationIsARoute(t *testing.T) {
	t.Parallel()
	c := platform(t, 12, nil, http.StatusTeapot)
	routes, err := readRoutes(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if len(routes) != 24 {
		t.Errorf("%d routes of 12 paths with two operations each", len(routes))
	}
	for _, to := range routes {
		if strings.ContainsAny(to.path, "{}") {
			t.Errorf("%s %s: a parameter is left", to.method, to.path)
		}
		if status, err := to.ask(t.Context(), c); status != http.StatusTeapot || err != nil {
			t.Errorf("%s %s: %d %v", to.method, to.path, status, err)
		}
	}
}

// A document that lacks a service would leave its routes out of the proof.
func TestRoutesOfAMissingServiceAreMissed(t *testing.T) {
	t.Parallel()
	if _, err := readRoutes(t.Context(), platform(t, 12, []string{"payment"}, 200)); err == nil || !strings.Contains(err.Error(), "payment") {
		t.Errorf("%v", err)
	}
	if _, err := readRoutes(t.Context(), platform(t, 3, nil, 200)); err == nil {
		t.Error("six operations were taken for the whole platform")
	}
}
