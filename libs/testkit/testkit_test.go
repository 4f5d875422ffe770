package testkit_test

import (
	"fmt"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/testkit"
)

// The server lives on until the process ends, so the leak check also shows that it
// needs no goroutine here.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func things(sql string) pg.Migrations {
	return pg.Migrations{Name: "things", FS: fstest.MapFS{
		"0001_things.sql": {Data: []byte("-- +goose Up\n" + sql + ";\n")},
	}}
}

func TestPostgresGivesEachTestItsOwn(t *testing.T) {
	t.Parallel()
	set := things("CREATE TABLE things (id int PRIMARY KEY)")
	for i := range 6 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			pool, _ := testkit.Postgres(t, set)
			if _, err := pool.Exec(t.Context(), "INSERT INTO things VALUES (1)"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPostgresTellsSetListsApart(t *testing.T) {
	t.Parallel()
	testkit.Postgres(t, things("CREATE TABLE things (id int)"))
	pool, _ := testkit.Postgres(t, things("CREATE TABLE things (id int, name text)"))
	if _, err := pool.Exec(t.Context(), "INSERT INTO things VALUES (1, 'a')"); err != nil {
		t.Error(err)
	}
}

func TestKafka(t *testing.T) {
	t.Parallel()
	brokers, cluster := testkit.Kafka(t)
	if len(brokers) != 1 || cluster.TopicInfo("orders") == nil {
		t.Errorf("brokers %v, orders %v", brokers, cluster.TopicInfo("orders"))
	}
}

func TestLogAfterTheEnd(t *testing.T) {
	t.Parallel()
	var late func()
	t.Run("inner", func(t *testing.T) {
		log := testkit.Log(t)
		log.Info("within")
		late = func() { log.Info("after") }
	})
	late()
}

func TestEventually(t *testing.T) {
	t.Parallel()
	n := 0
	testkit.Eventually(t, time.Second, func() bool { n++; return n == 3 }, "third look")
}
