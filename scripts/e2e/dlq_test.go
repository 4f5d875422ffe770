package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// dlq runs the command line that operators have.
func dlq(t testing.TB, args ...string) string {
	t.Helper()
	args = append([]string{"dlq"}, args...)
	out, err := exec.Command(platform.binary, append(args, "--gateway", platform.gateway)...).CombinedOutput()
	if err != nil {
		t.Fatalf("waybill %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestOperatorAtTheCommandLine has a compensation fail for good: the refund of a parcel that got lost. An operator finds it,
// looks at it, sees what a redrive would do, does it, and finds it in the audit; nobody else's order is touched.
func TestOperatorAtTheCommandLine(t *testing.T) {
	if platform.binary == "" {
		t.Skip("SKIPPED: there is no command line for a foreign gateway (WAYBILL_E2E_GATEWAY is set)")
	}
	t.Parallel()
	o := basket(t, shelf(t, 10), 2)
	o.Address.City = "Lost"
	rule := fmt.Sprintf(`{"target":"provider.refund","match":%q,"outcome":"failed","count":1}`, o.OrderID)
	resp, err := http.Post(platform.sandbox+"/faults", "application/json", strings.NewReader(rule))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("POST /faults: %s", resp.Status)
	}
	place(t, customer, o)
	if end := await(t, customer, o.OrderID); end.Status != "attention" || end.Reason != "shipping_failed" {
		t.Fatalf("%s %s", end.Status, end.Reason)
	}
	refund := map[string]any{"action": "refund", "goods": "lost", "reason": "gone"}
	if err := operator.do(t, http.MethodPost, "/orders/"+o.OrderID+"/resolve", refund).into(http.StatusAccepted, nil); err != nil {
		t.Fatal(err)
	}
	var found []struct{ Service, ID, Kind, Status, Subject string }
	eventually(t, 30*time.Second, func(context.Context) error {
		found = nil
		if err := json.Unmarshal([]byte(dlq(t, "list", "--service", "order", "--key", o.OrderID, "--json")), &found); err != nil {
			return err
		}
		if len(found) != 1 || found[0].Kind != "refund_failed" {
			return fmt.Errorf("found %+v", found)
		}
		return nil
	})
	id := found[0].ID
	if text := dlq(t, "show", "order", id); !strings.Contains(text, o.OrderID) || !strings.Contains(text, "refund") {
		t.Errorf("show:\n%s", text)
	}
	dlq(t, "redrive", "order", id, "--dry-run")
	if o := get[order](t, customer, "/orders/"+o.OrderID); o.Status != "attention" || o.Reason != "refund_failed" {
		t.Fatalf("after a dry run: %s %s", o.Status, o.Reason)
	}
	dlq(t, "redrive", "order", "--key", o.OrderID, "--reason", "the provider is well again")
	end := awaitStatus(t, customer, o.OrderID, func(s string) bool { return s == "cancelled" })
	if got := net(ledger(t)[o.OrderID]); got != 0 {
		t.Errorf("the provider keeps %d cents: %v", got, end.events())
	}
	if text := dlq(t, "list", "--service", "order", "--key", o.OrderID, "--json"); strings.Contains(text, id) {
		t.Errorf("still open: %s", text)
	}
	if text := dlq(t, "show", "order", id); !strings.Contains(text, "operator") || !strings.Contains(text, "well again") {
		t.Errorf("the audit does not say who did what:\n%s", text)
	}
}
