package httpapi

import (
	"testing"
	"time"

	"github.com/waybill-dev/waybill/services/order/internal/order"
	"github.com/waybill-dev/waybill/services/order/internal/postgres"
)

func FuzzCursor(f *testing.F) {
	own := postgres.Filter{Viewer: postgres.Viewer{Tenant: 1, Customer: "customer"}, Status: "paid"}
	last := &order.Order{ID: "o-1", CreatedAt: time.UnixMicro(1_795_000_000_123_456).UTC()}
	good := cursor(own, last)
	f.Add(good)
	f.Add(good[1:])
	f.Add(good[:len(good)-1] + "f") // other bits behind the last byte
	f.Add(good[:9] + "\n" + good[9:])
	f.Add("")
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, c string) {
		in := own
		if resume(&in, c) != nil {
			return
		}
		// What is accepted is what we have made of it: the same place gives the same cursor.
		if again := cursor(own, &order.Order{ID: in.BeforeID, CreatedAt: in.Before}); again != c {
			t.Errorf("%q was read as %s %s, whose cursor is %q", c, in.Before, in.BeforeID, again)
		}
		foreign := own
		foreign.Customer = "other"
		if resume(&foreign, c) == nil {
			t.Errorf("%q is good for two readers", c)
		}
	})
}

func TestCursorResumes(t *testing.T) {
	var f postgres.Filter
	at := time.UnixMicro(1_795_000_000_123_456).UTC()
	if err := resume(&f, cursor(f, &order.Order{ID: "o-1", CreatedAt: at})); err != nil || !f.Before.Equal(at) || f.BeforeID != "o-1" {
		t.Errorf("%+v, %v", f, err)
	}
}
