package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/stream"
)

// call asks as a user with one role and decodes the answer into out, if any.
func (b *bench) call(role, method, path, body string, out any) (int, string) {
	b.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body == "" {
		r = httptest.NewRequest(method, path, nil)
	}
	r.Header.Set("Content-Type", "application/json")
	r = r.WithContext(auth.WithPrincipal(r.Context(), auth.Principal{Subject: "olga", Tenant: 1, Roles: []string{role}}))
	w := httptest.NewRecorder()
	b.in.Routes().ServeHTTP(w, r)
	if out != nil {
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
			b.t.Errorf("%s %s answered %d %q: %v", method, path, w.Code, w.Body, err)
		}
	}
	return w.Code, w.Body.String()
}

type page struct {
	Items []item `json:"items"`
	Next  string `json:"next"`
}

func (b *bench) raise(x Intervention) {
	b.t.Helper()
	if err := pg.Do(b.t.Context(), b.pool, func(_ context.Context, u *pg.Unit) error { b.in.Raise(u, x); return nil }); err != nil {
		b.t.Fatal(err)
	}
}

func TestInterventionsAreForOperators(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := uuid.NewString()
	for _, c := range [][2]string{{"GET", "/"}, {"GET", "/" + id}, {"POST", "/" + id + "/redrive"}, {"POST", "/" + id + "/discard"}} {
		for _, role := range []string{"customer", "merchant", ""} {
			if code, body := b.call(role, c[0], c[1], "", nil); code != 403 {
				t.Errorf("%s %s as %q: %d %s", c[0], c[1], role, code, body)
			}
		}
	}
	for _, role := range []string{"operator", "admin"} {
		if code, body := b.call(role, "GET", "/", "", nil); code != 200 || body != "{\"items\":[]}\n" {
			t.Errorf("as %s: %d %s", role, code, body)
		}
	}
}

func TestBadInputIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.poisons("o-1", 1, Permanent(errors.New("bad")))
	b.consume(ev("o-1", 1))
	path := "/" + b.intervention("o-1").ID.String()
	for _, tc := range []struct {
		method, path, body string
		code               int
		slug               string
	}{
		{"GET", "/?limit=0", "", 400, "invalid-field"},
		{"GET", "/?limit=101", "", 400, "invalid-field"},
		{"GET", "/?limit=x", "", 400, "invalid-field"},
		{"GET", "/?cursor=x", "", 400, "invalid-cursor"},
		{"GET", "/?status=lost", "", 400, "invalid-field"},
		{"GET", "/?nope=1", "", 400, "unknown-parameter"},
		{"GET", "/not-a-uuid", "", 404, "not-found"},
		{"GET", "/" + uuid.NewString(), "", 404, "not-found"},
		{"GET", path + "/nope", "", 404, "not-found"},
		{"DELETE", path, "", 405, "method-not-allowed"},
		{"POST", "/" + uuid.NewString() + "/redrive", "", 404, "not-found"},
		{"POST", "/" + uuid.NewString() + "/discard", `{"reason":"x"}`, 404, "not-found"},
		{"POST", path + "/redrive", `{"dry_run":1}`, 400, "invalid-type"},
		{"POST", path + "/discard", "", 400, "malformed-json"},
		{"POST", path + "/discard", `{}`, 422, "invalid-field"},
		{"POST", path + "/discard", `{"reason":"` + strings.Repeat("x", 501) + `"}`, 422, "invalid-field"},
		{"POST", path + "/discard", `{"reason":"x","seq":2}`, 409, "out-of-order"},
	} {
		var p struct{ Type string }
		if code, body := b.call("operator", tc.method, tc.path, tc.body, &p); code != tc.code || p.Type != "urn:problem:"+tc.slug {
			t.Errorf("%s %s %.40s: %d %s, want %d %s", tc.method, tc.path, tc.body, code, body, tc.code, tc.slug)
		}
	}
	b.parked("poison o-1: 1")
}

func TestListPagesThroughAllThreeSources(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for n := range 5 {
		b.poisons(fmt.Sprintf("o-%d", n), 1, Permanent(errors.New("bad")))
		b.consume(ev(fmt.Sprintf("o-%d", n), 1))
		b.raise(Intervention{Kind: "ticket", Subject: fmt.Sprintf("o-%d", n), Tenant: 1, Reason: "lost"})
	}
	if err := b.in.Consume(t.Context(), []stream.Message{{Topic: "orders", Offset: 9}}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for cursor, n := "", 0; ; n++ {
		var p page
		if code, body := b.call("operator", "GET", "/?limit=3"+cursor, "", &p); code != 200 {
			t.Fatalf("%d %s", code, body)
		}
		for _, x := range p.Items {
			got = append(got, x.Kind+" "+x.Subject)
		}
		if p.Next == "" {
			break
		}
		cursor = "&cursor=" + p.Next
	}
	want := []string{"dead_letter orders/0/9"}
	for n := 4; n >= 0; n-- {
		want = append(want, fmt.Sprintf("ticket o-%d", n), fmt.Sprintf("poison o-%d", n))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
	for query, want := range map[string]int{"?kind=poison": 5, "?kind=ticket&status=open": 5, "?status=redriven": 0, "?kind=a%00b": 0} {
		var p page
		if code, body := b.call("admin", "GET", "/"+query, "", &p); code != 200 || len(p.Items) != want {
			t.Errorf("%s: %d %s, want %d items", query, code, body, want)
		}
	}
}

// registerMessage has a message of the test stand for order.created.
func registerMessage(t *testing.T) protoreflect.MessageType {
	t.Helper()
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("inbox_test.proto"), Package: proto.String("inbox.test"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("OrderCreated"), Field: []*descriptorpb.FieldDescriptorProto{{
			Name: proto.String("order_id"), Number: proto.Int32(1), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}}}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := dynamicpb.NewMessageType(file.Messages().Get(0))
	if err := protoregistry.GlobalTypes.RegisterMessage(m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestInspectShowsWhatIsParked(t *testing.T) {
	m := registerMessage(t).New()
	m.Set(m.Descriptor().Fields().ByName("order_id"), protoreflect.ValueOfString("o-1"))
	b := setup(t)
	e := ev("o-1", 1)
	e.Data, _ = proto.Marshal(m.Interface())
	completed := ev("o-1", 2)
	completed.Type, completed.Data = "order.completed", []byte{1, 2}
	b.poisons("o-1", 1, Permanent(errors.New("no such thing")))
	b.consume(e, completed)
	x := b.intervention("o-1")
	var d details
	if code, body := b.call("operator", "GET", "/"+x.ID.String(), "", &d); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	if len(d.Events) != 2 || d.Events[0].ID != e.ID {
		t.Fatalf("events %+v", d.Events)
	}
	if got := strings.ReplaceAll(string(d.Events[0].Payload), " ", ""); got != `{"order_id":"o-1"}` {
		t.Errorf("payload %s", got)
	}
	if got := string(d.Events[1].Payload); got != `"AQI="` {
		t.Errorf("payload of a type that is not linked in: %s", got)
	}
	if !strings.Contains(d.Error, "no such thing") || d.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" || d.Attempts != 0 || d.Tenant != 1 {
		t.Errorf("intervention %+v", d.item)
	}
}

func TestRedriveOverHTTP(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.poisons("o-1", 1, Permanent(errors.New("bad")))
	b.consume(ev("o-1", 1), ev("o-1", 2))
	path := "/" + b.intervention("o-1").ID.String()
	for n := range attemptLimit {
		var r Result
		if code, _ := b.call("operator", "POST", path+"/redrive", "", &r); code != 200 || r.Status != "open" || r.Left != 2 || r.Error == "" {
			t.Fatalf("attempt %d: %d %+v", n, code, r)
		}
	}
	if code, body := b.call("operator", "POST", path+"/redrive", "", nil); code != 409 || !strings.Contains(body, "redrive-limit") {
		t.Errorf("past the loop guard: %d %s", code, body)
	}
	b.poisons("o-1", 1, nil)
	var r Result
	if code, _ := b.call("operator", "POST", path+"/redrive", `{"dry_run":true,"reason":"is it fixed?"}`, &r); code != 200 || r.Applied != 2 || !r.DryRun || r.Status != "open" {
		t.Errorf("dry run: %d %+v", code, r)
	}
	b.applied()
	if code, _ := b.call("operator", "POST", path+"/redrive", `{"force":true,"reason":"fixed"}`, &r); code != 200 || r.Applied != 2 || r.Status != "redriven" {
		t.Errorf("redrive: %d %+v", code, r)
	}
	for range 2 {
		r = Result{}
		if code, _ := b.call("operator", "POST", path+"/redrive", "", &r); code != 200 || r.Status != "redriven" || r.Applied != 0 {
			t.Errorf("redrive of what is closed: %d %+v", code, r)
		}
	}
	b.applied("o-1/1", "o-1/2")
	var d details
	b.call("operator", "GET", path, "", &d)
	var got []string
	for _, a := range d.Actions {
		got = append(got, a.Actor+" "+a.Action+" "+a.Reason)
	}
	want := []string{"olga redrive ", "olga redrive ", "olga redrive ", "olga redrive ", "olga redrive ", "olga dry_run is it fixed?", "olga redrive fixed"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
}

func TestDiscardOverHTTP(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.poisons("o-1", 1, Permanent(errors.New("bad")))
	b.consume(ev("o-1", 1), ev("o-1", 2))
	b.raise(Intervention{Kind: "ticket", Subject: "o-7", Reason: "lost"})
	if err := b.in.Consume(t.Context(), []stream.Message{{Topic: "orders", Offset: 9, Value: []byte("secret")}}); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"o-1", "o-7", "orders/0/9"} {
		path := "/" + b.intervention(subject).ID.String()
		for range 2 {
			var r Result
			if code, body := b.call("admin", "POST", path+"/discard", `{"reason":"broken for good"}`, &r); code != 200 || r.Status != "discarded" {
				t.Errorf("discard of %s: %d %s", subject, code, body)
			}
		}
		var d details
		b.call("admin", "GET", path, "", &d)
		if d.Status != "discarded" || d.Note != "broken for good" || d.ClosedAt == nil || len(d.Actions) == 0 || d.Actions[0].Reason != "broken for good" {
			t.Errorf("after the discard: %+v", d)
		}
	}
	b.applied("o-1/2")
	if n := query[int](b, `SELECT count(*) FROM dead_letters WHERE value IS NOT NULL`)[0]; n != 0 {
		t.Error("a closed dead letter keeps its record")
	}
}

func TestTheAuditCannotBeChanged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.raise(Intervention{Kind: "ticket", Subject: "o-7"})
	b.redrive("o-7")
	for _, sql := range []string{`UPDATE intervention_actions SET actor = 'me'`, `DELETE FROM intervention_actions`, `TRUNCATE intervention_actions`} {
		if _, err := b.pool.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestRaisedInterventions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	x := Intervention{Kind: "ticket", Subject: "o-7", Tenant: 3, Reason: "carrier lost it", Detail: map[string]int{"attempt": 2}, Trace: ev("x", 1).Traceparent}
	b.raise(x)
	b.raise(x)
	if n := query[int](b, `SELECT count(*) FROM raised_interventions`)[0]; n != 1 {
		t.Errorf("%d interventions are open, want 1", n)
	}
	path := "/" + b.intervention("o-7").ID.String()
	var d details
	if b.call("operator", "GET", path, "", &d); string(d.Detail) != `{"attempt":2}` || d.Tenant != 3 || d.TraceID == "" {
		t.Errorf("inspected: %+v", d)
	}
	b.poison["o-7"] = Permanent(errors.New("still lost"))
	var r Result
	if b.call("operator", "POST", path+"/redrive", "", &r); r.Status != "open" || r.Error == "" {
		t.Errorf("redrive in vain: %+v", r)
	}
	b.poison["o-7"] = errors.New("no connection")
	if code, body := b.call("operator", "POST", path+"/redrive", "", nil); code != 500 {
		t.Errorf("redrive in trouble: %d %s", code, body)
	}
	delete(b.poison, "o-7")
	if b.call("operator", "POST", path+"/redrive", `{"dry_run":true}`, &r); r.Status != "open" || !r.DryRun {
		t.Errorf("dry run: %+v", r)
	}
	b.applied()
	for range 3 {
		if b.call("operator", "POST", path+"/redrive", "", &r); r.Status != "redriven" {
			t.Errorf("redrive: %+v", r)
		}
	}
	b.applied("o-7/1")
	b.raise(x) // it may come again
	resolve := func() {
		t.Helper()
		if err := pg.Do(t.Context(), b.pool, func(_ context.Context, u *pg.Unit) error {
			b.in.Resolve(u, "ticket", "o-7", "the parcel came")
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	resolve()
	resolve()
	if x := b.intervention("o-7"); x.Status != "resolved" || x.Note != "the parcel came" {
		t.Errorf("resolved: %+v", x)
	}
	b.raise(Intervention{Kind: "riddle", Subject: "o-7"})
	if code, body := b.call("operator", "POST", "/"+b.intervention("o-7").ID.String()+"/redrive", "", nil); code != 409 || !strings.Contains(body, "not-redrivable") {
		t.Errorf("redrive of a kind without one: %d %s", code, body)
	}
}

func TestTheGaugeCountsWhatIsOpen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.raise(Intervention{Kind: "ticket", Subject: "o-7"})
	b.raise(Intervention{Kind: "ticket", Subject: "o-8"})
	b.redrive("o-8")
	if err := b.in.gauge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := testutil.ToFloat64(b.in.metrics.open.WithLabelValues("ticket")); got != 1 {
		t.Errorf("%v open tickets, want 1", got)
	}
}

// One span per batch, linked to the traces that its events belong to.
func TestBatchSpanLinksToItsCauses(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(provider)
	defer otel.SetTracerProvider(before)
	b := setup(t)
	other := ev("o-2", 1)
	other.Traceparent = "00-00000000000000000000000000000abc-00f067aa0ba902b7-01"
	broken := ev("o-3", 1)
	broken.Traceparent = "what"
	b.consume(ev("o-1", 1), other, ev("o-1", 2), broken)
	ended := spans.Ended()
	if len(ended) != 1 || ended[0].Name() != "consume order-service" || len(ended[0].Links()) != 2 {
		t.Fatalf("spans: %+v", ended)
	}
	if got := ended[0].Links()[1].SpanContext.TraceID().String(); got != "00000000000000000000000000000abc" {
		t.Errorf("second link to %s", got)
	}
}
