package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/client"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/plan"
)

// intervention is what GET /interventions/{service} lists.
type intervention struct {
	Service  string     `json:"service"`
	ID       string     `json:"id"`
	Kind     string     `json:"kind"`
	Status   string     `json:"status"`
	Subject  string     `json:"subject"`
	Type     string     `json:"type,omitempty"`
	Tenant   int64      `json:"tenant"`
	Error    string     `json:"error"`
	Attempts int        `json:"attempts"`
	TraceID  string     `json:"trace_id,omitempty"`
	Note     string     `json:"note,omitempty"`
	OpenedAt time.Time  `json:"opened_at"`
	ClosedAt *time.Time `json:"closed_at,omitempty"`
}

// desk holds the flags of all verbs of dlq.
type desk struct {
	common                  *common
	gateway, user, password string
	asJSON                  bool
}

func newDLQ(c *common) *cobra.Command {
	d := &desk{common: c}
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "Show what needs a person, try it again or discard it",
		Long: `Show what needs a person, try it again or discard it: parked keys (an event that cannot be
handled, with all later ones of its order behind it), dead letters, and what a service
could not decide itself. Every action is audited with your name.`,
		Example: `  waybill dlq list
  waybill dlq show order 0199…
  waybill dlq redrive order 0199… --dry-run
  waybill dlq redrive order --kind poison --error timeout --rate 10
  waybill dlq discard order 0199… --reason "order was refunded by hand"`,
	}
	f := cmd.PersistentFlags()
	f.StringVar(&d.gateway, "gateway", "", "URL of the gateway (default: of the stack that runs here)")
	f.StringVar(&d.user, "user", "operator", "an operator or admin")
	f.StringVar(&d.password, "password", "password", "that user's password")
	f.BoolVar(&d.asJSON, "json", false, "print JSON")
	cmd.AddCommand(d.list(), d.show(), d.redrive(), d.discard())
	return cmd
}

func (d *desk) client() (*client.Client, error) {
	w, err := addressesOf(d.common.data, d.gateway, "")
	if err != nil {
		return nil, err
	}
	return &client.Client{Base: w.gateway, User: d.user, Password: d.password}, nil
}

// consumers are the services that can have interventions.
func consumers() []string { return plan.Services[1:] }

func (d *desk) list() *cobra.Command {
	var service, status string
	var only choice
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List what is open, of all services or of one",
		Example: "  waybill dlq list\n  waybill dlq list --service order --status discarded\n  waybill dlq list --key o-1\n  waybill dlq list --type payment.processed --older-than 1h",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := d.client()
			if err != nil {
				return err
			}
			services := consumers()
			if service != "" {
				services = []string{service}
			}
			all := []intervention{}
			var errs []error
			for _, name := range services {
				q := only.query(time.Now())
				q.Set("status", status)
				q.Set("limit", "100")
				found, err := fetchAll(cmd, c, name, q)
				var p *client.Problem
				if errors.As(err, &p) && p.Status == http.StatusNotFound && service == "" {
					continue // a service without interventions
				}
				errs = append(errs, err)
				all = append(all, found...)
			}
			if d.asJSON {
				return errors.Join(append(errs, d.print(all))...)
			}
			rows := [][]string{{"SERVICE", "ID", "KIND", "STATUS", "SUBJECT", "TYPE", "TRIES", "SINCE", "WHY"}}
			for _, x := range all {
				rows = append(rows, []string{x.Service, x.ID, x.Kind, x.Status, x.Subject, x.Type, strconv.Itoa(x.Attempts), x.OpenedAt.Local().Format(time.DateTime), oneLine(x.Error)})
			}
			if len(all) == 0 {
				d.common.out.Line("nothing needs a person")
			} else {
				d.common.out.Table(rows)
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().StringVar(&service, "service", "", "only of this one: "+strings.Join(consumers(), " "))
	cmd.Flags().StringVar(&status, "status", "open", "open, redriven, discarded or resolved")
	only.flags(cmd)
	return cmd
}

// choice is a filter over interventions.
type choice struct {
	kind, typ, key, text string
	olderThan            time.Duration
}

func (x *choice) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&x.kind, "kind", "", "only of this kind: poison, gap, dead_letter or a service's own")
	f.StringVar(&x.typ, "type", "", "only parked at an event of this type, for example payment.processed")
	f.StringVar(&x.key, "key", "", "only of this key: an order id, or stock:<tenant>:<product>")
	f.StringVar(&x.text, "error", "", "only with this text in what it failed with")
	f.DurationVar(&x.olderThan, "older-than", 0, "only what has waited longer than this, for example 10m")
}

func (x *choice) empty() bool { return *x == choice{} }

// members are the filter as the API names them.
func (x *choice) members(now time.Time) map[string]string {
	m := map[string]string{"kind": x.kind, "type": x.typ, "subject": x.key, "error": x.text}
	if x.olderThan > 0 {
		m["opened_before"] = now.Add(-x.olderThan).UTC().Format(time.RFC3339Nano)
	}
	return m
}

func (x *choice) query(now time.Time) url.Values {
	q := url.Values{}
	for name, value := range x.members(now) {
		q.Set(name, value)
	}
	return q
}

// fetchAll follows the pages.
func fetchAll(cmd *cobra.Command, c *client.Client, service string, q url.Values) ([]intervention, error) {
	for name := range q {
		if q.Get(name) == "" {
			q.Del(name)
		}
	}
	var all []intervention
	for {
		var page struct {
			Items []intervention
			Next  string
		}
		if err := c.Do(cmd.Context(), http.MethodGet, "/interventions/"+service+"?"+q.Encode(), nil, &page); err != nil {
			return all, err
		}
		for _, x := range page.Items {
			x.Service = service
			all = append(all, x)
		}
		if page.Next == "" {
			return all, nil
		}
		q.Set("cursor", page.Next)
	}
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 80 {
		return string(r[:79]) + "…"
	}
	return s
}

func (d *desk) print(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		d.common.out.Line("%s", b)
	}
	return err
}

func path(args []string, verb string) string {
	p := "/interventions/" + url.PathEscape(args[0]) + "/" + url.PathEscape(args[1])
	if verb != "" {
		p += "/" + verb
	}
	return p
}

func (d *desk) show() *cobra.Command {
	return &cobra.Command{
		Use:     "show <service> <id>",
		Short:   "Show one with its events and what was done about it",
		Example: "  waybill dlq show order 0199…",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return d.call(cmd, http.MethodGet, path(args, ""), nil)
		},
	}
}

func (d *desk) redrive() *cobra.Command {
	var only choice
	var dry, force bool
	var reason string
	var rate int
	cmd := &cobra.Command{
		Use:   "redrive <service> [<id>]",
		Short: "Handle it again: for a parked key all that waits, in order",
		Long: `Handle it again: for a parked key all that waits, in order. With an id that one; otherwise all
of the service that are open and chosen by --kind, --type, --key, --error or --older-than,
oldest first, each once, --rate a second. What failed five times is passed over unless
--force is given. --dry-run does it, tells what would come of it and undoes it.`,
		Example: `  waybill dlq redrive order 0199… --dry-run
  waybill dlq redrive order 0199…
  waybill dlq redrive inventory --key o-1
  waybill dlq redrive order --type payment.processed --error timeout --older-than 10m --rate 10`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return d.one(cmd, &only, path(args, "redrive"), map[string]any{"dry_run": dry, "force": force, "reason": reason})
			}
			return d.many(cmd, &only, args[0], "redrive", rate, map[string]any{"dry_run": dry, "force": force, "reason": reason})
		},
	}
	only.flags(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "do it, tell what would come of it, and undo it")
	cmd.Flags().BoolVar(&force, "force", false, "also where five tries were in vain")
	cmd.Flags().StringVar(&reason, "reason", "", "for the audit")
	cmd.Flags().IntVar(&rate, "rate", 20, "how many a second at most, 1-100; 0: as fast as it goes")
	return cmd
}

func (d *desk) discard() *cobra.Command {
	var only choice
	var dry bool
	var reason string
	cmd := &cobra.Command{
		Use:   "discard <service> [<id>]",
		Short: "Give it up, with a reason: for a parked key the first event that waits",
		Long: `Give it up, with a reason: for a parked key the first event that waits. With an id that one;
otherwise all of the service that are open and chosen by --kind, --type, --key, --error or
--older-than. --dry-run tells which.`,
		Example: `  waybill dlq discard order 0199… --reason "refunded by hand"
  waybill dlq discard notification --kind mail_undelivered --older-than 48h --dry-run --reason "told by phone"`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 && dry {
				return errors.New("--dry-run goes with a choice, not with an id: see waybill dlq show")
			}
			if len(args) == 2 {
				return d.one(cmd, &only, path(args, "discard"), map[string]any{"reason": reason})
			}
			return d.many(cmd, &only, args[0], "discard", 0, map[string]any{"dry_run": dry, "reason": reason})
		},
	}
	only.flags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why; it is kept")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only tell which")
	_ = cmd.MarkFlagRequired("reason")
	return cmd
}

// one acts on the intervention with an id.
func (d *desk) one(cmd *cobra.Command, only *choice, path string, in map[string]any) error {
	if !only.empty() {
		return errors.New("an id and a choice exclude each other")
	}
	return d.call(cmd, http.MethodPost, path, in)
}

// handled is what became of one of many.
type handled struct {
	ID      string `json:"id"`
	Kind    string `json:"kind"`
	Subject string `json:"subject"`
	Status  string `json:"status"`
	DryRun  bool   `json:"dry_run"`
	Applied int    `json:"applied"`
	Left    int    `json:"left"`
	Error   string `json:"error,omitempty"`
}

// many acts on what a choice chooses, page by page: each once, as the pages go on where the last one ended.
func (d *desk) many(cmd *cobra.Command, only *choice, service, action string, rate int, in map[string]any) error {
	if only.empty() {
		return errors.New("name an id, or choose with --kind, --type, --key, --error or --older-than")
	}
	if rate < 0 || rate > 100 {
		return fmt.Errorf("--rate %d: 0 to 100", rate)
	}
	c, err := d.client()
	if err != nil {
		return err
	}
	for name, value := range only.members(time.Now()) {
		in[name] = value
	}
	in["limit"] = 100
	if rate > 0 {
		in["limit"] = min(100, 5*rate) // an answer a few seconds
		in["rate"] = rate
	}
	all, stopped := []handled{}, 0
	for {
		var page struct {
			Items []handled
			Left  int
			Next  string
		}
		if err := c.Do(cmd.Context(), http.MethodPost, "/interventions/"+url.PathEscape(service)+"/"+action, in, &page); err != nil {
			return errors.Join(err, d.tell(all))
		}
		all = append(all, page.Items...)
		if page.Next == "" || len(page.Items) == 0 {
			break
		}
		in["cursor"] = page.Next
		if !d.asJSON {
			d.common.out.Line("%d done, %d left", len(all), page.Left)
		}
	}
	for _, x := range all {
		if x.Error != "" {
			stopped++
		}
	}
	if err := d.tell(all); err != nil {
		return err
	}
	if stopped > 0 {
		return fmt.Errorf("%d of %d did not get through", stopped, len(all))
	}
	return nil
}

func (d *desk) tell(all []handled) error {
	if d.asJSON {
		return d.print(all)
	}
	if len(all) == 0 {
		d.common.out.Line("nothing that is open is like that")
		return nil
	}
	rows := [][]string{{"ID", "KIND", "SUBJECT", "STATUS", "APPLIED", "LEFT", "WHY"}}
	for _, x := range all {
		status := x.Status
		if x.DryRun {
			status += " (dry run)"
		}
		rows = append(rows, []string{x.ID, x.Kind, x.Subject, status, strconv.Itoa(x.Applied), strconv.Itoa(x.Left), oneLine(x.Error)})
	}
	d.common.out.Table(rows)
	return nil
}

// call prints the answer as it is: there is more in it than a table could hold.
func (d *desk) call(cmd *cobra.Command, method, path string, in any) error {
	c, err := d.client()
	if err != nil {
		return err
	}
	var out json.RawMessage
	if err := c.Do(cmd.Context(), method, path, in, &out); err != nil {
		return err
	}
	var v any
	if err := json.Unmarshal(out, &v); err != nil {
		return fmt.Errorf("the answer is not JSON: %w", err)
	}
	return d.print(v)
}
