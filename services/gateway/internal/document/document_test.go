package document

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/waybill-dev/waybill/services/gateway/internal/route"
)

// merged is the document that the gateway makes of its own and those of the services beside it in this repository.
func merged(t *testing.T) *openapi3.T {
	t.Helper()
	own, err := os.ReadFile(filepath.Join("..", "..", "openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	upstreams := map[route.Service]string{}
	for _, s := range []route.Service{route.Order, route.Payment, route.Inventory, route.Shipping, route.Notification, route.Analytics, route.MetricsProcessor} {
		doc, err := os.ReadFile(filepath.Join("..", "..", "..", string(s), "openapi.yaml"))
		if os.IsNotExist(err) {
			t.Skipf("the gateway stands alone here: %s is not beside it", s)
		}
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(doc) }))
		t.Cleanup(server.Close)
		upstreams[s] = server.URL
	}
	rec := httptest.NewRecorder()
	New(own, upstreams, http.DefaultTransport).ServeHTTP(rec, httptest.NewRequest("GET", "/openapi.json", nil))
	if rec.Code != 200 || strings.Contains(rec.Body.String(), "x-missing") {
		t.Fatalf("%d %.300s", rec.Code, rec.Body)
	}
	doc, err := openapi3.NewLoader().LoadFromData(rec.Body.Bytes())
	if err != nil {
		t.Fatalf("read the merged document: %v", err)
	}
	return doc
}

func TestMergedDocumentIsSound(t *testing.T) {
	doc := merged(t)
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/auth/login", "/orders", "/orders/{order_id}", "/payment/{order_id}", "/payments", "/inventory/reserve", "/products", "/shipping",
		"/webhooks/payments", "/interventions/order", "/interventions/payment/{id}/redrive"} {
		if doc.Paths.Value(path) == nil {
			t.Errorf("%s is missing", path)
		}
	}
	if doc.Paths.Value("/inventory/reservations") != nil {
		t.Error("an internal path is offered")
	}
	ids := map[string]string{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if other := ids[op.OperationID]; other != "" && op.OperationID != "" {
				t.Errorf("%s %s and %s are both %s", method, path, other, op.OperationID)
			}
			ids[op.OperationID] = method + " " + path
		}
	}
}

// TestEveryPathHasARoute: what a service documents is reached through the gateway, or is internal on purpose.
func TestEveryPathHasARoute(t *testing.T) {
	for _, s := range []route.Service{route.Order, route.Payment, route.Inventory, route.Shipping, route.Notification, route.Analytics, route.MetricsProcessor} {
		raw, err := os.ReadFile(filepath.Join("..", "..", "..", string(s), "openapi.yaml"))
		if err != nil {
			t.Skip(err)
		}
		doc, err := parse(raw)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		for path := range child(doc, "paths") {
			if _, ok := publicPath(path, s); !ok && path != "/openapi.yaml" && path != "/inventory/reservations" && path != "/health" {
				t.Errorf("%s of %s cannot be reached", path, s)
			}
		}
	}
}
