package client

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	const stream = ": hello\n\nid: 1\nevent: order.created\ndata: {\"a\":1}\n\n: ping\n\ndata: x\ndata:y\n\nid: 3\ndata: cut off"
	want := []Event{{ID: "1", Name: "order.created", Data: `{"a":1}`}, {ID: "1", Data: "x\ny"}}
	var got []Event
	err := Events(strings.NewReader(stream), func(e Event) error { got = append(got, e); return nil })
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("err = %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
