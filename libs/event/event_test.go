package event

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestCatalogNamesEveryTypeOnce(t *testing.T) {
	seen := map[Type]bool{}
	for _, typ := range Types() {
		if seen[typ] {
			t.Errorf("%s stands in the catalogue twice", typ)
		}
		seen[typ] = true
		if typ.Topic() == "" {
			t.Errorf("%s has no topic", typ)
		}
	}
	if got := Type("order.unheard_of").Topic(); got != "" {
		t.Errorf("an unknown type has topic %q", got)
	}
}

func TestNextKeepsTenantAndTrace(t *testing.T) {
	a := New(t.Context(), OrderCreated, "o-1", 7, 1, wrapperspb.String("x"))
	b := a.Next(PaymentInitiated, "o-1", 1, wrapperspb.String("y"))
	if b.Tenant != 7 || b.Traceparent != a.Traceparent {
		t.Errorf("next event has tenant %d, trace %s; its cause 7, %s", b.Tenant, b.Traceparent, a.Traceparent)
	}
	if a.ID == b.ID {
		t.Error("two events share an id")
	}
}

func TestTraceparentIsThatOfTheSpan(t *testing.T) {
	tid, _ := trace.TraceIDFromHex("4bf92f3577b34da6a3ce929d0e0e4736")
	sid, _ := trace.SpanIDFromHex("00f067aa0ba902b7")
	ctx := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: tid, SpanID: sid, TraceFlags: 1}))
	if got, want := Traceparent(ctx), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	fresh := Traceparent(context.Background())
	if !strings.HasPrefix(fresh, "00-") || strings.Contains(fresh, strings.Repeat("0", 32)) || !strings.HasSuffix(fresh, "-00") {
		t.Errorf("a context without a span gave %s", fresh)
	}
}

func TestDecodeRefusesGarbage(t *testing.T) {
	e := Event{Type: OrderCreated, Data: []byte{0xff, 0xff}}
	if err := e.Decode(&wrapperspb.StringValue{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("garbage decoded with %v", err)
	}
}
