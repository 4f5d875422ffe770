package inbox

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/problem"
)

// filter chooses interventions. Empty members choose all.
type filter struct {
	Kind    string `json:"kind"`
	Type    string `json:"type"`    // of the event that a parked key stands at
	Subject string `json:"subject"` // the key
	Error   string `json:"error"`   // a part of what it failed with
	// OpenedBefore leaves out what is younger, RFC 3339.
	OpenedBefore string `json:"opened_before"`

	before time.Time
}

// read checks the time of a filter. at names the member in a problem.
func (f *filter) read(at string) error {
	f.before = time.Unix(1<<40, 0) // later than anything
	if f.OpenedBefore == "" {
		return nil
	}
	var err error
	if f.before, err = time.Parse(time.RFC3339Nano, f.OpenedBefore); err != nil {
		return problem.New(http.StatusBadRequest, "invalid-field", "").Field(at, "is a time of RFC 3339")
	}
	return nil
}

func (f *filter) empty() bool {
	return f.Kind == "" && f.Type == "" && f.Subject == "" && f.Error == "" && f.OpenedBefore == ""
}

// where is the filter as SQL; its parameters begin at $2, behind the group.
const where = ` grp = $1 AND ($2 = '' OR kind = $2) AND ($3 = '' OR type = $3) AND ($4 = '' OR subject = $4)
	AND ($5 = '' OR position($5 in reason) > 0) AND opened_at < $6`

func (i *Inbox) args(f *filter, more ...any) []any {
	return append([]any{i.o.Group, printable(f.Kind), printable(f.Type), printable(f.Subject), printable(f.Error), f.before}, more...)
}

// list returns a page of interventions, newest first, of those before an id.
func (i *Inbox) list(ctx context.Context, f *filter, status string, before uuid.UUID, limit int) ([]item, error) {
	rows, _ := i.o.Pool.Query(ctx, `SELECT `+itemColumns+` FROM interventions WHERE`+where+` AND ($7 = '' OR status = $7) AND id < $8
		ORDER BY id DESC LIMIT $9`, i.args(f, status, before, limit)...)
	return pgx.CollectRows(rows, scanItem)
}

// openOnes returns those that wait, oldest first, after an id, and how many there are in all.
func (i *Inbox) openOnes(ctx context.Context, f *filter, after uuid.UUID, limit int) (items []item, all int, err error) {
	err = i.o.Pool.QueryRow(ctx, `SELECT count(*) FROM interventions WHERE`+where+` AND status = 'open' AND id > $7`, i.args(f, after)...).Scan(&all)
	if err != nil {
		return nil, 0, err
	}
	rows, _ := i.o.Pool.Query(ctx, `SELECT `+itemColumns+` FROM interventions WHERE`+where+` AND status = 'open' AND id > $7 ORDER BY id LIMIT $8`,
		i.args(f, after, limit)...)
	items, err = pgx.CollectRows(rows, scanItem)
	return items, all, err
}

// many is what is asked for of a set of interventions.
type many struct {
	filter
	DryRun bool   `json:"dry_run"`
	Force  bool   `json:"force"` // redrive only: also what was tried five times in vain
	Reason string `json:"reason"`
	Limit  int    `json:"limit"`  // 1-100, 100 unless set
	Rate   int    `json:"rate"`   // a second at most, 1-100; 0: as fast as it goes
	Cursor string `json:"cursor"` // where the last answer ended

	after uuid.UUID
}

// outcome is what became of one of them.
type outcome struct {
	Result
	Kind    string `json:"kind"`
	Subject string `json:"subject"`
}

// outcomes is an answer about a set. Left still match behind Next.
type outcomes struct {
	Items []outcome `json:"items"`
	Left  int       `json:"left"`
	Next  string    `json:"next,omitempty"`
}

const (
	// manyTime ends an answer before a gateway would: what is not done by then is left.
	manyTime  = 10 * time.Second
	rateLimit = 100
)

// check says what is wrong with a request about a set.
func (m *many) check(action string) error {
	p := problem.New(http.StatusUnprocessableEntity, "invalid-field", "")
	if m.empty() {
		p.Field("", "name kind, type, subject, error or opened_before: not everything at once")
	}
	if m.Limit == 0 {
		m.Limit = pageLimit
	}
	if m.Limit < 1 || m.Limit > pageLimit {
		p.Field("/limit", "is 1 to 100")
	}
	if m.Rate < 0 || m.Rate > rateLimit {
		p.Field("/rate", "is 0 to 100")
	}
	if m.Reason == "" && action == "discard" || utf8.RuneCountInString(m.Reason) > reasonLimit {
		p.Field("/reason", "is 1 to 500 characters")
	}
	if m.Cursor != "" {
		raw, err := base64.RawURLEncoding.DecodeString(m.Cursor)
		if err == nil {
			m.after, err = uuid.FromBytes(raw)
		}
		if err != nil {
			return problem.New(http.StatusBadRequest, "invalid-cursor", "the cursor is not one of ours")
		}
	}
	if len(p.Errors) > 0 {
		return p
	}
	return m.read("/opened_before")
}

// postMany redrives or discards what a filter chooses, oldest first, each once: what fails again stays and is passed.
func (i *Inbox) postMany(action string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := problem.Query(r); err != nil {
			return err
		}
		m, err := problem.Decode[many](w, r)
		if err != nil {
			return err
		}
		if err := m.check(action); err != nil {
			return err
		}
		ctx := r.Context()
		items, all, err := i.openOnes(ctx, &m.filter, m.after, m.Limit)
		if err != nil {
			return err
		}
		deadline := time.Now().Add(manyTime)
		out := outcomes{Items: []outcome{}, Left: all}
		for n, x := range items {
			if n > 0 && !m.pause(ctx, deadline) {
				break
			}
			o, err := i.one(ctx, x, act{id: x.ID, action: action, actor: auth.From(ctx).Subject, reason: m.Reason, dry: m.DryRun}, m.Force)
			if err != nil {
				return err
			}
			out.Items = append(out.Items, o)
			out.Left--
			out.Next = base64.RawURLEncoding.EncodeToString(x.ID[:])
		}
		if out.Left == 0 {
			out.Next = ""
		}
		return problem.JSON(w, http.StatusOK, out)
	}
}

// pause keeps to the rate; false: the time is over.
func (m *many) pause(ctx context.Context, deadline time.Time) bool {
	var wait time.Duration
	if m.Rate > 0 {
		wait = time.Second / time.Duration(m.Rate)
	}
	if time.Now().Add(wait).After(deadline) {
		return false
	}
	select {
	case <-time.After(wait):
		return true
	case <-ctx.Done():
		return false
	}
}

// one acts on one of a set. That it cannot be redriven is its outcome, not an error of the rest.
func (i *Inbox) one(ctx context.Context, x item, a act, force bool) (outcome, error) {
	o := outcome{Result: Result{ID: x.ID, Status: x.Status, DryRun: a.dry}, Kind: x.Kind, Subject: x.Subject}
	switch {
	case a.action == "discard" && a.dry:
		return o, nil
	case a.action == "redrive" && x.Attempts >= attemptLimit && !force && !a.dry:
		o.Error = errGuard.Error()
		return o, nil
	}
	if a.dry {
		a.action = "dry_run"
	}
	r, err := i.act(ctx, x, a)
	switch {
	case errors.Is(err, errNotRedrivable), refused(err):
		o.Error = printable(err.Error())
		return o, nil
	case err != nil:
		return o, err
	case r.Status == "": // somebody else has closed it
		if x, err = i.find(ctx, x.ID); err != nil {
			return o, err
		}
		r = Result{ID: x.ID, Status: x.Status, DryRun: a.dry}
	}
	o.Result = r
	return o, nil
}

// refused says that the service has decided against a redrive, rather than been unable to decide.
func refused(err error) bool {
	var p *problem.Problem
	return errors.As(err, &p) && p.Status < http.StatusInternalServerError
}

// errGuard is the loop guard.
var errGuard = errors.New("this was redriven in vain five times; force it, or discard it")
