package pg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"
	"go.uber.org/zap"
)

// Migrations is a set of goose files (https://pressly.github.io/goose) at the root of FS. Each set counts its versions in
// a table of its own, migrations_<Name>, so that plumbing and service can grow apart. Files only ever go forward.
type Migrations struct {
	Name string
	FS   fs.FS
}

const (
	// maxConns keeps sixteen processes (two replicas of eight services) well below the server's 200 connections. A
	// service has one consumer, one intake and a few sweepers; more connections make two cores slower, not faster.
	maxConns = 4
	// openWait is how long Open tries. A database that is away longer is reported, and the process starts again.
	openWait = 60 * time.Second
)

// sessionSettings hold for every connection of the pool.
var sessionSettings = map[string]string{
	// A generic plan made while a table was empty scans it for ever: 14 % of CPU on the saga's workload.
	"enable_seqscan": "off",
	// So does one that hashes or merges: every statement here is a few hundred lookups by key.
	"enable_hashjoin":  "off",
	"enable_mergejoin": "off",
	// And one that reads a small table's index once and keeps it, for a join that looks up by key.
	"enable_material": "off",
	// The price that this puts on a sequential scan would make short queries look worth compiling.
	"jit": "off",
	// A statement over few rows looks cheaper when it is planned for just those, so it was planned anew each time: a sixth to a
	// quarter of PostgreSQL's CPU at 200 and 50 orders a second. Full batches have a generic plan anyhow.
	"plan_cache_mode": "force_generic_plan",
	// A statement that takes longer stands behind something broken; the caller gets 503 and tries again.
	"statement_timeout": "5s",
	"lock_timeout":      "2s",
	// A stopped process must not keep its row locks: it is thrown out, and rolls back when it wakes.
	"idle_in_transaction_session_timeout": "10s",
	"timezone":                            "UTC",
}

// denied are the ways to a plan that sessionSettings take away.
var denied = func() []string {
	var names []string
	for name, value := range sessionSettings {
		if strings.HasPrefix(name, "enable_") && value == "off" {
			names = append(names, name)
		}
	}
	return names
}()

// Open connects to the database, waits up to 60 s until the server answers, and brings each set of migrations up to date,
// in order, under an advisory lock so that replicas may start together.
func Open(ctx context.Context, url string, log *zap.Logger, sets ...Migrations) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse database url: %w", errors.New("not a PostgreSQL URL")) // the cause may show the password
	}
	config.MaxConns = maxConns
	config.MinConns = 1
	config.MaxConnIdleTime = 5 * time.Minute
	config.ConnConfig.ConnectTimeout = 5 * time.Second
	for k, v := range sessionSettings {
		if _, set := config.ConnConfig.RuntimeParams[k]; !set {
			config.ConnConfig.RuntimeParams[k] = v
		}
	}
	if err := await(ctx, config.ConnConfig, log); err != nil {
		return nil, err
	}
	if err := migrate(ctx, config.ConnConfig, sets); err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	return pool, nil
}

// await returns once the server takes connections. It waits 50 ms, doubling to 2 s, between tries.
func await(ctx context.Context, config *pgx.ConnConfig, log *zap.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		conn, err := pgx.ConnectConfig(ctx, config.Copy())
		if err == nil {
			return conn.Close(ctx)
		}
		if !Unavailable(err) {
			return fmt.Errorf("connect to database: %w", err)
		}
		log.Warn("database not reachable yet", zap.Error(err), zap.Duration("next_try", pause))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("connect to database: %w", err)
		}
	}
}

// analyse leaves empty tables out. Of a table that was never analysed PostgreSQL supposes ten pages, for which it looks up by
// key; of one that was analysed while it was empty it supposes what is there, one row, for which a scan of a whole index
// costs the same. Such a plan is kept until autovacuum comes by, a minute later: claiming 25 of 500 notices read 23,000 pages.
const analyse = `DO $$ DECLARE t regclass; BEGIN
	FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace AND pg_relation_size(oid) > 0 LOOP
		EXECUTE format('ANALYZE %s', t);
	END LOOP; END $$`

// migrate runs each set, then analyses.
func migrate(ctx context.Context, config *pgx.ConnConfig, sets []Migrations) error {
	config = config.Copy()
	config.RuntimeParams["statement_timeout"] = "0" // an index over a large table takes as long as it takes
	config.RuntimeParams["lock_timeout"] = "0"
	config.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	db := stdlib.OpenDB(*config)
	defer db.Close()
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return fmt.Errorf("make migration lock: %w", err)
	}
	applied := 0
	for _, set := range append([]Migrations{own}, sets...) {
		store, err := database.NewStore(database.DialectPostgres, "migrations_"+set.Name)
		if err != nil {
			return fmt.Errorf("prepare migrations %s: %w", set.Name, err)
		}
		p, err := goose.NewProvider("", db, set.FS, goose.WithStore(store), goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
		if err != nil {
			return fmt.Errorf("read migrations %s: %w", set.Name, err)
		}
		done, err := p.Up(ctx)
		if err != nil {
			return fmt.Errorf("apply migrations %s: %w", set.Name, err)
		}
		applied += len(done)
	}
	if applied == 0 {
		return nil
	}
	if _, err := db.ExecContext(ctx, analyse); err != nil {
		return fmt.Errorf("analyse after migration: %w", err)
	}
	return nil
}
