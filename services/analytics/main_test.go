package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sethvargo/go-envconfig"
	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/service"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/libs/testkit"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	paymentv1 "github.com/waybill-dev/waybill/proto/gen/waybill/payment/v1"
	"github.com/waybill-dev/waybill/services/analytics/internal/httpapi"
	"github.com/waybill-dev/waybill/services/analytics/internal/ingest"
	"github.com/waybill-dev/waybill/services/analytics/internal/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPartitions(t *testing.T) {
	t.Parallel()
	pool, _ := testkit.Postgres(t, inbox.Migrations, postgres.Migrations)
	attached := func() []string {
		rows, _ := pool.Query(t.Context(), `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
			WHERE i.inhparent = 'events'::regclass ORDER BY 1`)
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	store := postgres.New(pool, 2)
	for _, step := range []struct {
		now  time.Time
		want []string
	}{
		{time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC), []string{"events_202609", "events_202610", "events_202611", "events_202612", "events_202701"}},
		{time.Date(2026, 11, 30, 23, 30, 0, 0, time.UTC), []string{"events_202609", "events_202610", "events_202611", "events_202612", "events_202701"}},
		{time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), []string{"events_202611", "events_202612", "events_202701", "events_202702", "events_202703"}},
	} {
		if err := store.Maintain(t.Context(), step.now); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(step.want, attached()); d != "" {
			t.Errorf("at %s (-want +got):\n%s", step.now, d)
		}
	}
	var index, detached int
	err := pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_indexes WHERE indexname = 'idx_events_tenant_created_at_202611'),
		(SELECT count(*) FROM pg_class WHERE relname = 'events_202609')`).Scan(&index, &detached)
	if err != nil || index != 1 || detached != 1 {
		t.Errorf("index %d, detached partition kept %d, %v", index, detached, err)
	}
}

// story is what happens to one order: at 0 s, 0.5 s and 2 s.
func story(id string, tenant int64, start time.Time) []event.Event {
	created := event.New(context.Background(), event.OrderCreated, id, tenant, 1, &orderv1.OrderCreated{OrderId: id, Email: "a@example.com"})
	created.Source, created.Time = "/waybill/order", start // a request caused it: it has no processing time
	initiated := created.Next(event.PaymentInitiated, id, 1, &paymentv1.PaymentInitiated{OrderId: id})
	initiated.Source, initiated.Time = "/waybill/payment", start.Add(500*time.Millisecond)
	processed := initiated.Next(event.PaymentProcessed, id, 2, &paymentv1.PaymentProcessed{OrderId: id})
	processed.Source, processed.Time = "/waybill/payment", start.Add(2*time.Second)
	return []event.Event{created, initiated, processed}
}

func TestIngest(t *testing.T) {
	t.Parallel()
	pool, _ := testkit.Postgres(t, inbox.Migrations, postgres.Migrations)
	store := postgres.New(pool, 13)
	if err := store.Maintain(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := store.Seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	in := ingest.New(store, testkit.Log(t))
	apply := func(events ...event.Event) {
		t.Helper()
		if err := pg.Do(t.Context(), pool, func(ctx context.Context, u *pg.Unit) error { return in.Events(ctx, u, events) }); err != nil {
			t.Fatal(err)
		}
	}
	noon := time.Now().UTC().Truncate(24 * time.Hour)
	if time.Since(noon) < 12*time.Hour {
		noon = noon.AddDate(0, 0, -1)
	}
	noon = noon.Add(11 * time.Hour)
	one, two := story("o-1", 1, noon), story("o-2", 2, noon)
	wrong := story("o-3", 1, time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)) // a clock that stands still: no partition, no poison
	apply(one[2], one[0], two[0], wrong[0])                               // topics come in any order
	apply(one[1], two[1], two[2])
	apply(one...) // once more
	apply(two...)
	for tenant, id := range map[int64]string{1: "o-1", 2: "o-2"} {
		d, err := store.Stats(t.Context(), tenant, noon.Truncate(24*time.Hour))
		if err != nil || d.Events != 3 || d.Seconds == nil {
			t.Fatalf("%s: %+v, %v", id, d, err)
		}
		if math.Abs(*d.Seconds-1) > 1e-9 { // 0.5 and 1.5
			t.Errorf("%s: mean %v, want 1", id, *d.Seconds)
		}
	}
	days, err := store.Enterprise(t.Context(), 30)
	if err != nil || len(days) != 1 || days[0].Tenant != 1 || days[0].Events != 3 || days[0].Date.Format(time.DateOnly) != noon.Format(time.DateOnly) {
		t.Errorf("report %+v, %v", days, err)
	}
	var personal int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM events WHERE payload::text LIKE '%example.com%'`).Scan(&personal); err != nil || personal != 0 {
		t.Errorf("%d payloads hold an e-mail, %v", personal, err)
	}
}

// TestSameMicrosecond: many events of one tenant at one time are all kept.
func TestSameMicrosecond(t *testing.T) {
	t.Parallel()
	pool, _ := testkit.Postgres(t, inbox.Migrations, postgres.Migrations)
	store := postgres.New(pool, 1)
	now := time.Now()
	if err := store.Maintain(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	var events []postgres.Event
	for range 200 {
		events = append(events, postgres.Event{Tenant: 1, At: now, ID: uuid.Must(uuid.NewV7()), Payload: json.RawMessage(`{}`)})
	}
	for range 2 {
		if err := pg.Do(t.Context(), pool, func(_ context.Context, u *pg.Unit) error { postgres.Insert(u, events); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	d, err := store.Stats(t.Context(), 1, now.UTC().Truncate(24*time.Hour))
	if err != nil || d.Events != 200 {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestAPI(t *testing.T) {
	t.Parallel()
	pool, _ := testkit.Postgres(t, inbox.Migrations, postgres.Migrations)
	store := postgres.New(pool, 13)
	if err := store.Maintain(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := store.Seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	issuer := testkit.Identity(t)
	contract := testkit.OpenAPI(t, "openapi.yaml")
	in := inbox.New(inbox.Options{Group: "analytics-service", Pool: pool, Wants: event.Types(), Handler: ingest.New(store, testkit.Log(t)).Events,
		Log: testkit.Log(t), Registry: prometheus.NewRegistry()})
	h := contract.Wrap(t, httpapi.New(store, issuer.Verifier("analytics").Middleware, in.Routes(), openAPI))
	do := func(status int, slug, method, path, token, body string, headers ...string) string {
		t.Helper()
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != status || !strings.Contains(w.Body.String(), slug) {
			t.Errorf("%s %s: %d %s, want %d %s", method, path, w.Code, w.Body, status, slug)
		}
		return w.Body.String()
	}
	admin, merchant := issuer.UserToken("admin", 1, "admin", "operator", "merchant"), issuer.UserToken("merchant", 1, "merchant")
	merchant2, customer := issuer.UserToken("merchant2", 2, "merchant"), issuer.UserToken("customer", 1, "customer")
	now := time.Now().UTC()
	today := now.Format(time.DateOnly)

	id := uuid.NewString()
	named := fmt.Sprintf(`{"events":[{"event_id":%q,"created_at":%q,"processing_time":0.5,"payload":{"a":1}}]}`, id, now.Format(time.RFC3339Nano))
	do(202, `{"accepted":1}`, "POST", "/events", merchant, named)
	do(202, `{"accepted":1}`, "POST", "/events", merchant, named)
	do(202, `{"accepted":1}`, "POST", "/events", merchant2, named) // another tenant's event
	unnamed := `{"events":[{"processing_time":1.5},{}]}`
	do(202, `{"accepted":2}`, "POST", "/events", merchant, unnamed, "Idempotency-Key", "k-1")
	do(202, `{"accepted":2}`, "POST", "/events", merchant, unnamed, "Idempotency-Key", "k-1")
	do(422, "idempotency-key-reused", "POST", "/events", merchant, named, "Idempotency-Key", "k-1")
	do(400, "idempotency-key-missing", "POST", "/events", merchant, unnamed)
	do(200, `"events":3,"avg_time":1}`, "GET", "/stats/"+today, merchant, "")
	do(200, `"events":1,"avg_time":0.5}`, "GET", "/stats/"+today, merchant2, "")
	do(200, `"events":0}`, "GET", "/stats/2020-02-29", merchant, "")
	want := fmt.Sprintf(`{"items":[{"tenant_id":1,"date":%q,"events":3,"avg_time":1}]}`, today)
	do(200, want, "GET", "/reports/enterprise", admin, "")
	do(200, want, "GET", "/reports/enterprise?days=1", admin, "")

	for _, body := range []string{`{"events":[]}`, `{}`, `{"events":[{"event_id":"x"}]}`, `{"events":[{"created_at":"yesterday"}]}`,
		`{"events":[{"created_at":"1999-01-01T00:00:00Z"}]}`, `{"events":[{"created_at":"2999-01-01T00:00:00Z"}]}`,
		`{"events":[{"processing_time":-1}]}`, `{"events":[{"payload":[]}]}`} {
		do(422, "invalid-field", "POST", "/events", merchant, body, "Idempotency-Key", "k-2")
	}
	do(400, "malformed-json", "POST", "/events", merchant, `{"events":null}`)
	do(400, "too-many-items", "POST", "/events", merchant, `{"events":[`+strings.Repeat("{},", 1000)+`{}]}`)
	do(400, "invalid-type", "POST", "/events", merchant, `{"events":[{"processing_time":"1"}]}`)
	do(413, "body-too-large", "POST", "/events", merchant, `{"events":[{"payload":{"a":"`+strings.Repeat("a", 70_000)+`"}}]}`)
	do(415, "unsupported-media-type", "POST", "/events", merchant, named, "Content-Type", "text/plain")
	do(401, "unauthenticated", "POST", "/events", "", named)
	do(403, "forbidden", "POST", "/events", customer, named)
	for _, q := range []string{"0", "367", "x", "-1"} {
		do(400, "invalid-field", "GET", "/reports/enterprise?days="+q, admin, "")
	}
	do(400, "unknown-parameter", "GET", "/reports/enterprise?tenant=2", admin, "")
	do(401, "unauthenticated", "GET", "/reports/enterprise", "", "")
	do(403, "forbidden", "GET", "/reports/enterprise", merchant, "")
	for _, d := range []string{"yesterday", "2026-02-30", "0000-01-01", "9999-12-31", "2026-1-1"} {
		do(400, "invalid-field", "GET", "/stats/"+d, merchant, "")
	}
	do(401, "unauthenticated", "GET", "/stats/"+today, "", "")
	do(403, "forbidden", "GET", "/stats/"+today, customer, "")
	do(200, "openapi: 3.1.0", "GET", "/openapi.yaml", "", "")

	// An event that cannot be stored waits for a person.
	poison := story("o-1", 1, now)[0]
	poison.Type = "order.never_heard_of"
	if err := in.Consume(t.Context(), []stream.Message{stream.Encode(poison)}); err != nil {
		t.Fatal(err)
	}
	var page struct{ Items []struct{ ID string } }
	if err := json.Unmarshal([]byte(do(200, "o-1", "GET", "/interventions", admin, "")), &page); err != nil || len(page.Items) != 1 {
		t.Fatalf("interventions %+v, %v", page, err)
	}
	at, none := "/interventions/"+page.Items[0].ID, "/interventions/"+uuid.NewString()
	do(400, "invalid-field", "GET", "/interventions?limit=0", admin, "")
	for _, c := range [][2]string{{"GET", ""}, {"POST", "/redrive"}, {"POST", "/discard"}} {
		do(401, "unauthenticated", c[0], at+c[1], "", `{"reason":"x"}`)
		do(403, "forbidden", c[0], at+c[1], merchant, `{"reason":"x"}`)
		do(404, "not-found", c[0], none+c[1], admin, `{"reason":"x"}`)
	}
	do(401, "unauthenticated", "GET", "/interventions", "", "")
	do(403, "forbidden", "GET", "/interventions", merchant, "")
	for _, verb := range []string{"/redrive", "/discard"} {
		do(400, "malformed-json", "POST", at+verb, admin, `{`)
		do(415, "unsupported-media-type", "POST", at+verb, admin, `{}`, "Content-Type", "text/plain")
		do(422, "invalid-field", "POST", at+verb, admin, `{"reason":"`+strings.Repeat("x", 501)+`"}`)
	}
	for _, many := range []string{"/interventions/redrive", "/interventions/discard"} {
		do(400, "malformed-json", "POST", many, admin, `{`)
		do(401, "unauthenticated", "POST", many, "", `{}`)
		do(403, "forbidden", "POST", many, merchant, `{}`)
		do(415, "unsupported-media-type", "POST", many, admin, `{}`, "Content-Type", "text/plain")
		do(422, "invalid-field", "POST", many, admin, `{}`)
		do(200, `"items":[]`, "POST", many, admin, `{"kind":"gap","reason":"from a test"}`)
	}
	do(200, "o-1", "GET", at, admin, "")
	do(200, "", "POST", at+"/redrive", admin, `{}`)
	do(200, "discarded", "POST", at+"/discard", admin, `{"reason":"from a test"}`)

	lock, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback(context.Background()) }()
	if _, err := lock.Exec(t.Context(), `LOCK TABLE events`); err != nil {
		t.Fatal(err)
	}
	do(503, "unavailable", "GET", "/stats/"+today, merchant, "")
	do(503, "unavailable", "GET", "/reports/enterprise", admin, "")
	do(503, "unavailable", "POST", "/events", merchant, named)
	contract.Complete(t)
}

// TestService runs the program: what is produced is reported.
func TestService(t *testing.T) {
	t.Parallel()
	_, url := testkit.Postgres(t, inbox.Migrations, postgres.Migrations)
	brokers, _ := testkit.Kafka(t)
	issuer := testkit.Identity(t)
	addr := make(chan string, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- service.Run(ctx, "analytics", envconfig.MapLookuper(map[string]string{
			"HTTP_ADDR": "127.0.0.1:0", "DATABASE_URL": url, "KAFKA_BROKERS": strings.Join(brokers, ","), "JWKS_URL": issuer.JWKSURL,
			"WAYBILL_SERVICE_JWKS": issuer.ServiceJWKSFile(), "WAYBILL_ENV": "development", "LOG_LEVEL": "error",
		}), func(ctx context.Context, s *service.Service, cfg Config) error {
			addr <- s.Addr()
			return run(ctx, s, cfg)
		})
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	producer, err := stream.NewProducer(t.Context(), stream.Config{Brokers: brokers, ClientID: "test", Log: testkit.Log(t), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	for n := range 5 {
		var batch []stream.Message
		for _, e := range story(fmt.Sprintf("o-%d", n), 1, time.Now()) {
			batch = append(batch, stream.Encode(e))
		}
		if err := producer.Send(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	at, token := <-addr, issuer.UserToken("admin", 1, "admin")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	testkit.Eventually(t, 30*time.Second, func() bool {
		r, err := http.NewRequest(http.MethodGet, "http://"+at+"/reports/enterprise", nil)
		if err != nil {
			return false
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(r)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		var report struct{ Items []struct{ Events int } }
		total := 0
		if json.NewDecoder(resp.Body).Decode(&report) != nil {
			return false
		}
		for _, d := range report.Items { // two, should midnight pass
			total += d.Events
		}
		return total == 15
	}, "the events are not reported")
}
