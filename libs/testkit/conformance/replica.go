package conformance

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/outbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/libs/testkit/kafka"
)

// What a process made from the test binary is told.
const (
	roleEnv    = "CONFORMANCE_ROLE" // replica or broker
	urlEnv     = "CONFORMANCE_POSTGRES"
	brokersEnv = "CONFORMANCE_BROKERS"
	dirEnv     = "CONFORMANCE_DIR"
	runEnv     = "CONFORMANCE_RUN" // brokers may remember other runs
)

const (
	aggregates      = 200
	writers         = 4
	topic           = event.Orders
	partitions      = 6
	embeddedBrokers = 3
	group           = "conformance-readers"
	// A writer rests this long between two transactions, so that the replicas do not take all of a small machine.
	rest = 12 * time.Millisecond
)

// Main is the TestMain of a package that calls Run: the processes that Run starts are the test binary, too.
func Main(m *testing.M) {
	var err error
	switch os.Getenv(roleEnv) {
	case "":
		os.Exit(m.Run())
	case "replica":
		err = replica()
	case "broker":
		err = broker()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// lifetime ends with SIGTERM, or when the starter is gone: it holds the other end of standard input. told ends before, with
// the first byte from there: unlike a signal, it waits for a process that only starts.
func lifetime() (life, told context.Context, cancel context.CancelFunc) {
	life, cancel = signal.NotifyContext(context.Background(), syscall.SIGTERM)
	told, tell := context.WithCancel(life)
	go func() {
		if n, _ := os.Stdin.Read(make([]byte, 1)); n == 1 {
			tell()
			_, _ = io.Copy(io.Discard, os.Stdin)
		}
		os.Exit(2)
	}()
	return life, told, cancel
}

// broker runs the embedded brokers until it is killed. SIGUSR1 moves the partitions' leaders about.
func broker() error {
	ctx, _, cancel := lifetime()
	defer cancel()
	move := make(chan os.Signal, 1)
	signal.Notify(move, syscall.SIGUSR1)
	var ports []int
	for _, a := range strings.Split(os.Getenv(brokersEnv), ",") {
		_, text, err := net.SplitHostPort(a)
		if err != nil {
			return err
		}
		port, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		ports = append(ports, port)
	}
	cluster, err := kafka.New(kfake.NumBrokers(len(ports)), kfake.Ports(ports...), kfake.DataDir(os.Getenv(dirEnv)))
	if err != nil {
		return err
	}
	defer cluster.Close()
	for {
		select {
		case <-move:
			cluster.ShufflePartitionLeaders()
		case <-ctx.Done():
			return nil
		}
	}
}

// replica writes until it is told, and relays and consumes until its life ends.
func replica() error {
	ctx, writing, cancel := lifetime()
	defer cancel()
	log, err := zap.NewDevelopment(zap.AddStacktrace(zap.FatalLevel))
	if err != nil {
		return err
	}
	log = log.With(zap.Int("pid", os.Getpid()))
	url, run := os.Getenv(urlEnv), os.Getenv(runEnv)
	// A fault may hit a process that starts, and its supervisor would start it again.
	var pool *pgxpool.Pool
	if err := untilDone(ctx, func() (err error) { pool, err = pg.Open(ctx, url, log, migrations...); return err }); err != nil {
		return err
	}
	defer pool.Close()
	registry := prometheus.NewRegistry()
	config := stream.Config{Brokers: strings.Split(os.Getenv(brokersEnv), ","), ClientID: "conformance", Log: log, Registry: registry}
	var producer *stream.Producer
	var consumer *stream.Consumer
	if err := untilDone(ctx, func() (err error) { producer, err = stream.NewProducer(ctx, config); return err }); err != nil {
		return err
	}
	defer producer.Close()
	if err := untilDone(ctx, func() (err error) {
		consumer, err = stream.NewConsumer(ctx, config, "conformance-"+run, []string{topic}, stream.ConsumerOptions{})
		return err
	}); err != nil {
		return err
	}
	out := outbox.New(outbox.Options{Source: run, Pool: pool, DatabaseURL: url, Producer: producer, Log: log, Registry: registry})
	in := inbox.New(inbox.Options{Group: "conformance-" + run, Pool: pool, Wants: event.Types(), Handler: effect(sourceOf(run)), Log: log, Registry: registry})

	var running sync.WaitGroup
	failed := make(chan error, 3)
	for _, run := range []func(context.Context) error{
		out.Run, in.Run,
		func(ctx context.Context) error { return consumer.Run(ctx, in.Consume) },
		func(ctx context.Context) error { report(ctx, pool, registry); return nil },
	} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				failed <- err
				cancel()
			}
		})
	}
	for range writers {
		running.Go(func() {
			for pauseFor(writing, rest) {
				if err := write(writing, pool, out); err != nil && writing.Err() == nil {
					log.Debug("not written", zap.Error(err)) // or written: the aggregate knows
				}
			}
		})
	}
	running.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func untilDone(ctx context.Context, do func() error) error {
	for {
		if err := do(); err == nil || ctx.Err() != nil {
			return err
		}
	}
}

func pauseFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// write is what a service does: lock aggregates, count their sequences up, leave the events.
func write(ctx context.Context, pool *pgxpool.Pool, out *outbox.Outbox) error {
	var ids []string
	for range 1 + rand.IntN(4) {
		if id := fmt.Sprintf("a-%d", rand.IntN(aggregates)); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	each := 1 + rand.Int64N(3)
	slow := rand.IntN(100) < 3
	return pg.Do(ctx, pool, func(ctx context.Context, u *pg.Unit) error {
		last := map[string]int64{}
		u.Read(`SELECT id, event_seq FROM aggregates WHERE id = ANY($1) ORDER BY id FOR UPDATE`, ids).Query(func(rows pgx.Rows) error {
			var id string
			var seq int64
			_, err := pgx.ForEachRow(rows, []any{&id, &seq}, func() error { last[id] = seq; return nil })
			return err
		})
		if err := u.Fetch(ctx); err != nil {
			return err
		}
		for _, id := range ids {
			for n := range each {
				seq := last[id] + 1 + n
				out.Add(u, event.New(ctx, event.OrderCreated, id, 1, seq, wrapperspb.Int64(seq)))
			}
		}
		u.Write(`UPDATE aggregates SET event_seq = event_seq + $2 WHERE id = ANY($1)`, ids, each)
		if slow {
			u.Write(`SELECT pg_sleep($1)`, 0.005+rand.Float64()*0.04)
		}
		return nil
	})
}

// sourceOf is the source of a run's events.
func sourceOf(run string) string { return "/waybill/" + run }

// effect appends what arrives from source.
func effect(source string) inbox.Handler {
	return func(_ context.Context, u *pg.Unit, batch []event.Event) error {
		var subjects []string
		var seqs []int64
		var ids [][16]byte
		for _, e := range batch {
			if e.Source == source {
				subjects, seqs, ids = append(subjects, e.Subject), append(seqs, e.Seq), append(ids, e.ID)
			}
		}
		u.Write(`INSERT INTO effects (subject, seq, event_id) SELECT * FROM unnest($1::text[], $2::bigint[], $3::uuid[]) AS e`, subjects, seqs, ids)
		return nil
	}
}

// report writes this process's counters into the database, for its memory does not survive it.
func report(ctx context.Context, pool *pgxpool.Pool, registry *prometheus.Registry) {
	for pauseFor(ctx, 200*time.Millisecond) {
		families, err := registry.Gather()
		if err != nil {
			continue
		}
		var names []string
		var values []float64
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if m.Counter == nil {
					continue
				}
				name := f.GetName()
				for _, l := range m.GetLabel() {
					if l.GetName() == "origin" || l.GetName() == "outcome" {
						name += "/" + l.GetValue()
					}
				}
				if i := slices.Index(names, name); i >= 0 {
					values[i] += m.GetCounter().GetValue()
					continue
				}
				names, values = append(names, name), append(values, m.GetCounter().GetValue())
			}
		}
		_, _ = pool.Exec(ctx, `INSERT INTO counters SELECT $1, * FROM unnest($2::text[], $3::float8[]) AS c
			ON CONFLICT (pid, name) DO UPDATE SET value = excluded.value`, os.Getpid(), names, values)
	}
}
