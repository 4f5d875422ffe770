package keys

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

func TestStore(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "order.jwk"), []byte("private"), 0o600); err != nil {
		t.Fatal(err)
	}
	status := http.StatusCreated
	var got struct {
		Kind     string
		Metadata struct{ Name string }
		Data     map[string][]byte
	}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/api/v1/namespaces/waybill/secrets" || r.Header.Get("Authorization") != "Bearer t" {
			t.Errorf("%s %s with %q", r.Method, r.URL.Path, r.Header.Get("Authorization"))
		}
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		w.WriteHeader(status)
	}))
	defer api.Close()
	c := &cluster{url: api.URL, token: "t", namespace: "waybill", client: api.Client()}

	if kept, err := c.store(t.Context(), dir, "service-keys"); err != nil || kept {
		t.Errorf("a new secret: kept %v, %v", kept, err)
	}
	if got.Kind != "Secret" || got.Metadata.Name != "service-keys" || string(got.Data["order.jwk"]) != "private" {
		t.Errorf("sent %+v", got)
	}
	status = http.StatusConflict
	if kept, err := c.store(t.Context(), dir, "service-keys"); err != nil || !kept {
		t.Errorf("a secret that exists: kept %v, %v", kept, err)
	}
	status = http.StatusForbidden
	if _, err := c.store(t.Context(), dir, "service-keys"); err == nil {
		t.Error("forbidden passed for success")
	}
}
