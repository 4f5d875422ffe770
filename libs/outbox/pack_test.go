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
				Data: rapid.SliceOf(rapid.Byte()).Draw(t, "data"),
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

func FuzzUnpack(f *testing.F) {
	f.Add(pack([]event.Event{{Subject: "a", Seq: 1, Data: []byte("x")}}))
	f.Fuzz(func(t *testing.T, body []byte) {
		events, err := Unpack(body)
		if err == nil && len(events) == 0 {
			t.Error("a row without events")
		}
	})
}
