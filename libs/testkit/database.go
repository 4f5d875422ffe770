package testkit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/testkit/postgres"
)

// ServerEnv names the environment variable that has tests use a PostgreSQL server
// that runs already: its URL, with an account that may create databases. Without it
// each test process starts one of its own.
const ServerEnv = "WAYBILL_TEST_POSTGRES"

// Postgres makes a database with the migrations applied, and a pool on it as a service
// would open it. The database is cloned from a template that is migrated once per set
// list, so that a test pays some 30 ms and may run in parallel with any other. Both
// are gone when the test ends.
func Postgres(t testing.TB, sets ...pg.Migrations) (*pgxpool.Pool, string) {
	t.Helper()
	admin, err := server()
	if err != nil {
		t.Fatalf("tests need PostgreSQL: %v", err)
	}
	template, err := templateOf(t.Context(), admin, sets)
	if err != nil {
		t.Fatalf("make the template database: %v", err)
	}
	name := databaseName(t.Name())
	if err := exec(t.Context(), admin, "CREATE DATABASE "+quote(name)+" TEMPLATE "+quote(template)); err != nil {
		t.Fatalf("clone the template database: %v", err)
	}
	t.Cleanup(func() {
		// FORCE: a test that failed may have left a connection, a relay's for one.
		if err := exec(context.Background(), admin, "DROP DATABASE "+quote(name)+" WITH (FORCE)"); err != nil {
			t.Logf("drop the test's database: %v", err)
		}
	})
	own := onDatabase(admin, name)
	pool, err := pg.Open(t.Context(), own, zap.NewNop())
	if err != nil {
		t.Fatalf("open the test's database: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool, own
}

// server is the address of this process's server, started at first use. Nothing here
// stops it: its guard does, when the process ends, however it ends.
var server = sync.OnceValues(func() (string, error) {
	if addr := os.Getenv(ServerEnv); addr != "" {
		if _, err := url.Parse(addr); err != nil {
			return "", fmt.Errorf("$%s is not a URL", ServerEnv)
		}
		return onDatabase(addr, "postgres"), nil
	}
	dir, err := os.MkdirTemp("", "waybill-test-")
	if err != nil {
		return "", err
	}
	s, err := postgres.Start(context.Background(), postgres.Options{Dir: dir, Temporary: true})
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return s.URL("postgres"), nil
})

var templates struct {
	sync.Mutex
	made map[string]bool
}

// templateOf names the template of a set list, and makes it where there is none.
// Several test processes may share a server, so the work is done under an advisory
// lock, and the template counts as made only once it is marked as one.
func templateOf(ctx context.Context, admin string, sets []pg.Migrations) (string, error) {
	name, err := templateName(sets)
	if err != nil {
		return "", err
	}
	templates.Lock()
	defer templates.Unlock()
	if templates.made[name] {
		return name, nil
	}
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(hashtext($1))", name); err != nil {
		return "", err
	}
	var ready bool
	err = conn.QueryRow(ctx, "SELECT datistemplate FROM pg_database WHERE datname = $1", name).Scan(&ready)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", err
	}
	if !ready {
		if err := makeTemplate(ctx, conn, admin, name, sets); err != nil {
			return "", err
		}
	}
	if templates.made == nil {
		templates.made = map[string]bool{}
	}
	templates.made[name] = true
	return name, nil
}

func makeTemplate(ctx context.Context, conn *pgx.Conn, admin, name string, sets []pg.Migrations) error {
	if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+quote(name)+" WITH (FORCE)"); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+quote(name)); err != nil {
		return err
	}
	pool, err := pg.Open(ctx, onDatabase(admin, name), zap.NewNop(), sets...)
	if err != nil {
		return err
	}
	// A database that has connections cannot be cloned.
	pool.Close()
	_, err = conn.Exec(ctx, "ALTER DATABASE "+quote(name)+" IS_TEMPLATE true")
	return err
}

// templateName is derived from the files, so that a changed migration makes another
// template on a server that outlives the process.
func templateName(sets []pg.Migrations) (string, error) {
	h := sha256.New()
	for _, set := range sets {
		fmt.Fprintf(h, "set %s\n", set.Name)
		err := fs.WalkDir(set.FS, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := fs.ReadFile(set.FS, path)
			fmt.Fprintf(h, "%s %d\n%s", path, len(b), b)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("read migrations %s: %w", set.Name, err)
		}
	}
	return fmt.Sprintf("template_%x", h.Sum(nil)[:8]), nil
}

var databases struct {
	sync.Mutex
	n int
}

// databaseName is unique among processes too, and starts with the test's name: that
// is what pg_stat_activity shows when a test hangs.
func databaseName(test string) string {
	databases.Lock()
	defer databases.Unlock()
	databases.n++
	unique := fmt.Sprintf("_%d_%d_%d", os.Getpid(), databases.n, time.Now().UnixNano()%1e9)
	// PostgreSQL cuts names off at 63 bytes.
	return test[:min(len(test), 63-len(unique))] + unique
}

func exec(ctx context.Context, addr, sql string) error {
	conn, err := pgx.Connect(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, sql)
	return err
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// onDatabase is the server's address with another database.
func onDatabase(addr, name string) string {
	u, err := url.Parse(addr)
	if err != nil {
		return addr
	}
	u.Path = "/" + name
	return u.String()
}
