package httpapi

import (
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/waybill-dev/waybill/libs/problem"
)

// FuzzAdd is POST /events as far as it depends on the body alone.
func FuzzAdd(f *testing.F) {
	f.Add([]byte(`{"events":[{"event_id":"01997e6c-4111-7111-8111-111111111111","created_at":"2026-11-22T12:00:00Z","processing_time":0.5,"payload":{"a":1}}]}`))
	f.Add([]byte(`{"events":[{}]}`))
	f.Add([]byte(`{"events":[{"processing_time":1e999,"payload":[]},{"event_id":"{01997e6c-4111-7111-8111-111111111111}"}]}`))
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	from, to := now.AddDate(0, -1, 0), now.AddDate(0, 0, 1)
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest(http.MethodPost, "/events", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		b, err := problem.Decode[addBody](httptest.NewRecorder(), r)
		if err != nil {
			return
		}
		events, _, err := b.events(7, now, from, to)
		if err != nil {
			return
		}
		if len(events) != len(b.Events) || len(events) == 0 {
			t.Fatalf("%s is %d events", body, len(events))
		}
		for _, e := range events {
			if e.Tenant != 7 || e.At.Before(from) || e.At.After(to) || e.Seconds != nil && (*e.Seconds < 0 || math.IsInf(*e.Seconds, 0) || math.IsNaN(*e.Seconds)) ||
				jsontext.Value(e.Payload).Kind() != '{' || !jsontext.Value(e.Payload).IsValid() {
				t.Fatalf("%s has the event %+v", body, e)
			}
		}
	})
}
