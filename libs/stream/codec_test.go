package stream

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/libs/event"
)

func sample() event.Event {
	return event.Event{
		ID: uuid.MustParse("0192f0c1-2b3c-7d4e-8f50-616263646566"), Type: event.OrderCreated, Source: "/waybill/order", Subject: "o-1",
		Seq: 4, Tenant: 2, Time: time.Date(2026, 11, 22, 18, 0, 0, 120000000, time.UTC),
		Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Data: []byte{1, 2},
	}
}

// The bytes on the wire are a contract with readers in other languages.
func TestEncodeWritesTheContract(t *testing.T) {
	m := Encode(sample())
	want := map[string]string{
		"ce_specversion": "1.0", "ce_id": "0192f0c1-2b3c-7d4e-8f50-616263646566", "ce_source": "/waybill/order",
		"ce_type": "order.created", "ce_time": "2026-11-22T18:00:00.12Z", "ce_subject": "o-1", "ce_tenantid": "2",
		"ce_aggregateseq": "4", "content-type": "application/protobuf", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
	got := map[string]string{}
	for _, h := range m.Headers {
		got[h.Key] = string(h.Value)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers, want - got +:\n%s", diff)
	}
	if m.Topic != "orders" || string(m.Key) != "o-1" || string(m.Value) != "\x01\x02" {
		t.Errorf("record %s %s %v", m.Topic, m.Key, m.Value)
	}
}

func TestCodecKeepsEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := event.Event{
			ID: uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")), Type: rapid.SampledFrom(event.Types()).Draw(t, "type"),
			Source: rapid.StringN(1, 20, -1).Draw(t, "source"), Subject: rapid.StringN(1, 40, -1).Draw(t, "subject"),
			Seq: rapid.Int64Range(1, 1<<62).Draw(t, "seq"), Tenant: rapid.Int64().Draw(t, "tenant"),
			Time:        time.Unix(0, rapid.Int64Range(0, 1<<62).Draw(t, "time")).UTC(),
			Traceparent: rapid.String().Draw(t, "traceparent"), Data: rapid.SliceOf(rapid.Byte()).Draw(t, "data"),
		}
		got, err := DecodeMessage(Encode(e))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, got); diff != "" {
			t.Errorf("encoded - decoded +:\n%s", diff)
		}
	})
}

func TestDecodeRefusesWhatIsNoEnvelope(t *testing.T) {
	without := func(key string) Message {
		m := Encode(sample())
		m.Headers = slices.DeleteFunc(m.Headers, func(h Header) bool { return h.Key == key })
		return m
	}
	with := func(key, value string) Message {
		m := without(key)
		m.Headers = append(m.Headers, Header{key, []byte(value)})
		return m
	}
	otherKey := Encode(sample())
	otherKey.Key = []byte("o-2")
	tests := map[string]Message{
		"nothing": {}, "twice": func() Message { m := Encode(sample()); m.Headers = append(m.Headers, m.Headers[3]); return m }(),
		"another key": otherKey, "old version": with(headerNames[headerSpecVersion], "0.3"), "json": with(headerNames[headerContentType], "application/json"),
		"no uuid": with(headerNames[headerID], "7"), "no time": with(headerNames[headerTime], "yesterday"), "no number": with(headerNames[headerSeq], "one"),
		"sequence 0": with(headerNames[headerSeq], "0"), "no tenant": with(headerNames[headerTenant], ""), "no type": with(headerNames[headerType], ""), "no source": with(headerNames[headerSource], ""),
	}
	tests["no time of the cause"] = with(headerNames[headerCause], "")
	for _, name := range headerNames[:headerCause] {
		tests["without "+name] = without(name)
	}
	for name, m := range tests {
		if e, err := DecodeMessage(m); !errors.Is(err, event.ErrMalformed) {
			t.Errorf("%s: decoded to %v, %v", name, e, err)
		}
	}
	foreign := Encode(sample())
	foreign.Headers = append([]Header{{"ce_dataschema", []byte("x")}}, foreign.Headers...)
	if _, err := DecodeMessage(foreign); err != nil {
		t.Errorf("another extension is refused: %v", err)
	}
	if e, err := DecodeMessage(with(headerNames[headerType], "order.unheard_of")); err != nil || e.Type != "order.unheard_of" {
		t.Errorf("an unknown type is not the codec's to refuse: %v", err)
	}
}

func TestBackoffGrowsToItsBound(t *testing.T) {
	want := []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second, 4 * time.Second, 8 * time.Second,
		16 * time.Second, 30 * time.Second, 30 * time.Second}
	for i, w := range want {
		if got := backoff(i + 1); got != w {
			t.Errorf("after %d failures %v, want %v", i+1, got, w)
		}
	}
}

func FuzzDecodeMessage(f *testing.F) {
	m := Encode(sample())
	var flat strings.Builder
	for _, h := range m.Headers {
		flat.WriteString(h.Key + "\x00" + string(h.Value) + "\x00")
	}
	f.Add("o-1", flat.String())
	f.Fuzz(func(t *testing.T, key, flat string) {
		parts := strings.Split(flat, "\x00")
		m := Message{Key: []byte(key)}
		for i := 0; i+1 < len(parts); i += 2 {
			m.Headers = append(m.Headers, Header{parts[i], []byte(parts[i+1])})
		}
		e, err := DecodeMessage(m)
		if err != nil {
			if !errors.Is(err, event.ErrMalformed) {
				t.Errorf("error %v is not marked", err)
			}
			return
		}
		if e.Subject != key || e.Seq < 1 || e.Source == "" || e.Type == "" {
			t.Errorf("decoded to %+v", e)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	e := sample()
	b.ReportAllocs()
	for b.Loop() {
		Encode(e)
	}
}

func BenchmarkDecode(b *testing.B) {
	m := Encode(sample())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeMessage(m); err != nil {
			b.Fatal(err)
		}
	}
}
