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
	var service, status, kind string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List what is open, of all services or of one",
		Example: "  waybill dlq list\n  waybill dlq list --service order --status discarded",
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
				found, err := fetchAll(cmd, c, name, url.Values{"status": {status}, "kind": {kind}, "limit": {"100"}})
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
	cmd.Flags().StringVar(&kind, "kind", "", "only of this kind: poison, gap, dead_letter or a service's own")
	return cmd
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
	var dry, force bool
	var reason string
	cmd := &cobra.Command{
		Use:     "redrive <service> <id>",
		Short:   "Handle it again: for a parked key all that waits, in order",
		Example: "  waybill dlq redrive order 0199… --dry-run\n  waybill dlq redrive order 0199…",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return d.call(cmd, http.MethodPost, path(args, "redrive"), map[string]any{"dry_run": dry, "force": force, "reason": reason})
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "do it, tell what would come of it, and undo it")
	cmd.Flags().BoolVar(&force, "force", false, "also where five tries were in vain")
	cmd.Flags().StringVar(&reason, "reason", "", "for the audit")
	return cmd
}

func (d *desk) discard() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:     "discard <service> <id>",
		Short:   "Give it up, with a reason: for a parked key the first event that waits",
		Example: `  waybill dlq discard order 0199… --reason "refunded by hand"`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return d.call(cmd, http.MethodPost, path(args, "discard"), map[string]any{"reason": reason})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; it is kept")
	_ = cmd.MarkFlagRequired("reason")
	return cmd
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
