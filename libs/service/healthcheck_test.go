package service

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sethvargo/go-envconfig"
)

func TestHealthcheckAsksReadiness(t *testing.T) {
	status := http.StatusServiceUnavailable
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("asked %s", r.URL.Path)
		}
		w.WriteHeader(status)
	}))
	defer admin.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(admin.URL, "http://"), ":")
	type config struct{ Base }
	env := envconfig.MapLookuper(map[string]string{"HTTP_ADDR": ":0", "ADMIN_ADDR": ":" + port})
	if err := healthcheck(env, &config{}); err == nil {
		t.Error("a service that is not ready passed for healthy")
	}
	status = http.StatusOK
	if err := healthcheck(env, &config{}); err != nil {
		t.Errorf("a ready service: %v", err)
	}
}
