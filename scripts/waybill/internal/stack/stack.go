// Package stack starts the platform on one machine and keeps it running.
//
// Everything is a child process of its own, so that "kill -9" of any of them is what it
// is in production: Kafka and Redis too, which are libraries here. The order of a start
// is parts (PostgreSQL, Kafka, Redis), sandbox, services; a stop goes the other way
// round, with the gateway first, so that nobody is cut off in the middle of a request.
package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/libs/testkit/postgres"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/plan"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/supervise"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/terminal"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/usage"
)

// Options are the flags of "waybill up".
type Options struct {
	Source string // the source tree
	Data   string
	Ports  plan.Ports
	// Kafka, Postgres, Redis are addresses of real ones; empty embeds.
	Kafka, Postgres, Redis string
	KafkaFsync             bool
	Replicas               int
	Partitions             int
	Race                   bool
	Tags                   string // build tags of the services
	SkipBuild              bool
	LogLevel, OTLP, Step   string
	RateLimit              string
	// Others are the ports of the replicas beyond the first; those that are missing are
	// whatever is free.
	Others []plan.Ports
	// Route and Environment are those of plan.Settings.
	Route       func(process, callee string, at []string) string
	Environment map[string][]string
	// Apache starts Apache Kafka by scripts/kafka in the place of the embedded broker.
	Apache bool
	// HealthyWithin is how long the services may take to be ready.
	HealthyWithin time.Duration
}

const (
	// HealthyWithin is the promise of the documentation.
	HealthyWithin = 30 * time.Second
	// stopGrace is more than the services' own limit for draining (15 s).
	stopGrace = 20 * time.Second
)

// Stack is a platform that runs.
type Stack struct {
	Settings plan.Settings

	options Options
	screen  *terminal.Screen
	lock    *os.File
	started time.Time
	db      *database

	mu        sync.Mutex
	processes []*member
}

type member struct {
	*supervise.Process
	readyURL string
}

// Up builds and starts everything and returns once all of it is ready. On an error,
// what was started has been stopped.
func Up(ctx context.Context, o Options, screen *terminal.Screen) (*Stack, error) {
	data, err := filepath.Abs(o.Data)
	if err != nil {
		return nil, err
	}
	o.Data = data
	if o.HealthyWithin == 0 {
		o.HealthyWithin = HealthyWithin
	}
	s := &Stack{options: o, screen: screen, started: time.Now()}
	if s.lock, err = lock(data); err != nil {
		return nil, err
	}
	endSurvivors(data, s.say)
	if err := s.start(ctx); err != nil {
		s.Down()
		return nil, err
	}
	return s, nil
}

func (s *Stack) say(format string, args ...any) {
	s.screen.Line("%s %s", s.screen.Paint(terminal.Yellow, time.Now().Format("15:04:05")), fmt.Sprintf(format, args...))
}

func (s *Stack) start(ctx context.Context) error {
	o := s.options
	if err := s.checkPorts(); err != nil {
		return err
	}
	secrets, err := loadSecrets(o.Data)
	if err != nil {
		return fmt.Errorf("keep the secrets: %w", err)
	}
	s.Settings = plan.Settings{Ports: o.Ports, Secrets: secrets, Data: o.Data, LogLevel: o.LogLevel, OTLP: o.OTLP, Step: o.Step, RateLimit: o.RateLimit, Partitions: o.Partitions, Replicas: o.Replicas,
		Others: slices.Clone(o.Others), Route: o.Route, Environment: o.Environment}
	for len(s.Settings.Others) < o.Replicas-1 {
		free, err := plan.FreePorts()
		if err != nil {
			return err
		}
		s.Settings.Others = append(s.Settings.Others, free)
	}
	if err := auth.GenerateServiceKeys(s.Settings.KeysDir(), plan.Services); err != nil {
		return fmt.Errorf("make the services' keys: %w", err)
	}
	if !o.SkipBuild {
		step := s.screen.Step("building eight services and the sandbox")
		defer step.Fail()
		if err := build(ctx, o, filepath.Join(o.Data, "bin"), step); err != nil {
			return err
		}
		step.Done("")
	}
	if err := s.startParts(ctx); err != nil {
		return err
	}
	return s.startServices(ctx)
}

// checkPorts finds out who is in the way before anything is started.
func (s *Stack) checkPorts() error {
	p := s.options.Ports
	errs := []error{p.Clash()}
	programs := append([]string{"sandbox"}, plan.Services...)
	for name, address := range map[string]string{"kafka": s.options.Kafka, "postgres": s.options.Postgres, "redis": s.options.Redis} {
		if address == "" {
			programs = append(programs, name)
		}
	}
	slices.Sort(programs)
	for _, program := range programs {
		for _, name := range plan.Listeners(program) {
			l, err := net.Listen("tcp", p.Addr(name))
			if err == nil {
				l.Close()
				continue
			}
			if !errors.Is(err, syscall.EADDRINUSE) {
				errs = append(errs, fmt.Errorf("%s cannot listen on %s: %w", name, p.Addr(name), err))
				continue
			}
			by := "another program"
			if pid, comm := usage.Listener(p[name]); pid != 0 {
				by = fmt.Sprintf("%s (pid %d)", comm, pid)
			}
			errs = append(errs, fmt.Errorf("%s cannot listen on %s: the port is taken by %s. Stop that, or choose another port with --port %s=%d, or other ports for everything with --port-base 20000", name, p.Addr(name), by, name, p[name]+10000))
		}
	}
	return errors.Join(errs...)
}

func (s *Stack) logFile(name string) string {
	return filepath.Join(s.options.Data, "logs", name+".log")
}

func (s *Stack) startParts(ctx context.Context) error {
	o, p := s.options, &s.Settings.Parts
	// Settled before anything starts: each start saves the state, in a goroutine of its own, with these addresses in it.
	p.Kafka, p.Postgres, p.Redis = o.Kafka, strings.TrimSuffix(o.Postgres, "/"), o.Redis
	if o.Kafka == "" {
		p.Kafka = o.Ports.Addr("kafka")
	}
	if o.Redis == "" {
		p.Redis = o.Ports.Addr("redis")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if o.Postgres == "" {
		step := s.screen.Step("starting PostgreSQL")
		defer step.Fail()
		db, err := startDatabase(ctx, postgres.Options{
			Dir: filepath.Join(o.Data, "postgres"), Port: o.Ports["postgres"], Fsync: true,
			Progress: func(what string) { step.Remark("%s", what) },
		}, s.say, s.save)
		if err != nil {
			return fmt.Errorf("%w\n(or use a server of your own: --postgres postgres://user:password@host:5432)", err)
		}
		s.mu.Lock()
		s.db, p.Postgres = db, db.current().URL("")
		s.mu.Unlock()
		step.Done("%s", p.Postgres)
	}
	if err := createDatabases(ctx, s.Settings); err != nil {
		return err
	}
	auditor, err := createAuditor(ctx, s.Settings)
	if err != nil {
		return err
	}
	if auditor == "" {
		s.say("the user given with --postgres may not make roles: `waybill verify` reads as that user")
	}
	s.mu.Lock()
	p.Auditor = auditor
	s.mu.Unlock()
	if o.Kafka == "" && o.Apache {
		program := supervise.Program{Name: "kafka", Path: filepath.Join(o.Source, "scripts", "kafka", "run.sh"), Args: []string{strconv.Itoa(o.Ports["kafka"]), filepath.Join(o.Data, "apache-kafka")}, Ready: dials(p.Kafka)}
		if err := s.startPart(ctx, "Apache Kafka", program); err != nil {
			return err
		}
	} else if o.Kafka == "" {
		args := []string{"kafka-embedded", "--listen", p.Kafka, "--dir", filepath.Join(o.Data, "kafka"), "--partitions", strconv.Itoa(o.Partitions)}
		if o.KafkaFsync {
			args = append(args, "--fsync")
		}
		if err := s.startPart(ctx, "Kafka", supervise.Program{Name: "kafka", Path: self, Args: args, Env: plan.Share(), Ready: dials(p.Kafka)}); err != nil {
			return err
		}
	} else if err := anyOf(o.Kafka)(ctx); err != nil {
		return fmt.Errorf("no Kafka answers at %s: %w\nStart it, or leave --kafka out to embed a broker", o.Kafka, err)
	}
	if o.Redis == "" {
		if err := s.startPart(ctx, "Redis", supervise.Program{Name: "redis", Path: self, Args: []string{"redis-embedded", "--listen", p.Redis}, Ready: pings(p.Redis)}); err != nil {
			return err
		}
	} else if err := pings(o.Redis)(ctx); err != nil {
		return fmt.Errorf("no Redis answers at %s: %w\nStart it, or leave --redis out to embed one", o.Redis, err)
	}
	return nil
}

func (s *Stack) startPart(ctx context.Context, title string, p supervise.Program) error {
	step := s.screen.Step("starting " + title)
	defer step.Fail()
	m, err := s.add(p, "")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.HealthyWithin)
	defer cancel()
	if err := m.Await(ctx); err != nil {
		return err
	}
	step.Done("%s", s.options.Ports.Addr(p.Name))
	return nil
}

// add starts a program and lists it.
func (s *Stack) add(p supervise.Program, readyURL string) (*member, error) {
	p.Log = s.logFile(p.Name)
	// The log of the run before this one is worth keeping; those before are not.
	if _, err := os.Stat(p.Log); err == nil {
		_ = os.Rename(p.Log, p.Log+".1")
	}
	if p.Ready == nil {
		p.Ready = supervise.Answers(readyURL)
	}
	process, err := supervise.Start(p, s.say, s.save)
	if err != nil {
		return nil, err
	}
	m := &member{Process: process, readyURL: readyURL}
	s.mu.Lock()
	s.processes = append(s.processes, m)
	s.mu.Unlock()
	s.save()
	return m, nil
}

func (s *Stack) startServices(ctx context.Context) error {
	step := s.screen.Step("starting the services")
	defer step.Fail()
	begin := time.Now()
	bin := filepath.Join(s.options.Data, "bin")
	ctx, cancel := context.WithTimeout(ctx, s.options.HealthyWithin)
	defer cancel()
	var waiting []*member
	m, err := s.add(supervise.Program{Name: "sandbox", Path: filepath.Join(bin, "sandbox"), Env: s.Settings.Sandbox()}, s.Settings.Ports.URL("sandbox-admin")+"/readyz")
	if err != nil {
		return err
	}
	waiting = append(waiting, m)
	for replica := range s.options.Replicas {
		ports := s.Settings.Own(replica)
		for _, name := range plan.Services {
			m, err := s.add(supervise.Program{Name: plan.Process(name, replica), Path: filepath.Join(bin, name), Env: s.Settings.Service(name, replica)}, ports.URL(name+"-admin")+"/readyz")
			if err != nil {
				return err
			}
			waiting = append(waiting, m)
		}
	}
	var ready sync.Map
	var g errgroup.Group
	for _, m := range waiting {
		g.Go(func() error {
			if err := m.Await(ctx); err != nil {
				return err
			}
			ready.Store(m.Name, true)
			var missing []string
			for _, other := range waiting {
				if _, ok := ready.Load(other.Name); !ok {
					missing = append(missing, other.Name)
				}
			}
			step.Remark("waiting for %s", strings.Join(missing, ", "))
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	step.Done("every /readyz answers 200, %.1f s after the first was started", time.Since(begin).Seconds())
	return nil
}

// save writes the state file; called whenever a pid changes.
func (s *Stack) save() {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := State{PID: os.Getpid(), Started: s.started, Data: s.options.Data, Addresses: addresses(s.Settings)}
	state.Processes = append(state.Processes, Entry{Name: "waybill", PID: os.Getpid()})
	if s.db != nil {
		e := Entry{Name: "postgres", Tree: true}
		if server := s.db.current(); server != nil {
			e.PID, e.Log = server.PID(), server.Log
		}
		s.db.mu.Lock()
		e.Restarts = s.db.restarts
		s.db.mu.Unlock()
		state.Processes = append(state.Processes, e)
	}
	for _, m := range s.processes {
		state.Processes = append(state.Processes, Entry{Name: m.Name, PID: m.PID(), Restarts: m.Restarts(), ReadyURL: m.readyURL, Log: m.Log})
	}
	if err := state.write(); err != nil {
		s.say("the state file cannot be written: %v", err)
	}
}

// Down stops everything, the gateway first and the database last.
func (s *Stack) Down() {
	s.mu.Lock()
	processes := slices.Clone(s.processes)
	s.mu.Unlock()
	stages := [3][]*member{}
	for _, m := range processes {
		switch {
		case strings.HasPrefix(m.Name, "gateway"):
			stages[0] = append(stages[0], m)
		case m.Name == "kafka" || m.Name == "redis" || m.Name == "sandbox":
			stages[2] = append(stages[2], m)
		default:
			stages[1] = append(stages[1], m)
		}
	}
	for _, stage := range stages {
		var wg sync.WaitGroup
		for _, m := range stage {
			wg.Go(func() { m.Stop(stopGrace) })
		}
		wg.Wait()
	}
	if s.db != nil {
		s.db.stop()
	}
	_ = os.Remove(statePath(s.options.Data))
	s.lock.Close()
}
