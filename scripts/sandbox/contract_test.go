package main

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/testkit"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/carrier"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/fault"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/httpapi"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/ledger"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/mailbox"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/provider"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/webhook"
)

func TestEveryDocumentedAnswer(t *testing.T) {
	faults := &fault.Set{}
	sender, err := webhook.New(webhook.Options{Name: "test", Faults: faults, Log: zap.NewNop(), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	api := &httpapi.API{Payments: sender, Shipping: sender, Faults: faults, Provider: provider.New(), Document: document}
	api.Carrier = carrier.New(0, api.ReportParcel)
	if api.Ledger, err = ledger.Open(t.TempDir(), func(ledger.Entry) {}); err != nil {
		t.Fatal(err)
	}
	defer api.Ledger.Close()
	api.Provider.Use(api.Ledger)
	api.Carrier.Use(api.Ledger)
	if api.Mailbox, err = mailbox.Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	defer api.Mailbox.Close()
	if err := api.Mailbox.Put(mailbox.Message{To: []string{"a@example.com"}}); err != nil {
		t.Fatal(err)
	}
	contract := testkit.OpenAPI(t, "openapi.yaml")
	handler := contract.Wrap(t, api.Routes())

	const (
		charge = `{"key":"o-1:charge","order_id":"o-1","amount":100,"currency":"EUR","method":"card"}`
		refund = `{"key":"o-1:refund:1","charge_key":"o-1:charge","order_id":"o-1","amount":100,"currency":"EUR"}`
		ship   = `{"key":"o-1:ship:1","order_id":"o-1","attempt":1,"address":{"city":"Berlin"},"items":[{"product_id":"sku-0001","quantity":1}]}`
	)
	other := func(body, from, to string) string { return strings.Replace(body, from, to, 1) }
	for _, tt := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/provider/charges", other(charge, `"card"`, `"card_down"`), 503},
		{"POST", "/provider/charges", charge, 200},
		{"POST", "/provider/charges", other(charge, "100", "101"), 409},
		{"POST", "/provider/charges", other(charge, "100", "0"), 422},
		{"GET", "/provider/charges/o-1:charge", "", 200},
		{"GET", "/provider/charges/o-2:charge", "", 404},
		{"POST", "/provider/charges/o-2:charge/void", "", 200},
		{"POST", "/provider/refunds", refund, 200},
		{"POST", "/provider/refunds", other(refund, "100", "99"), 409},
		{"POST", "/provider/refunds", other(refund, "100", "0"), 422},
		{"GET", "/provider/refunds/o-1:refund:1", "", 200},
		{"GET", "/provider/refunds/o-1:refund:2", "", 404},
		{"POST", "/carrier/shipments", other(ship, "Berlin", "Delayed"), 503},
		{"POST", "/carrier/shipments", ship, 202},
		{"POST", "/carrier/shipments", other(ship, `"attempt":1`, `"attempt":2`), 409},
		{"POST", "/carrier/shipments", `{"key":"o-2:ship:1","order_id":"o-2","attempt":1,"address":{"city":"Nowhere"},"items":[{"product_id":"a","quantity":1}]}`, 422},
		{"GET", "/carrier/shipments/o-1:ship:1", "", 200},
		{"GET", "/carrier/shipments/o-2:ship:1", "", 200},
		{"GET", "/carrier/shipments/o-3:ship:1", "", 404},
		{"GET", "/ledger?after=0&limit=2", "", 200},
		{"GET", "/ledger?after=-1", "", 400},
		{"GET", "/mailbox?to=a@example.com", "", 200},
		{"GET", "/mailbox?limit=x", "", 400},
		{"PUT", "/faults", `{"rules":[{"target":"provider.charge","delay":"1.5s","rate":0.01}]}`, 200},
		{"PUT", "/faults", `{"rules":[{"target":"provider.charge"}]}`, 422},
		{"GET", "/faults", "", 200},
		{"POST", "/faults", `{"target":"carrier.create","match":"o-7","timeout":true,"after_effect":true,"count":1}`, 201},
		{"POST", "/faults", `{"target":"carrier.create"}`, 422},
		{"DELETE", "/faults/2", "", 204},
		{"DELETE", "/faults/2", "", 404},
		{"DELETE", "/faults", "", 204},
		{"GET", "/health", "", 200},
		{"GET", "/openapi.yaml", "", 200},
	} {
		r := httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, strings.NewReader(tt.body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("%s %s %s: %d %s, want %d", tt.method, tt.path, tt.body, w.Code, w.Body, tt.want)
		}
	}
	// Any operation may answer any error that a fault rule asks for; "default" stands for those.
	var faulty []string
	for _, op := range []string{
		"POST /provider/charges", "GET /provider/charges/{key}", "POST /provider/charges/{key}/void", "POST /provider/refunds",
		"GET /provider/refunds/{key}", "POST /carrier/shipments", "GET /carrier/shipments/{key}", "GET /ledger", "GET /mailbox",
		"GET /faults", "PUT /faults", "POST /faults", "DELETE /faults", "DELETE /faults/{id}", "GET /health", "GET /openapi.yaml",
	} {
		faulty = append(faulty, op+" default")
	}
	contract.Complete(t, faulty...)
}
