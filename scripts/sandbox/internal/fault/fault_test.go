package fault

import (
	"testing"
)

func TestTakeAppliesTheFirstRuleThatMatchesAndUsesItUp(t *testing.T) {
	var s Set
	s.Add(Rule{Target: Charge, Match: "o-1", Status: 503, Count: 2})
	s.Add(Rule{Target: Charge, Status: 500})
	s.Add(Rule{Target: Mail, Status: 451})
	for i, want := range []int{503, 503, 500, 500} {
		if got := s.Take(Charge, "o-17").Status; got != want {
			t.Errorf("call %d for o-17: status %d, want %d", i+1, got, want)
		}
	}
	if got := s.Take(Charge, "p-1").Status; got != 500 {
		t.Errorf("p-1: status %d, want 500", got)
	}
	if got := s.Take(ShipGet, "o-1"); got != (Rule{}) {
		t.Errorf("a target without rules got %+v", got)
	}
	if n := len(s.List()); n != 2 {
		t.Errorf("%d rules left, want 2", n)
	}
	if !s.Delete("3") || s.Delete("3") {
		t.Error("a rule can be deleted once")
	}
	s.Replace(nil)
	if got := s.Take(Charge, "o-17"); got != (Rule{}) {
		t.Errorf("a rule applied after all were taken away: %+v", got)
	}
}

func TestRateIsAShare(t *testing.T) {
	var s Set
	s.Add(Rule{Target: Charge, Status: 500, Rate: 0.1})
	n := 0
	for range 10_000 {
		if s.Take(Charge, "o").Status == 500 {
			n++
		}
	}
	if n < 800 || n > 1200 { // 6.6 standard deviations
		t.Errorf("%d of 10,000 calls failed, asked for a tenth", n)
	}
}
