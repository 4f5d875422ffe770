package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/order/internal/order"
	"github.com/waybill-dev/waybill/services/order/internal/postgres"
)

const (
	// maxStreams per user and replica.
	maxStreams = 5
	// heartbeat keeps proxies from closing a quiet stream; most wait 60 s.
	heartbeat = 15 * time.Second
	// writeTime is what one entry may take to be written. A reader that is slower is gone.
	writeTime = 10 * time.Second
)

// stream sends the timeline as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), from its beginning or
// after Last-Event-ID, as it grows. It ends with the entry that makes the order final; a browser that comes again after
// that is told by 204 to stay away.
func (a *api) stream(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	id, err := orderID(r)
	if err != nil {
		return err
	}
	var after int64
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		if after, err = strconv.ParseInt(last, 10, 64); err != nil || after < 0 {
			return problem.New(http.StatusBadRequest, "invalid-field", "Last-Event-ID is the id of an event of this stream").Field("Last-Event-ID", "not an id")
		}
	}
	p := auth.From(r.Context())
	var o *order.Order
	var lines []postgres.Line
	err = postgres.Patiently(r.Context(), func(ctx context.Context) (err error) {
		o, lines, err = a.Store.Order(ctx, id, viewer(p))
		return err
	})
	if err != nil {
		return err
	}
	if o.Status.Final() && len(lines) > 0 && lines[len(lines)-1].ID <= after {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	user := strconv.FormatInt(p.Tenant, 10) + "/" + p.Subject
	watcher := a.Hub.Watch(id, user, after, maxStreams)
	if watcher == nil {
		return problem.New(http.StatusTooManyRequests, "rate-limited", "at most "+strconv.Itoa(maxStreams)+" streams at once").After(5 * time.Second)
	}
	defer a.Hub.Leave(watcher)

	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	send := func(text string) error {
		if err := rc.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
			return err
		}
		if _, err := w.Write([]byte(text)); err != nil {
			return err
		}
		return rc.Flush()
	}
	// The status was sent, so nothing can be told any more: an error ends the stream, and the client comes again.
	if send("retry: 1000\n\n") != nil {
		return nil
	}
	alive := time.NewTicker(heartbeat)
	defer alive.Stop()
	for {
		select {
		case l, ok := <-watcher.Lines():
			if !ok {
				return nil
			}
			data, err := json.Marshal(entryOf(l))
			if err != nil || send(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", l.ID, l.Event, data)) != nil {
				return nil
			}
			if l.Status.Final() && !more(watcher.Lines()) {
				return nil
			}
		case <-alive.C:
			if send(": alive\n\n") != nil {
				return nil
			}
		case <-r.Context().Done():
			return nil
		case <-a.Draining:
			return nil
		}
	}
}

// more says whether entries wait: an order that was final long ago may have some after the one that made it so.
func more(lines <-chan postgres.Line) bool { return len(lines) > 0 }
