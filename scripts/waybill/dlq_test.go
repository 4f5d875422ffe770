package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/terminal"
)

// office answers as the gateway does and keeps what it was asked.
type office struct {
	asked []string
	// pages are the answers to what is asked of many, one after the other.
	pages []string
}

func (o *office) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/auth/login" {
		fmt.Fprint(w, `{"access_token":"t"}`)
		return
	}
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	delete(body, "opened_before")
	for name, v := range body {
		if v == "" || v == false {
			delete(body, name)
		}
	}
	text, _ := json.Marshal(body) // sorted
	o.asked = append(o.asked, fmt.Sprintf("%s %s %s", r.Method, r.URL, text))
	switch {
	case strings.HasSuffix(r.URL.Path, "/redrive") && strings.Count(r.URL.Path, "/") == 3, strings.HasSuffix(r.URL.Path, "/discard") && strings.Count(r.URL.Path, "/") == 3:
		fmt.Fprint(w, o.pages[0])
		o.pages = o.pages[1:]
	case r.Method == http.MethodGet && strings.Count(r.URL.Path, "/") == 2:
		fmt.Fprint(w, `{"items":[]}`)
	default:
		fmt.Fprint(w, `{"id":"1","status":"redriven"}`)
	}
}

func dlq(t *testing.T, o *office, args ...string) (string, error) {
	t.Helper()
	server := httptest.NewServer(o)
	defer server.Close()
	var out bytes.Buffer
	cmd := newDLQ(&common{out: terminal.New(&out)})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(append(args, "--gateway", server.URL))
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestDLQAsksForWhatIsChosen(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args string
		want []string
	}{
		{"redrive order 7 --dry-run --reason x", []string{`POST /interventions/order/7/redrive {"dry_run":true,"reason":"x"}`}},
		{"discard order 7 --reason x", []string{`POST /interventions/order/7/discard {"reason":"x"}`}},
		{"redrive order --kind poison --type order.created --key o-1 --error bad --older-than 1h --force --rate 0",
			[]string{`POST /interventions/order/redrive {"error":"bad","force":true,"kind":"poison","limit":100,"subject":"o-1","type":"order.created"}`}},
		{"redrive order --key o-1 --rate 4", []string{`POST /interventions/order/redrive {"limit":20,"rate":4,"subject":"o-1"}`}},
		{"discard order --key o-1 --reason x --dry-run", []string{`POST /interventions/order/discard {"dry_run":true,"limit":100,"reason":"x","subject":"o-1"}`}},
		{"list --service order --key o-1 --type order.created", []string{`GET /interventions/order?limit=100&status=open&subject=o-1&type=order.created {}`}},
	} {
		o := &office{pages: []string{`{"items":[],"left":0}`}}
		if _, err := dlq(t, o, strings.Fields(tc.args)...); err != nil {
			t.Errorf("%s: %v", tc.args, err)
		}
		for i := range o.asked {
			o.asked[i] = strings.Replace(o.asked[i], "null", "{}", 1)
		}
		if diff := cmp.Diff(tc.want, o.asked); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.args, diff)
		}
	}
}

// Pages are followed to their end, and what did not get through makes the command fail.
func TestDLQFollowsPages(t *testing.T) {
	t.Parallel()
	o := &office{pages: []string{
		`{"items":[{"id":"1","kind":"poison","subject":"o-1","status":"redriven","applied":2}],"left":1,"next":"c"}`,
		`{"items":[{"id":"2","kind":"poison","subject":"o-2","status":"open","error":"bad"}],"left":0}`,
	}}
	out, err := dlq(t, o, "redrive", "order", "--kind", "poison")
	if err == nil || !strings.Contains(err.Error(), "1 of 2") {
		t.Errorf("error %v", err)
	}
	if len(o.asked) != 2 || !strings.Contains(o.asked[1], `"cursor":"c"`) {
		t.Errorf("asked %q", o.asked)
	}
	for _, want := range []string{"o-1", "redriven", "o-2", "bad"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// Nothing is asked for where it is not clear what is meant.
func TestDLQRefuses(t *testing.T) {
	t.Parallel()
	for _, args := range []string{
		"redrive order", "discard order --reason x", "redrive", "discard order 7", "redrive order 7 --key o-1", "discard order 7 --reason x --dry-run",
		"redrive order --key o-1 --rate 101", "redrive order 7 8",
	} {
		o := &office{}
		if _, err := dlq(t, o, strings.Fields(args)...); err == nil || len(o.asked) > 0 {
			t.Errorf("%s: error %v, asked %q", args, err, o.asked)
		}
	}
}

func TestChoiceByAge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	x := choice{olderThan: time.Hour}
	if got := x.members(now)["opened_before"]; got != "2026-11-22T11:00:00Z" {
		t.Errorf("opened_before %s", got)
	}
	if _, set := (&choice{}).members(now)["opened_before"]; set {
		t.Error("no age, and a time all the same")
	}
}
