package pg_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/testkit"
)

var counters = pg.Migrations{Name: "counters", FS: fstest.MapFS{
	"00001_counters.sql": {Data: []byte(`-- +goose Up
CREATE TABLE counters (id text COLLATE "C" PRIMARY KEY, n bigint NOT NULL CHECK (n >= 0));
INSERT INTO counters VALUES ('a', 0), ('b', 0);
`)},
}}

func value(t *testing.T, pool *pgxpool.Pool, id string) (n int64) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `SELECT n FROM counters WHERE id = $1`, id).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDoCommitsReadsAndWritesTogether(t *testing.T) {
	t.Parallel()
	pool, _ := testkit.Postgres(t, counters)
	var after bool
	err := pg.Do(t.Context(), pool, func(ctx context.Context, u *pg.Unit) error {
		var n int64
		u.Read(`SELECT n FROM counters WHERE id = 'a' FOR UPDATE`).QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
		if err := u.Fetch(ctx); err != nil {
			return err
		}
		u.Write(`UPDATE counters SET n = $1 WHERE id = 'a'`, n+1)
		u.BeforeCommit(func(context.Context) error {
			u.Write(`UPDATE counters SET n = 10 WHERE id = 'b'`)
			return nil
		})
		u.AfterCommit(func() { after = true })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if a, b := value(t, pool, "a"), value(t, pool, "b"); a != 1 || b != 10 || !after {
		t.Errorf("a = %d, b = %d, after commit ran: %v; want 1, 10, true", a, b, after)
	}
}

func TestGuardRunsTheUnitAgain(t *testing.T) {
	t.Parallel()
	pool, _ := testkit.Postgres(t, counters)
	runs := 0
	err := pg.Do(t.Context(), pool, func(ctx context.Context, u *pg.Unit) error {
		runs++
		var n int64
		u.Read(`SELECT n FROM counters WHERE id = 'a'`).QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
		if err := u.Fetch(ctx); err != nil {
			return err
		}
		if runs == 1 { // somebody else is faster
			if _, err := pool.Exec(ctx, `UPDATE counters SET n = n + 5 WHERE id = 'a'`); err != nil {
				return err
			}
		}
		u.Write(`UPDATE counters SET n = n + 100 WHERE id = 'b'`)
		u.Guard(1, `UPDATE counters SET n = $1 WHERE id = 'a' AND n = $2`, n+1, n)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if a, b := value(t, pool, "a"), value(t, pool, "b"); a != 6 || b != 100 || runs != 2 {
		t.Errorf("a = %d, b = %d after %d runs; want 6, 100 after 2", a, b, runs)
	}
}

func TestGuardThatNeverHoldsIsRetryable(t *testing.T) {
	t.Parallel()
	pool, _ := testkit.Postgres(t, counters)
	runs := 0
	err := pg.Do(t.Context(), pool, func(_ context.Context, u *pg.Unit) error {
		runs++
		u.Guard(1, `UPDATE counters SET n = 1 WHERE id = 'nobody'`)
		return nil
	})
	if runs != 5 || !pg.Retryable(err) || pg.Permanent(err) {
		t.Errorf("%d runs ended with %v", runs, err)
	}
}

func TestErrorsRollBack(t *testing.T) {
	t.Parallel()
	pool, _ := testkit.Postgres(t, counters)
	boom := errors.New("boom")
	tests := []struct {
		name  string
		unit  func(ctx context.Context, u *pg.Unit) error
		check func(error) bool
	}{
		{"of the function", func(ctx context.Context, u *pg.Unit) error {
			u.Write(`UPDATE counters SET n = 7 WHERE id = 'a'`)
			return errors.Join(boom, u.Flush(ctx))
		}, func(err error) bool { return errors.Is(err, boom) }},
		{"of a hook", func(ctx context.Context, u *pg.Unit) error {
			u.Write(`UPDATE counters SET n = 7 WHERE id = 'a'`)
			u.BeforeCommit(func(context.Context) error { return boom })
			return u.Flush(ctx)
		}, func(err error) bool { return errors.Is(err, boom) }},
		{"of a statement", func(_ context.Context, u *pg.Unit) error {
			u.Write(`UPDATE counters SET n = 7 WHERE id = 'a'`)
			u.Write(`UPDATE counters SET n = -1 WHERE id = 'b'`)
			return nil
		}, pg.Permanent},
		{"that the function ignores", func(ctx context.Context, u *pg.Unit) error {
			u.Write(`UPDATE counters SET n = -1 WHERE id = 'b'`)
			_ = u.Flush(ctx)
			return nil
		}, func(err error) bool { return err != nil }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := pg.Do(t.Context(), pool, tt.unit); !tt.check(err) {
				t.Errorf("ended with %v", err)
			}
			if a, b := value(t, pool, "a"), value(t, pool, "b"); a != 0 || b != 0 {
				t.Errorf("a = %d, b = %d stayed behind", a, b)
			}
		})
	}
	if n := pool.Stat().AcquiredConns(); n != 0 {
		t.Errorf("%d connections were not given back", n)
	}
}

func TestConcurrentUnitsLoseNothing(t *testing.T) {
	t.Parallel()
	pool, _ := testkit.Postgres(t, counters)
	const workers, each = 8, 25
	var wg sync.WaitGroup
	errs := make(chan error, workers*each)
	for range workers {
		wg.Go(func() {
			for range each {
				errs <- pg.Do(t.Context(), pool, func(ctx context.Context, u *pg.Unit) error {
					var n int64
					u.Read(`SELECT n FROM counters WHERE id = 'a' FOR UPDATE`).QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
					if err := u.Fetch(ctx); err != nil {
						return err
					}
					u.Guard(1, `UPDATE counters SET n = $1 WHERE id = 'a' AND n = $2`, n+1, n)
					return nil
				})
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if got := value(t, pool, "a"); got != workers*each {
		t.Errorf("counted %d of %d", got, workers*each)
	}
}

func TestReplicasMigrateTogether(t *testing.T) {
	t.Parallel()
	_, url := testkit.Postgres(t)
	sets := make([]pg.Migrations, 2)
	for i := range sets {
		sets[i] = pg.Migrations{Name: fmt.Sprintf("set%d", i), FS: fstest.MapFS{
			"00001_one.sql": {Data: fmt.Appendf(nil, "-- +goose Up\nCREATE TABLE t%d (id int);\n", i)},
		}}
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			pool, err := pg.Open(t.Context(), url, testkit.Log(t), sets...)
			if err != nil {
				t.Error(err)
				return
			}
			defer pool.Close()
			if _, err := pool.Exec(t.Context(), `SELECT FROM t0, t1`); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestClasses(t *testing.T) {
	t.Parallel()
	pool, _ := testkit.Postgres(t, counters)
	fail := func(sql string) error {
		_, err := pool.Exec(t.Context(), sql)
		if err == nil {
			t.Errorf("%s succeeded", sql)
		}
		return err
	}
	terminated := pg.Do(t.Context(), pool, func(ctx context.Context, u *pg.Unit) error {
		u.Write(`SELECT pg_terminate_backend(pg_backend_pid())`)
		return nil
	})
	_, unreachable := pgx.Connect(t.Context(), "postgres://127.0.0.1:1/none?connect_timeout=1")
	tests := []struct {
		name                              string
		err                               error
		retryable, permanent, unavailable bool
	}{
		{"nothing", nil, false, false, false},
		{"another error", errors.New("another"), false, false, false},
		{"does not fit", fail(`SELECT 'x'::text::int`), false, true, false},
		{"breaks a constraint", fail(`UPDATE counters SET n = -1`), false, true, false},
		{"wrong SQL", fail(`SELEKT`), false, false, false},
		{"terminated", terminated, true, false, true},
		{"statement time-out", fail(`SET statement_timeout = 1; SELECT pg_sleep(1)`), true, false, true},
		{"unreachable", unreachable, true, false, true},
		{"deadline", fmt.Errorf("wait: %w", context.DeadlineExceeded), true, false, true},
	}
	for _, tt := range tests {
		if r, p, u := pg.Retryable(tt.err), pg.Permanent(tt.err), pg.Unavailable(tt.err); r != tt.retryable || p != tt.permanent || u != tt.unavailable {
			t.Errorf("%s (%v): retryable %v, permanent %v, unavailable %v", tt.name, tt.err, r, p, u)
		}
	}
	if name, ok := pg.UniqueViolation(fail(`INSERT INTO counters VALUES ('a', 1)`)); !ok || name != "counters_pkey" {
		t.Errorf("a duplicate was seen as %q, %v", name, ok)
	}
}
