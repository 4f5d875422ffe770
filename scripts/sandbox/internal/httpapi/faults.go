package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/fault"
)

// ruleBody is a rule as it is sent and shown. Delay is written as Go writes durations: "1.5s".
type ruleBody struct {
	ID          string  `json:"id,omitzero"`
	Target      string  `json:"target"`
	Match       string  `json:"match,omitzero"`
	Status      int     `json:"status,omitzero"`
	Delay       string  `json:"delay,omitzero"`
	Timeout     bool    `json:"timeout,omitzero"`
	AfterEffect bool    `json:"after_effect,omitzero"`
	Outcome     string  `json:"outcome,omitzero"`
	Count       int     `json:"count,omitzero"`
	Rate        float64 `json:"rate,omitzero"`
}

type rulesBody struct {
	Rules []ruleBody `json:"rules"`
}

func (a *API) listFaults(w http.ResponseWriter, _ *http.Request) error {
	out := rulesBody{Rules: []ruleBody{}}
	for _, r := range a.Faults.List() {
		out.Rules = append(out.Rules, show(r))
	}
	return problem.JSON(w, http.StatusOK, out)
}

func (a *API) replaceFaults(w http.ResponseWriter, r *http.Request) error {
	in, err := problem.Decode[rulesBody](w, r)
	if err != nil {
		return err
	}
	rules := make([]fault.Rule, len(in.Rules))
	for i, b := range in.Rules {
		if rules[i], err = b.rule(fmt.Sprintf("/rules/%d", i)); err != nil {
			return err
		}
	}
	a.Faults.Replace(rules)
	return a.listFaults(w, r)
}

func (a *API) addFault(w http.ResponseWriter, r *http.Request) error {
	in, err := problem.Decode[ruleBody](w, r)
	if err != nil {
		return err
	}
	rule, err := in.rule("")
	if err != nil {
		return err
	}
	rule = a.Faults.Add(rule)
	w.Header().Set("Location", "/faults/"+rule.ID)
	return problem.JSON(w, http.StatusCreated, show(rule))
}

func (a *API) clearFaults(w http.ResponseWriter, _ *http.Request) error {
	a.Faults.Replace(nil)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) deleteFault(w http.ResponseWriter, r *http.Request) error {
	if !a.Faults.Delete(chi.URLParam(r, "id")) {
		return problem.New(http.StatusNotFound, "not-found", "there is no such rule (any more)")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func show(r fault.Rule) ruleBody {
	b := ruleBody{
		ID: r.ID, Target: string(r.Target), Match: r.Match, Status: r.Status, Timeout: r.Timeout,
		AfterEffect: r.AfterEffect, Outcome: r.Outcome, Count: r.Count, Rate: r.Rate,
	}
	if r.Delay > 0 {
		b.Delay = r.Delay.String()
	}
	return b
}

func (b ruleBody) rule(at string) (fault.Rule, error) {
	p := problem.New(http.StatusUnprocessableEntity, "invalid-field", "this is not a rule")
	outcomes, known := fault.Outcomes[fault.Target(b.Target)]
	var delay time.Duration
	if b.Delay != "" {
		var err error
		if delay, err = time.ParseDuration(b.Delay); err != nil || delay < 0 || delay > time.Minute {
			return fault.Rule{}, p.Field(at+"/delay", `a duration such as "1.5s", at most a minute`)
		}
	}
	switch {
	case !known:
		return fault.Rule{}, p.Field(at+"/target", "no such target")
	case b.Status != 0 && (b.Status < 400 || b.Status > 599):
		return fault.Rule{}, p.Field(at+"/status", "an error of HTTP or SMTP, 400 to 599")
	case b.Outcome != "" && !slices.Contains(outcomes, b.Outcome):
		return fault.Rule{}, p.Field(at+"/outcome", fmt.Sprintf("one of %q", outcomes))
	case b.Count < 0:
		return fault.Rule{}, p.Field(at+"/count", "a number from 0, for ever")
	case b.Rate < 0 || b.Rate > 1:
		return fault.Rule{}, p.Field(at+"/rate", "a share from 0 to 1")
	case b.Status == 0 && delay == 0 && !b.Timeout && b.Outcome == "":
		return fault.Rule{}, p.Field(at, "say what goes wrong: status, delay, timeout or outcome")
	}
	return fault.Rule{
		Target: fault.Target(b.Target), Match: b.Match, Status: b.Status, Delay: delay, Timeout: b.Timeout,
		AfterEffect: b.AfterEffect, Outcome: b.Outcome, Count: b.Count, Rate: b.Rate,
	}, nil
}
