package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
)

// A sender that cannot be served in time is told to come again, and nothing of its body is booked.
func TestOverload(t *testing.T) {
	src := &aggregate.Source{Name: "json"}
	a, err := aggregate.New(aggregate.Options{Series: 10}, src)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	in := newIntake(a)
	s := Sources(a, Tokens{}, src, src, src)[2]
	post := func() (int, string) {
		r := httptest.NewRequest(http.MethodPost, s.Path, strings.NewReader(`{"name":"x","value":1}`))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		problem.Handler(in.handler(s))(w, r)
		return w.Code, w.Header().Get("Retry-After")
	}
	for range cap(in.slots) {
		in.slots <- struct{}{}
	}
	if code, after := post(); code != http.StatusServiceUnavailable || after != "1" {
		t.Errorf("%d, to come again after %q s", code, after)
	}
	<-in.slots
	if code, _ := post(); code != http.StatusNoContent {
		t.Errorf("%d", code)
	}
	want := []aggregate.Account{{Source: "json", Accepted: 1, Aggregated: 1, Dropped: map[string]uint64{}}}
	if diff := cmp.Diff(want, a.Ledger()); diff != "" {
		t.Error(diff)
	}
}

func TestSelectors(t *testing.T) {
	id := aggregate.Identity{Name: "x", Labels: []aggregate.Label{{Name: "a", Value: "1,}\""}, {Name: "b", Value: "2"}}}
	for s, want := range map[string]bool{
		"x": true, "y": false, `x{}`: true, `{a="1,}\""}`: true, `x{a="1,}\"", b = "2"}`: true, `x{b!="2"}`: false, `x{c!="1"}`: true, `x{c=""}`: true, `x{b="2",}`: true,
	} {
		if m, err := selector(s); err != nil || m.Matches(id) != want {
			t.Errorf("%s: %v %v", s, m, err)
		}
	}
	for _, s := range []string{"", "x{", "x{a}", `x{a=1}`, `x{a="1"`, `x{a="1"}y`, `x{="1"}`} {
		if m, err := selector(s); err == nil {
			t.Errorf("%q is %v", s, m)
		}
	}
}

func FuzzSelector(f *testing.F) {
	f.Add(`x{a="1",b!="2"}`)
	f.Fuzz(func(_ *testing.T, s string) { _, _ = selector(s) })
}
