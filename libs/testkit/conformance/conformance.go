package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/outbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/libs/testkit"
)

var migrations = []pg.Migrations{outbox.Migrations, inbox.Migrations, {Name: "conformance", FS: fstest.MapFS{"00001_workload.sql": {Data: []byte(`-- +goose Up
CREATE TABLE aggregates (id text COLLATE "C" PRIMARY KEY, event_seq bigint NOT NULL);
INSERT INTO aggregates SELECT 'a-' || n, 0 FROM generate_series(0, ` + fmt.Sprint(aggregates-1) + `) AS n;
CREATE TABLE effects (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, subject text COLLATE "C" NOT NULL, seq bigint NOT NULL, event_id uuid NOT NULL);
CREATE TABLE counters (pid integer, name text, value float8 NOT NULL, PRIMARY KEY (pid, name));
CREATE TABLE takeovers (at timestamptz NOT NULL DEFAULT clock_timestamp(), holder text NOT NULL);
-- +goose StatementBegin
CREATE FUNCTION took_over() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO takeovers (holder) VALUES (NEW.holder); RETURN NULL; END $$;
-- +goose StatementEnd
CREATE TRIGGER took_over AFTER INSERT OR UPDATE OF holder ON relays FOR EACH ROW EXECUTE FUNCTION took_over();
`)}}}}

// Options say what to run against.
type Options struct {
	Brokers []string
	// Restart kills the brokers, starts them again and returns when they are back. MoveLeaders has other brokers lead the
	// partitions. A fault that cannot be done is left out.
	Restart, MoveLeaders func(context.Context) error
	Rounds               int    // of all faults; 2 when it is 0
	Seed                 uint64 // of their sequence
}

// Report counts what happened, so that a run can be told from one in which nothing did.
type Report struct {
	Committed  int64 // events
	Published  int64 // records in the topic
	Duplicates int64 // of them
	Takeovers  int64 // relays that began
	Evictions  int64 // paused relays whose lock was taken
	SendErrors int64 // batches that were not acknowledged
	Handed     int64 // rows that went through the hand-off
	Read       int64 // rows that the table gave
	Dropped    int64 // duplicates that the inbox dropped
	Early      int64 // events that came before their predecessor
}

// settleWait is how long everything may take to arrive once the faults are over.
const settleWait = time.Minute

// Run runs the suite. It needs Main as the package's TestMain, and takes about 30 s a round.
func Run(t *testing.T, o Options) Report {
	t.Helper()
	if o.Rounds == 0 {
		o.Rounds = 1
	}
	pool, url := testkit.Postgres(t, migrations...)
	err := stream.EnsureTopics(t.Context(), stream.Config{Brokers: o.Brokers, Log: testkit.Log(t), Partitions: partitions}, []string{topic})
	if err != nil {
		t.Fatal(err)
	}
	run := uuid.NewString()
	s := &suite{T: t, Options: o, run: run, pool: pool, random: rand.New(rand.NewPCG(o.Seed, 1)), env: []string{
		roleEnv + "=replica", runEnv + "=" + run, urlEnv + "=" + url, brokersEnv + "=" + strings.Join(o.Brokers, ","),
	}}
	for i := range s.replicas {
		s.replicas[i] = startProcess(t, fmt.Sprint("replica", i), s.env)
	}
	s.await("both replicas write, relay and consume", func() bool {
		return s.count(`SELECT count(*) FROM counters WHERE name = 'waybill_stream_sessions_total' AND value > 0`) == 2 && s.effects() > 500
	})
	s.faults()
	s.Log("faults are over")
	for _, p := range s.replicas {
		p.tell() // no more writing
	}
	if !s.settled() {
		s.Errorf("not everything has its effect within %v", settleWait) // verify tells what
		for _, p := range s.replicas {
			p.signal(syscall.SIGQUIT) // and its goroutines why
			<-p.done
		}
	}
	for _, p := range s.replicas {
		p.stop()
	}
	return s.verify()
}

type suite struct {
	*testing.T
	Options
	run      string
	pool     *pgxpool.Pool
	random   *rand.Rand
	env      []string
	replicas [2]*process
}

type fault struct {
	name string
	do   func()
}

const paused = "relay paused"

// faults brings each fault over the replicas, Rounds times, in a sequence drawn from the seed. Between two of them work goes on.
func (s *suite) faults() {
	all := []fault{
		{"relay killed", func() { s.kill(s.relaying()) }},
		{"relay killed", func() { s.kill(s.relaying()) }},
		{"other replica killed", func() { s.kill(1 - s.relaying()) }},
		{"relay's lock lost", s.loseLock},
		{"relay's lock lost", s.loseLock},
		{"all connections lost", s.loseConnections},
		{paused, func() { s.pause(s.relaying()) }},
	}
	brokers := func(name string, do func(context.Context) error, then func()) fault {
		return fault{name, func() {
			if err := do(s.Context()); err != nil {
				s.Fatalf("%s: %v", name, err)
			}
			then()
		}}
	}
	if s.Restart != nil {
		restarted := brokers("brokers restarted", s.Restart, func() {})
		all = append(all, restarted, restarted, restarted,
			brokers("brokers restarted and relay killed", s.Restart, func() { s.kill(s.relaying()) }))
	}
	bring := func(f fault) {
		before := s.effects()
		s.Log(f.name)
		f.do()
		s.await("work goes on after: "+f.name, func() bool { return s.effects() > before+int64(100+s.random.IntN(200)) })
	}
	for round := range s.Rounds {
		s.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, f := range all {
			if round == 0 || f.name != paused { // once will do: it takes ten seconds
				bring(f)
			}
		}
	}
	if s.MoveLeaders == nil {
		return
	}
	// After the restarts: killed, the embedded broker forgets the leaders' epochs, as Apache Kafka does not, and a client
	// rightly trusts no leader of an epoch before the one that it has seen.
	for range s.Rounds {
		moved := brokers("leaders moved", s.MoveLeaders, func() {})
		for _, f := range []fault{moved, moved, brokers("leaders moved and relay killed", s.MoveLeaders, func() { s.kill(s.relaying()) }), moved} {
			bring(f)
		}
	}
}

// relaying is the replica that holds the lock now.
func (s *suite) relaying() (i int) {
	s.await("a replica relays", func() bool {
		var pid int
		err := s.pool.QueryRow(s.Context(), `SELECT split_part(holder, '/', 2)::int FROM relays r
			WHERE EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.pid = r.backend_pid)`).Scan(&pid)
		for n, p := range s.replicas {
			if err == nil && p.cmd.Process.Pid == pid {
				i = n
				return true
			}
		}
		return false
	})
	return i
}

func (s *suite) kill(i int) {
	s.replicas[i].kill()
	s.replicas[i] = startProcess(s.T, fmt.Sprint("replica", i), s.env)
}

func (s *suite) loseLock() {
	s.exec(`SELECT pg_terminate_backend(backend_pid) FROM relays`)
}

// loseConnections cuts transactions in the middle: some of them have committed, and nobody was told.
func (s *suite) loseConnections() {
	s.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
}

// pause stops a replica for longer than a relay may be unseen (5 s) and a consumer's session lasts (8 s). It wakes as a
// zombie: with a batch that another relay has published, and records that another consumer has applied.
func (s *suite) pause(i int) {
	before := s.takeovers()
	s.replicas[i].signal(syscall.SIGSTOP)
	s.await("another replica takes the paused relay's place", func() bool { return s.takeovers() > before })
	if s.relaying() == i {
		s.Error("the paused replica still relays")
	}
	s.await("the paused consumer's session is over as well", func() bool {
		return s.count(`SELECT count(*) FROM takeovers WHERE at < clock_timestamp() - interval '4 s'`) > before
	})
	s.replicas[i].signal(syscall.SIGCONT)
}

func (s *suite) exec(sql string) {
	s.Helper()
	if _, err := s.pool.Exec(s.Context(), sql); err != nil && !pg.Unavailable(err) {
		s.Fatal(err)
	}
}

func (s *suite) count(sql string, args ...any) (n int64) {
	s.Helper()
	if err := s.pool.QueryRow(s.Context(), sql, args...).Scan(&n); err != nil && !pg.Retryable(err) {
		s.Fatal(err)
	}
	return n
}

func (s *suite) effects() int64   { return s.count(`SELECT count(*) FROM effects`) }
func (s *suite) takeovers() int64 { return s.count(`SELECT count(*) FROM takeovers`) }

func (s *suite) counter(name string) int64 {
	return s.count(`SELECT coalesce(sum(value), 0)::bigint FROM counters WHERE name = $1`, name)
}

func (s *suite) await(what string, cond func() bool) {
	s.Helper()
	testkit.Eventually(s.T, settleWait, cond, what)
}

// settled waits until everything that was committed is published and has its effect.
func (s *suite) settled() bool {
	for ctx, cancel := context.WithTimeout(s.Context(), settleWait); ; {
		if s.count(`SELECT count(*) FROM outbox WHERE published_at IS NULL`) == 0 &&
			s.count(`SELECT (SELECT sum(event_seq)::bigint FROM aggregates) - (SELECT count(*) FROM effects)`) <= 0 {
			cancel()
			return true
		}
		if !pauseFor(ctx, 20*time.Millisecond) {
			cancel()
			return false
		}
	}
}

// verify compares what was committed with the topic and with the effects.
func (s *suite) verify() Report {
	s.Helper()
	committed := map[string]int64{}
	rows, err := s.pool.Query(s.Context(), `SELECT id, event_seq FROM aggregates`)
	if err != nil {
		s.Fatal(err)
	}
	var r Report
	var id string
	var seq int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &seq}, func() error { committed[id] = seq; r.Committed += seq; return nil }); err != nil {
		s.Fatal(err)
	}
	s.verifyTopic(&r, committed)
	s.verifyEffects(committed)
	r.Takeovers = s.takeovers()
	r.Evictions = s.counter("waybill_outbox_relay_evictions_total")
	r.SendErrors = s.counter("waybill_outbox_send_failures_total")
	r.Handed, r.Read = s.counter("waybill_outbox_relayed_rows_total/handed"), s.counter("waybill_outbox_relayed_rows_total/read")
	r.Dropped, r.Early = s.counter("waybill_inbox_events_total/duplicate"), s.counter("waybill_inbox_events_total/early")
	return r
}

// verifyTopic reads the topic from its beginning.
func (s *suite) verifyTopic(r *Report, committed map[string]int64) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), settleWait)
	defer cancel()
	c, err := stream.NewConsumer(ctx, stream.Config{Brokers: s.Brokers, Log: zap.NewNop()}, "conformance-check-"+s.run, []string{topic}, stream.ConsumerOptions{})
	if err != nil {
		s.Fatal(err)
	}
	last := map[string]int64{}
	ids := map[string]map[int64]uuid.UUID{}
	missing := r.Committed
	_ = c.Run(ctx, func(_ context.Context, batch []stream.Message) error {
		for _, m := range batch {
			e, err := stream.DecodeMessage(m)
			if err != nil {
				s.Errorf("%s/%d offset %d: %v", m.Topic, m.Partition, m.Offset, err)
				continue
			}
			if e.Source != sourceOf(s.run) {
				continue
			}
			r.Published++
			if ids[e.Subject] == nil {
				ids[e.Subject] = map[int64]uuid.UUID{}
			}
			if was, ok := ids[e.Subject][e.Seq]; ok {
				r.Duplicates++
				if was != e.ID {
					s.Errorf("%s: sequence %d has two events, %s and %s", e.Subject, e.Seq, was, e.ID)
				}
				continue
			}
			if e.Seq != last[e.Subject]+1 {
				s.Errorf("%s: first %d, then %d (partition %d, offset %d)", e.Subject, last[e.Subject], e.Seq, m.Partition, m.Offset)
			}
			ids[e.Subject][e.Seq], last[e.Subject] = e.ID, e.Seq
			missing--
		}
		if missing == 0 {
			cancel() // what follows can only be duplicates
		}
		return nil
	})
	if missing != 0 {
		s.Errorf("%d of %d events are not in the topic", missing, r.Committed)
	}
}

// verifyEffects reads what the consumers did.
func (s *suite) verifyEffects(committed map[string]int64) {
	s.Helper()
	rows, err := s.pool.Query(s.Context(), `SELECT subject, seq FROM effects ORDER BY n`)
	if err != nil {
		s.Fatal(err)
	}
	last := map[string]int64{}
	var id string
	var seq int64
	_, err = pgx.ForEachRow(rows, []any{&id, &seq}, func() error {
		if seq != last[id]+1 {
			s.Errorf("effects on %s: first %d, then %d", id, last[id], seq)
		}
		last[id] = seq
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	for id, seq := range committed {
		if last[id] != seq {
			s.Errorf("%s: %d events committed, %d had their effect", id, seq, last[id])
		}
	}
	if n := s.count(`SELECT count(*) FROM interventions`); n != 0 {
		s.Errorf("%d interventions were opened", n)
	}
}

// Embedded starts the embedded brokers as a process, three of them so that leaders can move, and returns the options for a
// run against them.
func Embedded(t *testing.T) Options {
	t.Helper()
	var addresses []string
	for range embeddedBrokers {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, l.Addr().String())
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{roleEnv + "=broker", brokersEnv + "=" + strings.Join(addresses, ","), dirEnv + "=" + filepath.Join(t.TempDir(), "broker")}
	p := startProcess(t, "broker", env)
	up := func(ctx context.Context) error {
		for _, a := range addresses {
			for {
				conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", a)
				if err == nil {
					_ = conn.Close()
					break
				}
				if !pauseFor(ctx, 10*time.Millisecond) {
					return err
				}
			}
		}
		return nil
	}
	if err := up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return Options{
		Brokers: addresses,
		Restart: func(ctx context.Context) error {
			p.kill()
			p = startProcess(t, "broker", env)
			return up(ctx)
		},
		MoveLeaders: func(context.Context) error { p.signal(syscall.SIGUSR1); return nil },
	}
}

// process is the test binary in another role.
type process struct {
	cmd  *exec.Cmd
	life io.WriteCloser // its standard input
	done chan struct{}
	stop func() // SIGTERM, then waits
}

func startProcess(t *testing.T, name string, env []string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.CreateTemp(t.TempDir(), name+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(self), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if p.life, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ended error
	go func() {
		ended = p.cmd.Wait()
		close(p.done)
	}()
	p.stop = sync.OnceFunc(func() {
		p.signal(syscall.SIGTERM)
		select {
		case <-p.done:
			var exit *exec.ExitError
			if errors.As(ended, &exit) && exit.ExitCode() > 0 {
				t.Errorf("%s ended with %v", name, ended)
			}
		case <-time.After(settleWait):
			t.Errorf("%s does not stop", name)
		}
	})
	t.Cleanup(func() {
		p.kill()
		_ = p.life.Close()
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			if at := strings.Index(string(text), "SIGQUIT"); at < 0 && len(text) > 4000 {
				text = text[len(text)-4000:]
			} else if at > 4000 {
				text = text[at-4000:]
			}
			t.Logf("the end of what %s said:\n%s", name, text)
		}
	})
	return p
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// tell has a replica write no more, also one that only starts: a signal that comes before it listens would be lost.
func (p *process) tell() { _, _ = p.life.Write([]byte{'.'}) }

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}
