package testkit

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Plan is how PostgreSQL runs a statement on a connection of pg.Open, whatever its arguments are: the generic plan, as EXPLAIN
// prints it. args is the SQL of the arguments, which it needs only to be asked.
func Plan(t testing.TB, conn *pgxpool.Conn, sql, args string) string {
	t.Helper()
	if _, err := conn.Exec(t.Context(), `PREPARE p AS `+sql); err != nil {
		t.Fatal(err)
	}
	defer conn.Exec(t.Context(), `DEALLOCATE p`)
	rows, err := conn.Query(t.Context(), `EXPLAIN EXECUTE p(`+args+`)`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}
