package stack

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/waybill-dev/waybill/libs/testkit/postgres"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/plan"
)

// database keeps a PostgreSQL server running as a Process keeps a program.
type database struct {
	options postgres.Options
	say     func(string, ...any)
	changed func()

	mu       sync.Mutex
	server   *postgres.Server
	restarts int
	quit     chan struct{}
	done     chan struct{}
}

func startDatabase(ctx context.Context, o postgres.Options, say func(string, ...any), changed func()) (*database, error) {
	server, err := postgres.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	d := &database{options: o, say: say, changed: changed, server: server, quit: make(chan struct{}), done: make(chan struct{})}
	go d.run()
	return d, nil
}

func (d *database) run() {
	defer close(d.done)
	for pause := 200 * time.Millisecond; ; {
		begin := time.Now()
		if server := d.current(); server != nil {
			server.Wait()
			if !d.stopping() {
				server.Stop() // what is left of it
			}
		}
		if d.stopping() {
			return
		}
		if time.Since(begin) > 10*time.Second {
			pause = 200 * time.Millisecond
		}
		d.say("postgres ended; it is started again in %v", pause)
		select {
		case <-d.quit:
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, 5*time.Second)
		server, err := postgres.Start(context.Background(), d.options)
		if err != nil {
			d.say("postgres: %v", err)
		}
		d.mu.Lock()
		d.server = server
		d.restarts++
		d.mu.Unlock()
		d.changed()
	}
}

func (d *database) current() *postgres.Server {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.server
}

func (d *database) stopping() bool {
	select {
	case <-d.quit:
		return true
	default:
		return false
	}
}

func (d *database) stop() {
	close(d.quit)
	if server := d.current(); server != nil {
		server.Stop()
	}
	<-d.done
	// One that was being started while we decided to stop.
	if server := d.current(); server != nil {
		server.Stop()
	}
}

// databasesWithin is how long making all databases may take. Beside other load it was more than 3 s.
const databasesWithin = time.Minute

// createDatabases makes one database per service where it is missing.
func createDatabases(ctx context.Context, s plan.Settings) error {
	ctx, cancel := context.WithTimeout(ctx, databasesWithin)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.Database("postgres"))
	if err != nil {
		return fmt.Errorf("PostgreSQL at %s cannot be used: %w\nIs it running, and may this user connect to its database postgres and create others?", redact(s.Parts.Postgres), err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var version int
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int / 10000").Scan(&version); err != nil {
		return err
	}
	if version < postgres.MinMajor {
		return fmt.Errorf("PostgreSQL at %s is release %d; %d or later is needed", redact(s.Parts.Postgres), version, postgres.MinMajor)
	}
	for _, name := range plan.Databases {
		var there bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&there); err != nil {
			return err
		}
		if there {
			continue
		}
		if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
			return fmt.Errorf("create database %s: %w", name, err)
		}
	}
	return nil
}

// createAuditor makes the role that `waybill verify` reads with, and returns its address: it may read everything and change
// nothing. Where this user may not make roles, the address is empty.
func createAuditor(ctx context.Context, s plan.Settings) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.Database("postgres"))
	if err != nil {
		return "", fmt.Errorf("PostgreSQL at %s cannot be used: %w", redact(s.Parts.Postgres), err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// The password is base64 with a prefix: no quotes. The role is the server's, and may be older than our secrets.
	_, err = conn.Exec(ctx, `DO $$ BEGIN
		IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '`+plan.Auditor+`') THEN CREATE ROLE `+plan.Auditor+`; END IF;
	END $$;
	ALTER ROLE `+plan.Auditor+` LOGIN PASSWORD '`+s.Secrets.Auditor+`';
	ALTER ROLE `+plan.Auditor+` SET default_transaction_read_only = on;
	GRANT pg_read_all_data TO `+plan.Auditor, pgx.QueryExecModeSimpleProtocol)
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused) && refused.Code == "42501":
		return "", nil
	case err != nil:
		return "", fmt.Errorf("make the role %s: %w", plan.Auditor, err)
	}
	return s.AuditorURL(), nil
}

// redact hides a password.
func redact(address string) string {
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return "the given address"
	}
	return fmt.Sprintf("%s:%d", config.Host, config.Port)
}

// loadSecrets finds the secrets, or makes at the first start what is missing.
func loadSecrets(data string) (plan.Secrets, error) {
	var s plan.Secrets
	path := filepath.Join(data, "secrets.json")
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &s)
		if err == nil && s.Provider != "" && s.Carrier != "" && s.Auditor != "" {
			return s, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	for _, secret := range []*string{&s.Provider, &s.Carrier, &s.Auditor} {
		if *secret == "" {
			*secret = newSecret()
		}
	}
	b, err = json.Marshal(s)
	if err != nil {
		return s, err
	}
	return s, replaceFile(path, b, 0o600)
}

// newSecret is a webhook secret as standard-webhooks writes it.
func newSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	return "whsec_" + base64.StdEncoding.EncodeToString(b)
}

// dials is a Ready for something that speaks no HTTP.
func dials(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

var dialer = net.Dialer{Timeout: 3 * time.Second}

// pings is a Ready for Redis.
func pings(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
		if _, err := conn.Write([]byte("*1\r\n$4\r\nPING\r\n")); err != nil {
			return err
		}
		answer, err := bufio.NewReader(conn).ReadString('\n')
		// One that wants a password is there, and the services will say so.
		if err != nil || !strings.HasPrefix(answer, "+PONG") && !strings.HasPrefix(answer, "-NOAUTH") {
			return fmt.Errorf("it answers PING with %q %w", answer, err)
		}
		return nil
	}
}

// anyOf is a Ready for a comma list of brokers.
func anyOf(list string) func(context.Context) error {
	return func(ctx context.Context) error {
		var errs []error
		for addr := range strings.SplitSeq(list, ",") {
			err := dials(strings.TrimSpace(addr))(ctx)
			if err == nil {
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
}

func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
