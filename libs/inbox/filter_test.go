package inbox

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/problem"
)

// A filter chooses by kind, type, key, error and age, in a list as in a redrive.
func TestFilters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.poisons("o-1", 1, Permanent(errors.New("no such thing")))
	b.poisons("o-2", 1, Permanent(errors.New("overflow of 50%")))
	b.poisons("o-3", 1, Permanent(errors.New("no such thing")))
	b.consume(ev("o-1", 1))
	b.consume(from(sourceOrder, event.OrderCompleted, "o-2", 1))
	b.consume(ev("o-3", 1))
	b.raise(Intervention{Kind: "ticket", Subject: "o-1", Tenant: 1, Reason: "lost"})
	b.exec(`UPDATE parked_keys SET opened_at = now() - interval '1 hour' WHERE subject = 'o-3'`)
	hourAgo := time.Now().Add(-30 * time.Minute).UTC().Format(time.RFC3339)
	for _, tc := range []struct{ query, body, want string }{
		{"kind=poison", `"kind":"poison"`, "poison o-1, poison o-2, poison o-3"},
		{"type=order.completed", `"type":"order.completed"`, "poison o-2"},
		{"subject=o-1", `"subject":"o-1"`, "poison o-1, ticket o-1"},
		{"error=such+thing&kind=poison", `"error":"such thing","kind":"poison"`, "poison o-1, poison o-3"},
		{"error=50%25", `"error":"50%"`, "poison o-2"}, // a part, not a pattern
		{"error=5_%25", `"error":"5_%"`, ""},
		{"opened_before=" + hourAgo, `"opened_before":"` + hourAgo + `"`, "poison o-3"},
		{"kind=ticket&subject=o-2", `"kind":"ticket","subject":"o-2"`, ""},
	} {
		var listed page
		if code, body := b.call("operator", "GET", "/?"+tc.query, "", &listed); code != 200 {
			t.Fatalf("%s: %d %s", tc.query, code, body)
		}
		var got []string
		for _, x := range listed.Items {
			got = append([]string{x.Kind + " " + x.Subject}, got...) // newest first
		}
		if diff := cmp.Diff(tc.want, strings.Join(got, ", ")); diff != "" {
			t.Errorf("list %s (-want +got):\n%s", tc.query, diff)
		}
		var tried outcomes
		if code, body := b.call("operator", "POST", "/redrive", `{`+tc.body+`,"dry_run":true}`, &tried); code != 200 {
			t.Fatalf("%s: %d %s", tc.body, code, body)
		}
		got = nil
		for _, x := range tried.Items {
			got = append(got, x.Kind+" "+x.Subject)
		}
		if diff := cmp.Diff(tc.want, strings.Join(got, ", ")); diff != "" {
			t.Errorf("redrive %s (-want +got):\n%s", tc.body, diff)
		}
	}
	b.applied() // all of them were dry
}

// Many are redriven oldest first, each once and on record; what fails again stays, and what was tried in vain too often is
// passed over.
func TestRedriveMany(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for n := range 5 {
		key := fmt.Sprintf("o-%d", n)
		b.poisons(key, 1, Permanent(errors.New("bad")))
		b.consume(ev(key, 1), ev(key, 2))
		if n != 2 {
			b.poisons(key, 1, nil)
		}
	}
	b.exec(`UPDATE parked_keys SET attempts = $1 WHERE subject = 'o-3'`, attemptLimit)

	// A page of two, then the rest from where it ended.
	var first, rest outcomes
	if code, body := b.call("operator", "POST", "/redrive", `{"kind":"poison","limit":2,"rate":100,"reason":"fixed"}`, &first); code != 200 || first.Next == "" || first.Left != 3 {
		t.Fatalf("%d %s", code, body)
	}
	if code, body := b.call("operator", "POST", "/redrive", `{"kind":"poison","cursor":"`+first.Next+`"}`, &rest); code != 200 || rest.Next != "" || rest.Left != 0 {
		t.Fatalf("%d %s", code, body)
	}
	var got []string
	for _, x := range append(first.Items, rest.Items...) {
		got = append(got, fmt.Sprintf("%s %s %d/%d", x.Subject, x.Status, x.Applied, x.Left))
	}
	want := []string{"o-0 redriven 2/0", "o-1 redriven 2/0", "o-2 open 0/2", "o-3 open 0/0", "o-4 redriven 2/0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if x := rest.Items[1]; !strings.Contains(x.Error, "in vain") {
		t.Errorf("the loop guard let %+v pass", x)
	}
	if n := query[int](b, `SELECT count(*) FROM intervention_actions WHERE actor = 'olga' AND action = 'redrive'`); n[0] != 4 {
		t.Errorf("%d actions are on record, want one for each that was tried", n[0])
	}
	var forced outcomes
	if code, body := b.call("admin", "POST", "/redrive", `{"subject":"o-3","force":true}`, &forced); code != 200 || len(forced.Items) != 1 || forced.Items[0].Status != "redriven" {
		t.Errorf("%d %s", code, body)
	}
}

// What the service refuses does not keep the rest from being tried.
func TestRedriveManyGoesOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.poison["o-1"] = problem.New(409, "still-short", "there is too little")
	for _, subject := range []string{"o-1", "o-2"} {
		b.raise(Intervention{Kind: "ticket", Subject: subject, Tenant: 1, Reason: "lost"})
	}
	b.raise(Intervention{Kind: "note", Subject: "o-2", Tenant: 1, Reason: "lost"}) // nobody can redrive this kind
	var out outcomes
	if code, body := b.call("operator", "POST", "/redrive", `{"error":"lost"}`, &out); code != 200 || len(out.Items) != 3 {
		t.Fatalf("%d %s", code, body)
	}
	for i, want := range []struct{ status, text string }{{"open", "too little"}, {"redriven", ""}, {"open", "no redrive"}} {
		if x := out.Items[i]; x.Status != want.status || !strings.Contains(x.Error, want.text) || (x.Error == "") != (want.text == "") {
			t.Errorf("%+v, want %+v", x, want)
		}
	}
}

// A dry discard tells what it would close; a real one closes that, with the reason on record.
func TestDiscardMany(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, subject := range []string{"o-1", "o-2"} {
		b.raise(Intervention{Kind: "ticket", Subject: subject, Tenant: 1, Reason: "lost"})
	}
	var out outcomes
	if code, body := b.call("operator", "POST", "/discard", `{"kind":"ticket","reason":"done by hand","dry_run":true}`, &out); code != 200 || len(out.Items) != 2 || out.Items[0].Status != "open" || !out.Items[0].DryRun {
		t.Fatalf("%d %s", code, body)
	}
	if code, body := b.call("operator", "POST", "/discard", `{"kind":"ticket","reason":"done by hand"}`, &out); code != 200 || out.Items[1].Status != "discarded" {
		t.Fatalf("%d %s", code, body)
	}
	if got := query[string](b, `SELECT actor || ' ' || reason FROM intervention_actions WHERE action = 'discard'`); len(got) != 2 || got[0] != "olga done by hand" {
		t.Errorf("on record: %q", got)
	}
}

func TestBadFiltersAreRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.raise(Intervention{Kind: "ticket", Subject: "o-1", Tenant: 1, Reason: "lost"})
	for _, tc := range []struct {
		method, path, body string
		code               int
		slug               string
	}{
		{"GET", "/?opened_before=yesterday", "", 400, "invalid-field"},
		{"POST", "/redrive", "", 400, "malformed-json"},
		{"POST", "/redrive", `{}`, 422, "invalid-field"}, // not everything at once
		{"POST", "/redrive", `{"dry_run":true,"rate":5}`, 422, "invalid-field"},
		{"POST", "/redrive", `{"kind":"ticket","limit":101}`, 422, "invalid-field"},
		{"POST", "/redrive", `{"kind":"ticket","limit":-1}`, 422, "invalid-field"},
		{"POST", "/redrive", `{"kind":"ticket","rate":101}`, 422, "invalid-field"},
		{"POST", "/redrive", `{"kind":"ticket","rate":-1}`, 422, "invalid-field"},
		{"POST", "/redrive", `{"kind":"ticket","cursor":"x"}`, 400, "invalid-cursor"},
		{"POST", "/redrive", `{"kind":"ticket","opened_before":"x"}`, 400, "invalid-field"},
		{"POST", "/redrive", `{"kind":"ticket","nope":1}`, 400, "unknown-field"},
		{"POST", "/redrive?x=1", `{"kind":"ticket"}`, 400, "unknown-parameter"},
		{"POST", "/redrive", `{"kind":"ticket","reason":"` + strings.Repeat("x", 501) + `"}`, 422, "invalid-field"},
		{"POST", "/discard", `{"kind":"ticket"}`, 422, "invalid-field"},
		{"POST", "/discard", `{"reason":"all of them"}`, 422, "invalid-field"},
	} {
		var p struct{ Type string }
		if code, body := b.call("operator", tc.method, tc.path, tc.body, &p); code != tc.code || p.Type != "urn:problem:"+tc.slug {
			t.Errorf("%s %s %.60s: %d %s, want %d %s", tc.method, tc.path, tc.body, code, body, tc.code, tc.slug)
		}
	}
	for _, path := range []string{"/redrive", "/discard"} {
		if code, body := b.call("merchant", "POST", path, `{"kind":"ticket","reason":"x"}`, nil); code != 403 {
			t.Errorf("%s as a merchant: %d %s", path, code, body)
		}
	}
	if n := query[int](b, `SELECT count(*) FROM interventions WHERE status = 'open'`); n[0] != 1 {
		t.Errorf("%d are open", n[0])
	}
}
