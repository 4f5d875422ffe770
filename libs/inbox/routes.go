package inbox

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/problem"
)

const (
	deadLetter = "dead_letter"
	// attemptLimit is the loop guard: what failed five times fails a sixth time, unless somebody says force.
	attemptLimit = 5
	pageLimit    = 100
	reasonLimit  = 500 // characters of a discard's reason
)

var errNotRedrivable = errors.New("no redrive for this kind")

// Routes serves the interventions, to operators and admins only:
//
//	GET  /                       ?kind= &type= &subject= &error= &opened_before= &status= &limit= 1-100 &cursor=
//	POST /redrive                {"kind": "", "type": "", "subject": "", "error": "", "opened_before": "", "dry_run": false,
//	                              "force": false, "reason": "", "limit": 100, "rate": 0, "cursor": ""}
//	POST /discard                the same without force; the reason must be given
//	GET  /{id}
//	POST /{id}/redrive           {"dry_run": false, "force": false, "reason": ""}, or no body
//	POST /{id}/discard           {"reason": "why", "seq": 0}; with seq only if the queue still begins there
//
// Redrive and discard answer 200 with a Result, whether or not the events got through: Status says so. What is closed
// already is left alone and answered with its status. Those of many try each that is open and chosen once, oldest first.
func (i *Inbox) Routes() http.Handler {
	r := chi.NewRouter()
	r.NotFound(problem.NotFound)
	r.MethodNotAllowed(problem.MethodNotAllowed)
	r.Group(func(r chi.Router) {
		r.Use(auth.RequireRole("operator", "admin"))
		r.Get("/", problem.Handler(i.getList))
		r.Post("/redrive", problem.Handler(i.postMany("redrive")))
		r.Post("/discard", problem.Handler(i.postMany("discard")))
		r.Get("/{id}", problem.Handler(i.getOne))
		r.Post("/{id}/redrive", problem.Handler(i.postRedrive))
		r.Post("/{id}/discard", problem.Handler(i.postDiscard))
	})
	return r
}

func (i *Inbox) getList(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r, "kind", "type", "subject", "error", "opened_before", "status", "limit", "cursor"); err != nil {
		return err
	}
	q := r.URL.Query()
	limit, before := 50, uuid.Max
	if q.Has("limit") {
		n, err := strconv.Atoi(q.Get("limit"))
		if err != nil || n < 1 || n > pageLimit {
			return problem.New(http.StatusBadRequest, "invalid-field", "limit is 1 to 100").Field("limit", "is 1 to 100")
		}
		limit = n
	}
	if q.Has("cursor") {
		raw, err := base64.RawURLEncoding.DecodeString(q.Get("cursor"))
		if err == nil {
			before, err = uuid.FromBytes(raw)
		}
		if err != nil {
			return problem.New(http.StatusBadRequest, "invalid-cursor", "the cursor is not one of ours")
		}
	}
	switch q.Get("status") {
	case "", "open", "redriven", "discarded", "resolved":
	default:
		return problem.New(http.StatusBadRequest, "invalid-field", "unknown status").Field("status", "is open, redriven, discarded or resolved")
	}
	f := filter{Kind: q.Get("kind"), Type: q.Get("type"), Subject: q.Get("subject"), Error: q.Get("error"), OpenedBefore: q.Get("opened_before")}
	if err := f.read("opened_before"); err != nil {
		return err
	}
	items, err := i.list(r.Context(), &f, q.Get("status"), before, limit+1)
	if err != nil {
		return err
	}
	page := struct {
		Items []item `json:"items"`
		Next  string `json:"next,omitempty"`
	}{Items: items}
	if len(items) > limit {
		page.Items = items[:limit]
		page.Next = base64.RawURLEncoding.EncodeToString(items[limit-1].ID[:])
	}
	return problem.JSON(w, http.StatusOK, page)
}

// lookup finds the intervention of the path.
func (i *Inbox) lookup(r *http.Request) (item, error) {
	id, err := uuid.Parse(chi.URLParam(r, "id"))
	if err != nil {
		return item{}, problem.ErrNotFound()
	}
	x, err := i.find(r.Context(), id)
	if errors.Is(err, pgx.ErrNoRows) {
		return item{}, problem.ErrNotFound()
	}
	return x, err
}

func (i *Inbox) getOne(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	x, err := i.lookup(r)
	if err != nil {
		return err
	}
	d, err := i.inspect(r.Context(), x)
	if err != nil {
		return err
	}
	return problem.JSON(w, http.StatusOK, d)
}

func (i *Inbox) postRedrive(w http.ResponseWriter, r *http.Request) error {
	type body struct {
		DryRun bool   `json:"dry_run"`
		Force  bool   `json:"force"`
		Reason string `json:"reason"`
	}
	var b body
	if r.ContentLength != 0 {
		var err error
		if b, err = problem.Decode[body](w, r); err != nil {
			return err
		}
	}
	a := act{action: "redrive", reason: b.Reason, dry: b.DryRun}
	if b.DryRun {
		a.action = "dry_run"
	}
	return i.answer(w, r, a, b.Force || b.DryRun)
}

func (i *Inbox) postDiscard(w http.ResponseWriter, r *http.Request) error {
	type body struct {
		Reason string `json:"reason"`
		Seq    int64  `json:"seq"`
	}
	b, err := problem.Decode[body](w, r)
	if err != nil {
		return err
	}
	if b.Reason == "" {
		return errReason()
	}
	return i.answer(w, r, act{action: "discard", reason: b.Reason, head: b.Seq}, true)
}

func errReason() error {
	return problem.New(http.StatusUnprocessableEntity, "invalid-field", "").Field("/reason", "is 1 to 500 characters")
}

// answer acts on the intervention of the path and says what came of it.
func (i *Inbox) answer(w http.ResponseWriter, r *http.Request, a act, force bool) error {
	if utf8.RuneCountInString(a.reason) > reasonLimit {
		return errReason()
	}
	x, err := i.lookup(r)
	if err != nil {
		return err
	}
	var res Result
	a.id, a.actor = x.ID, auth.From(r.Context()).Subject
	if x.Status == "open" {
		if x.Attempts >= attemptLimit && !force {
			return problem.New(http.StatusConflict, "redrive-limit", "this was redriven in vain "+strconv.Itoa(x.Attempts)+" times; force it, or discard it")
		}
		res, err = i.act(r.Context(), x, a)
	}
	switch {
	case errors.Is(err, errHead):
		return problem.New(http.StatusConflict, "out-of-order", "the queue does not begin with this sequence any more").Because(err)
	case errors.Is(err, errNotRedrivable):
		return problem.New(http.StatusConflict, "not-redrivable", "the service has no redrive for this kind; discard it").Because(err)
	case err != nil:
		return err
	}
	if res.Status == "" { // it was closed, by then or before
		if x, err = i.find(r.Context(), x.ID); err != nil {
			return err
		}
		res = Result{ID: x.ID, Status: x.Status, DryRun: a.dry}
	}
	return problem.JSON(w, http.StatusOK, res)
}
