package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"reflect"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sethvargo/go-envconfig"
	"github.com/waybill-dev/waybill/libs/telemetry"
	"go.uber.org/zap"
)

const (
	// Consumers (stopTimeout), requests (drainTimeout), the other processes (stopTimeout) and spans together have 30 s, what
	// orchestrators grant before they kill.
	drainTimeout = 20 * time.Second
	stopTimeout  = 4 * time.Second
	flushTimeout = 2 * time.Second
	// gcPercent lets the heap grow to four times what lives. That is some 10 MiB in a service, so collecting at twice that,
	// the default, takes a sixth of the CPU to save little memory. GOGC overrides it; GOMEMLIMIT still holds.
	gcPercent  = 300
	exitSignal = 130 // what a shell reports for a process that SIGINT ended
)

// Service is one running process.
type Service struct {
	Name     string
	Log      *zap.Logger
	Registry *prometheus.Registry

	telemetry     *telemetry.Telemetry
	base          *Base
	public, admin net.Listener
	wrap          func(net.Listener) net.Listener
	ctx           context.Context // ends at the first signal or failure
	end           context.CancelFunc
	draining      chan struct{}
	inFlight      atomic.Int64
	serving       atomic.Bool // ready as far as the process itself knows

	mu        sync.Mutex
	started   bool
	processes []*process
	checks    []check
	err       error
}

type process struct {
	name  string
	first bool // stopped before the public server
	run   func(context.Context) error
	stop  context.CancelFunc
	done  chan struct{}
}

// Main is the main function of a service. C is its configuration, a struct that embeds Base. With the argument healthcheck
// it asks the running service of the same environment whether it is ready, and exits 0 or 1: images without a shell have
// nothing else to ask with.
func Main[C any](name string, run func(ctx context.Context, s *Service, cfg C) error) {
	for _, arg := range os.Args[1:] {
		if arg == "-h" || arg == "-help" || arg == "--help" {
			printUsage(os.Stdout, name, new(C))
			return
		}
		if arg == "healthcheck" {
			if err := healthcheck(envconfig.OsLookuper(), new(C)); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
				os.Exit(1)
			}
			return
		}
		fmt.Fprintf(os.Stderr, "%s: unknown argument %q; -h lists the environment variables\n", name, arg)
		os.Exit(2)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(exitSignal)
	}()
	if err := Run(ctx, name, envconfig.OsLookuper(), run); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Run is Main without the process around it: ctx stands for the signal, env for the environment. Tests start services with it.
func Run[C any](ctx context.Context, name string, env envconfig.Lookuper, run func(ctx context.Context, s *Service, cfg C) error) error {
	var cfg C
	base, err := configure(ctx, &cfg, env)
	if err != nil {
		return err
	}
	t, err := telemetry.New(ctx, telemetry.Config{Service: name, LogLevel: base.LogLevel, OTLPEndpoint: base.OTLPEndpoint})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
		defer cancel()
		t.Shutdown(ctx)
	}()
	s := &Service{Name: name, Log: t.Log, Registry: t.Registry, telemetry: t, base: base, draining: make(chan struct{})}
	s.ctx, s.end = context.WithCancel(ctx)
	defer s.end()
	if s.public, err = listen(base.HTTPAddr, "HTTP_ADDR"); err != nil {
		return err
	}
	defer s.public.Close()
	if s.admin, err = listen(base.AdminAddr, "ADMIN_ADDR"); err != nil {
		return err
	}
	closeAdmin := s.serveAdmin()
	defer closeAdmin()
	fields := []zap.Field{zap.String("http", s.Addr()), zap.String("admin", s.admin.Addr().String())}
	for _, v := range variables(reflect.ValueOf(&cfg).Elem(), true) {
		fields = append(fields, zap.String(v.name, v.value))
	}
	s.Log.Info("starting", fields...)
	if err := run(s.ctx, s, cfg); err != nil && !(ctx.Err() != nil && errors.Is(err, context.Canceled)) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Log.Info("stopped")
	return s.err
}

func listen(addr, variable string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", variable, err)
	}
	return l, nil
}

// Addr is the address of the public listener, which matters when its port was 0.
func (s *Service) Addr() string { return s.public.Addr().String() }

// AdminAddr is the address of the admin listener.
func (s *Service) AdminAddr() string { return s.admin.Addr().String() }

// Development says whether the development profile is on.
func (s *Service) Development() bool { return s.base.Development() }

// Draining is closed when the public server begins to drain. Streams end when they see it: the server waits for them.
func (s *Service) Draining() <-chan struct{} { return s.draining }

// Go adds a process that runs while the service does. It starts with Serve; when it returns an error, the service ends. At the end its ctx is
// cancelled and it has 4 s to return. Processes stop in reverse order, after the public server.
func (s *Service) Go(name string, f func(ctx context.Context) error) {
	s.add(&process{name: name, run: f})
}

// Consume is Go for a process that takes work in, such as a Kafka consumer: it stops before the public server drains, so
// that another replica can take over at once.
func (s *Service) Consume(name string, f func(ctx context.Context) error) {
	s.add(&process{name: name, run: f, first: true})
}

func (s *Service) add(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processes = append(s.processes, p)
	if s.started {
		s.start(p)
	}
}

// start runs under s.mu.
func (s *Service) start(p *process) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.ctx))
	p.stop, p.done = cancel, make(chan struct{})
	go func() {
		defer close(p.done)
		defer cancel()
		err := guarded(ctx, p.run)
		if err == nil || ctx.Err() != nil {
			return
		}
		s.fail(fmt.Errorf("%s: %w", p.name, err))
	}()
}

// guarded turns a panic into an error, so that the other processes still stop in order.
func guarded(ctx context.Context, f func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f(ctx)
}

// fail ends the service; the first error is the one that is reported.
func (s *Service) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	s.Log.Error("process ended", zap.Error(err))
	s.end()
}

// stop ends processes in reverse order of their start, waiting for each.
func (s *Service) stop(first bool) {
	s.mu.Lock()
	processes := append([]*process(nil), s.processes...)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	for i := len(processes) - 1; i >= 0; i-- {
		p := processes[i]
		if p.first != first {
			continue
		}
		p.stop()
		select {
		case <-p.done:
		case <-ctx.Done():
			s.Log.Error("process does not stop", zap.String("process", p.name))
		}
	}
}

// Serve starts the processes, serves h on the public listener, and returns when the service has drained and they have stopped.
func (s *Service) Serve(h http.Handler) {
	server := s.server(h)
	s.mu.Lock()
	s.started = true
	for _, p := range s.processes {
		s.start(p)
	}
	s.mu.Unlock()
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(s.limited()) }()
	s.serving.Store(true)
	s.Log.Info("serving", zap.String("http", s.Addr()))
	select {
	case <-s.ctx.Done():
	case err := <-failed:
		s.fail(fmt.Errorf("serve: %w", err))
	}
	s.serving.Store(false)
	s.Log.Info("draining", zap.Int64("in_flight", s.inFlight.Load()))
	if s.base.DrainDelay > 0 {
		time.Sleep(s.base.DrainDelay)
	}
	s.stop(true)
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	close(s.draining)
	if err := server.Shutdown(ctx); err != nil {
		s.Log.Warn("requests were cut", zap.Error(err), zap.Int64("in_flight", s.inFlight.Load()))
		_ = server.Close()
	}
	s.stop(false)
}
