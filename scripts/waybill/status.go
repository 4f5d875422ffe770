package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/stack"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/supervise"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/terminal"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/usage"
)

// report is what "status --json" prints. The names of processes and addresses are part
// of the contract.
type report struct {
	Processes []processReport   `json:"processes"`
	Addresses map[string]string `json:"addresses"`
	Data      string            `json:"data"`
	Since     time.Time         `json:"since"`
	PSS       int64             `json:"pss_bytes"`
}

type processReport struct {
	Name     string  `json:"name"`
	PID      int     `json:"pid"`
	Ready    bool    `json:"ready"`
	Restarts int     `json:"restarts"`
	PSS      int64   `json:"pss_bytes"`
	CPU      float64 `json:"cpu_seconds"`
}

func newStatus(c *common) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what runs, whether it is ready and what it takes",
		Long: `Show what runs, whether it is ready and what it takes. MEMORY is the proportional set size
(PSS), the only measure that may be added up; PostgreSQL's is that of all its processes.
Ends with status 1 when something is not ready.`,
		Example: `  waybill status
  waybill status --json | jq -r '.processes[] | select(.name == "gateway") | .pid'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := stack.Load(c.data)
			if err != nil {
				return err
			}
			r := inspect(cmd.Context(), s)
			if asJSON {
				b, err := json.MarshalIndent(r, "", "  ")
				if err != nil {
					return err
				}
				c.out.Line("%s", b)
			} else {
				printReport(c.out, r)
			}
			for _, p := range r.Processes {
				if !p.Ready {
					return fmt.Errorf("%s is not ready", p.Name)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func inspect(ctx context.Context, s stack.State) report {
	r := report{Addresses: s.Addresses, Data: s.Data, Since: s.Started, Processes: make([]processReport, len(s.Processes))}
	var wg sync.WaitGroup
	for i, e := range s.Processes {
		wg.Go(func() {
			p := processReport{Name: e.Name, PID: e.PID, Restarts: e.Restarts, Ready: usage.Alive(e.PID)}
			if p.Ready && e.ReadyURL != "" {
				p.Ready = supervise.Answers(e.ReadyURL)(ctx) == nil
			}
			pss, cpu, _ := usage.Of(e.PID, e.Tree)
			p.PSS, p.CPU = pss, cpu.Seconds()
			r.Processes[i] = p
		})
	}
	wg.Wait()
	for _, p := range r.Processes {
		r.PSS += p.PSS
	}
	return r
}

func printReport(out *terminal.Screen, r report) {
	rows := [][]string{{"PROCESS", "PID", "READY", "RESTARTS", "MEMORY", "CPU", "ADDRESS"}}
	listed := map[string]bool{}
	for _, p := range r.Processes {
		ready := "yes"
		if !p.Ready {
			ready = "NO"
		}
		listed[p.Name] = true
		rows = append(rows, []string{p.Name, strconv.Itoa(p.PID), ready, strconv.Itoa(p.Restarts), mebibytes(p.PSS), fmt.Sprintf("%.1f s", p.CPU), r.Addresses[p.Name]})
	}
	for _, part := range []string{"kafka", "postgres", "redis"} {
		if !listed[part] {
			rows = append(rows, []string{part, "", "", "", "", "", r.Addresses[part] + " (not ours)"})
		}
	}
	out.Table(rows)
	out.Line("%s in all, up for %s, data in %s", mebibytes(r.PSS), time.Since(r.Since).Round(time.Second), r.Data)
}

func mebibytes(n int64) string {
	if n == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
}

func newDown(c *common) *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		Short:   "Stop everything; the data stays",
		Example: `  waybill down`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := stack.Stop(cmd.Context(), c.data)
			if errors.Is(err, stack.ErrNotRunning) {
				c.out.Line("nothing runs")
				return nil
			}
			if err == nil {
				c.out.Line("%s stopped; the data stays in %s", c.out.Paint(terminal.Green, "✓"), c.data)
			}
			return err
		},
	}
}

func newReset(c *common) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Stop everything and delete its data",
		Long: `Stop everything and delete its data: databases, topics, mailbox, ledger, keys and logs.
Databases on a server given with --postgres and topics of a Kafka given with --kafka are
not touched.`,
		Example: `  waybill reset --yes`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return fmt.Errorf("this deletes everything in %s; say --yes to do it", c.data)
			}
			if err := stack.Stop(cmd.Context(), c.data); err != nil && !errors.Is(err, stack.ErrNotRunning) {
				return err
			}
			if err := stack.Remove(c.data); err != nil {
				return err
			}
			c.out.Line("%s the data in %s is deleted", c.out.Paint(terminal.Green, "✓"), c.data)
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "really")
	return cmd
}
