package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// stream reads one connection's worth of server-sent events.
func (c *Client) stream(ctx context.Context, id string, last *string, seen func(Moment) bool) error {
	header := http.Header{"Accept": {"text/event-stream"}}
	if *last != "" {
		header.Set("Last-Event-ID", *last)
	}
	resp, err := c.open(ctx, http.MethodGet, "/orders/"+url.PathEscape(id)+"/events", header, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return decode(resp, nil)
	}
	defer resp.Body.Close()
	return Events(resp.Body, func(e Event) error {
		if e.ID != "" {
			*last = e.ID
		}
		var m Moment
		if err := json.Unmarshal([]byte(e.Data), &m); err != nil {
			return fmt.Errorf("an event of order %s is not JSON: %w", id, err)
		}
		if !seen(m) {
			return errEnd
		}
		return nil
	})
}

// Event is one server-sent event.
type Event struct{ ID, Name, Data string }

// Events reads server-sent events (HTML Living Standard 9.2) until r ends or each
// returns an error. Comments, which keep a connection alive, are skipped.
func Events(r io.Reader, each func(Event) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4<<10), 1<<20)
	var e Event
	var data []string
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			if len(data) > 0 {
				e.Data = strings.Join(data, "\n")
				if err := each(e); err != nil {
					return err
				}
			}
			e, data = Event{ID: e.ID}, nil
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			e.ID = value
		case "event":
			e.Name = value
		case "data":
			data = append(data, value)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}
