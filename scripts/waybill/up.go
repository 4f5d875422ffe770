package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/client"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/plan"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/stack"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/terminal"
)

func newUp(c *common) *cobra.Command {
	var o stack.Options
	var base int
	var overrides []string
	var noSample, freePorts, untilStdinEnds bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Build and start everything, place a sample order, stay until Ctrl-C",
		Long: `Build and start everything: Kafka, PostgreSQL and Redis (embedded, unless addresses of real
ones are given), the sandbox that plays payment provider, carrier and mail server, and the
eight services, each as a process of its own. Needs Go and, where the machine has no
PostgreSQL, the network once.

When all of it is ready, one sample order is placed and its timeline printed as it happens.
A process that dies is started again. A second run finds its data.`,
		Example: `  waybill up
  waybill up --port-base 20000 --data /tmp/trial     # beside another one
  waybill up --kafka 127.0.0.1:9094                  # a real Kafka, the rest embedded
  waybill up --replicas 2 --kafka-fsync`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Ports, err = ports(base, freePorts, overrides); err != nil {
				return err
			}
			if o.Source == "" && !o.SkipBuild {
				if o.Source, err = stack.FindSource(); err != nil {
					return err
				}
			}
			o.Data = c.data
			ctx := cmd.Context()
			if untilStdinEnds {
				var stop context.CancelFunc
				ctx, stop = context.WithCancel(ctx)
				go func() {
					_, _ = io.Copy(io.Discard, os.Stdin)
					stop()
				}()
			}
			return up(ctx, c, o, !noSample)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Kafka, "kafka", "", "brokers of a real Kafka, host:port[,…], in place of the embedded one")
	f.StringVar(&o.Postgres, "postgres", "", "URL of a real PostgreSQL 15+, without a database name")
	f.StringVar(&o.Redis, "redis", "", "host:port of a real Redis")
	f.BoolVar(&o.KafkaFsync, "kafka-fsync", false, "have the embedded broker write every batch through to the disk: survives power loss, 5 ms a batch instead of 0.8")
	f.IntVar(&o.Replicas, "replicas", 1, "processes of each service, 1 to 4; those beyond the first take free ports")
	f.IntVar(&o.Partitions, "partitions", 3, "partitions of topics that do not exist yet")
	f.IntVar(&base, "port-base", 0, "other ports for everything: gateway N+80, order N+81, …, Kafka N+192, PostgreSQL N+432, Redis N+379, admin listeners N+1080, …")
	f.StringArrayVar(&overrides, "port", nil, "another port for one listener, name=port; repeatable")
	f.BoolVar(&freePorts, "free-ports", false, "whatever ports are free; `waybill status` tells which")
	f.BoolVar(&noSample, "no-sample", false, "place no sample order")
	f.BoolVar(&o.Race, "race", false, "build the services with the race detector (needs a C compiler)")
	f.StringVar(&o.Tags, "tags", "", "build tags of the services; failpoints lets a test kill them at a chosen place (docs/failpoints.md)")
	f.BoolVar(&o.SkipBuild, "no-build", false, "run what was built before")
	f.BoolVar(&untilStdinEnds, "until-stdin-ends", false, "stop when standard input ends: for programs that start this one")
	f.StringVar(&o.Source, "source", "", "the source tree (default: the one around the working directory)")
	f.StringVar(&o.LogLevel, "log-level", "info", "of the services: debug, info, warn, error")
	f.StringVar(&o.OTLP, "otlp", "", "URL of an OTLP collector for traces")
	f.StringVar(&o.Step, "sandbox-step", "", "how long each step of a delivery takes in the sandbox (default 100ms)")
	f.StringVar(&o.RateLimit, "rate-limit", "", "requests a second of one user that the gateway lets through; 0: all (default: the gateway's own)")
	return cmd
}

func ports(base int, free bool, overrides []string) (p plan.Ports, err error) {
	switch {
	case free && base != 0:
		return nil, errors.New("--free-ports and --port-base exclude each other")
	case free:
		p, err = plan.FreePorts()
	case base != 0:
		p, err = plan.PortsFrom(base)
	default:
		p = plan.DefaultPorts()
	}
	if err != nil {
		return nil, err
	}
	return p, p.Set(overrides)
}

func up(ctx context.Context, c *common, o stack.Options, sample bool) error {
	if o.Replicas < 1 || o.Replicas > 4 {
		return fmt.Errorf("--replicas %d: 1 to 4, as PostgreSQL has 200 connections", o.Replicas)
	}
	s, err := stack.Up(ctx, o, c.out)
	if err != nil {
		return err
	}
	printAddresses(c.out, s)
	if sample {
		if err := sampleOrder(ctx, c.out, s); err != nil && ctx.Err() == nil {
			c.out.Line("%s the sample order: %v", c.out.Paint(terminal.Red, "✗"), err)
		}
	}
	if ctx.Err() == nil {
		c.out.Line("%s", c.out.Paint(terminal.Dim, "it runs until Ctrl-C; `waybill order`, `waybill status`, `waybill logs` from another terminal"))
	}
	<-ctx.Done()
	// A second Ctrl-C ends us at once; the kernel then stops the rest. What comes within
	// the first moment is the same one, passed on by whoever started us.
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	go func() {
		for first := time.Now(); ; {
			<-again
			if time.Since(first) > time.Second {
				os.Exit(130)
			}
		}
	}()
	c.out.Line("stopping")
	s.Down()
	c.out.Line("%s stopped; the data stays in %s", c.out.Paint(terminal.Green, "✓"), o.Data)
	return nil
}

func printAddresses(out *terminal.Screen, s *stack.Stack) {
	p := s.Settings.Ports
	rows := [][]string{
		{"", "ADDRESS", ""},
		{"gateway", p.URL("gateway"), "the way in: users admin, merchant, operator, customer; password: password"},
		{"sandbox", p.URL("sandbox"), "/ledger /mailbox /faults: the outside world"},
		{"Kafka", s.Settings.Parts.Kafka, "topics orders, inventory, payments, shipping"},
		{"PostgreSQL", s.Settings.Parts.Postgres, "a database per service"},
		{"Redis", s.Settings.Parts.Redis, ""},
		{"mail", p.Addr("smtp"), "SMTP; read it at the sandbox's /mailbox"},
	}
	for _, name := range plan.Services {
		if name != "gateway" {
			rows = append(rows, []string{name, p.URL(name), "admin " + p.URL(name+"-admin")})
		}
	}
	out.Line("")
	out.Table(rows)
	out.Line("")
}

func sampleOrder(ctx context.Context, out *terminal.Screen, s *stack.Stack) error {
	c := &client.Client{Base: s.Settings.Ports.URL("gateway"), User: "customer", Password: "password"}
	t := teller{out: out, client: c, sandbox: s.Settings.Ports.URL("sandbox")}
	_, err := t.tell(ctx, cases["ok"])
	return err
}
