package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/fault"
)

func FuzzRule(f *testing.F) {
	f.Add([]byte(`{"target":"provider.charge","match":"o-","status":503,"delay":"1.5s","count":2,"rate":0.5}`))
	f.Add([]byte(`{"target":"smtp","timeout":true,"after_effect":true}`))
	f.Add([]byte(`{"target":"webhook","outcome":"twice","delay":"-1s"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest(http.MethodPost, "/faults", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		b, err := problem.Decode[ruleBody](httptest.NewRecorder(), r)
		if err != nil {
			return
		}
		rule, err := b.rule("")
		if err != nil {
			return
		}
		if _, known := fault.Outcomes[rule.Target]; !known || rule.Delay < 0 || rule.Delay > time.Minute || rule.Rate < 0 || rule.Rate > 1 || rule.Count < 0 {
			t.Fatalf("%s is the rule %+v", body, rule)
		}
		// What is shown can be sent again.
		if again, err := show(rule).rule(""); err != nil || again != rule {
			t.Fatalf("%s is %+v, shown and read %+v (%v)", body, rule, again, err)
		}
	})
}
