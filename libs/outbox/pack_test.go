package outbox

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/libs/event"
)

func TestUnpackGivesWhatWasPacked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) event.Event {
			return event.Event{
				ID: uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")), Type: event.Type(rapid.String().Draw(t, "type")),
				Subject: rapid.String().Draw(t, "subject"), Seq: rapid.Int64().Draw(t, "seq"), Tenant: rapid.Int64().Draw(t, "tenant"),
				Time: time.Unix(0, rapid.Int64().Draw(t, "time")).UTC(), Traceparent: rapid.String().Draw(t, "traceparent"),
				Data:  rapid.SliceOf(rapid.Byte()).Draw(t, "data"),
				Cause: rapid.SampledFrom([]time.Time{{}, time.Unix(1, 2).UTC()}).Draw(t, "cause"),
			}
		}), 1, 5).Draw(t, "events")
		body := pack(want)
		got, err := Unpack(body)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("packed - unpacked +:\n%s", diff)
		}
		if _, err := Unpack(body[:rapid.IntRange(0, len(body)-1).Draw(t, "cut")]); err == nil && len(want) == 1 {
			t.Error("half a row was read as a whole one")
		}
	})
}

// A row that was written before the time of the cause was packed, taken from such a version.
func TestUnpackReadsTheFirstPacking(t *testing.T) {
	body := []byte{1}
	body = append(body, make([]byte, 16)...)
	body = append(body, 14, 2, 200, 1) // sequence 7, tenant 1, 100 ns after the epoch
	body = append(body, "\x0dorder.created\x03o-1\x00\x01x"...)
	got, err := Unpack(body)
	want := []event.Event{{Type: event.OrderCreated, Subject: "o-1", Seq: 7, Tenant: 1, Time: time.Unix(0, 100).UTC(), Data: []byte("x")}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, want - got +:\n%s", err, diff)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(pack([]event.Event{{Subject: "a", Seq: 1, Data: []byte("x")}}))
	f.Fuzz(func(t *testing.T, body []byte) {
		events, err := Unpack(body)
		if err == nil && len(events) == 0 {
			t.Error("a row without events")
		}
	})
}
