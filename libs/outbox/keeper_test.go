package outbox

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/waybill-dev/waybill/libs/testkit"
)

func partitions(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'outbox'::regclass ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestKeeperMakesAndDropsPartitions(t *testing.T) {
	t.Parallel()
	pool, _ := testkit.Postgres(t, Migrations)
	hour := time.Now().UTC().Truncate(time.Hour)
	at := func(hours int) time.Time { return hour.Add(time.Duration(hours) * time.Hour) }
	insert := func(created time.Time, published bool) {
		t.Helper()
		_, err := pool.Exec(t.Context(), `INSERT INTO outbox (events, body, created_at, published_at) VALUES (1, '', $1::timestamptz, CASE WHEN $2 THEN $1 END)`, created, published)
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, hours := range []int{-100, -90, -80, -2} {
		if err := pool.AcquireFunc(t.Context(), func(c *pgxpool.Conn) error {
			return create(t.Context(), c.Conn(), at(hours).Format(hourLayout), at(hours))
		}); err != nil {
			t.Fatal(err)
		}
	}
	insert(at(-100), true)
	insert(at(-90), false) // nobody has published it: it must stay
	insert(at(-2), true)
	insert(at(-95), true) // no partition takes these two
	insert(at(-85), false)
	// Nor this one, which keeps the partition of its hour from being made. (The migration has made it.)
	if _, err := pool.Exec(t.Context(), `DROP TABLE `+at(1).Format(hourLayout)); err != nil {
		t.Fatal(err)
	}
	insert(at(1), true)
	k := &keeper{Outbox: New(Options{Source: "test", Pool: pool, Log: testkit.Log(t)})}
	if !k.low().Before(at(-1000)) {
		t.Error("reads begin somewhere before anybody has looked where")
	}
	for range 2 {
		if err := k.tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"outbox_default"}
	for _, hours := range []int{-90, -2, 0, 2, 3} {
		want = append(want, at(hours).Format(hourLayout))
	}
	if diff := cmp.Diff(want, partitions(t, pool)); diff != "" {
		t.Errorf("partitions, want - got +:\n%s", diff)
	}
	if got := k.low(); !got.Equal(at(-90)) {
		t.Errorf("reads begin at %v, the oldest unpublished row is of %v", got, at(-90))
	}
	var strays int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM outbox_default`).Scan(&strays); err != nil || strays != 2 {
		t.Errorf("%d rows in the default partition, want the unpublished and the young one (%v)", strays, err)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE outbox SET published_at = now() WHERE published_at IS NULL`); err != nil {
		t.Fatal(err)
	}
	if err := k.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(k.low()); d < oldestLook || d > oldestLook+time.Minute {
		t.Errorf("with nothing unpublished reads look back %v", d)
	}
	if err := k.gauge(t.Context()); err != nil {
		t.Error(err)
	}
}

// A writer on its way to the default partition must not fail because the partition of its hour appears.
func TestWritersDoNotNoticeANewPartition(t *testing.T) {
	t.Parallel()
	pool, _ := testkit.Postgres(t, Migrations)
	hour := time.Now().UTC().Truncate(time.Hour)
	name, made := hour.Format(hourLayout), 0
	for range 15 {
		if _, err := pool.Exec(t.Context(), `DROP TABLE IF EXISTS `+name); err != nil {
			t.Fatal(err)
		}
		if _, err := pool.Exec(t.Context(), `TRUNCATE outbox_default`); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for range 5 {
					if _, err := pool.Exec(t.Context(), `INSERT INTO outbox (events, body, created_at) VALUES (1, '', $1)`, hour); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() {
			if err := pool.AcquireFunc(t.Context(), func(c *pgxpool.Conn) error { return create(t.Context(), c.Conn(), name, hour) }); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if len(partitions(t, pool)) == 5 {
			made++
		}
	}
	t.Logf("the partition was made in time %d times of 15", made)
}
