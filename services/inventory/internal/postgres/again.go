package postgres

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/waybill-dev/waybill/libs/pg"
)

// again runs a unit, and once more where another replica has stored the same idempotency key or document meanwhile
// (23505): on its second run the unit finds it.
func again(ctx context.Context, pool *pgxpool.Pool, f func(ctx context.Context, u *pg.Unit) error) error {
	err := pg.Do(ctx, pool, f)
	if _, lost := pg.UniqueViolation(err); lost {
		err = pg.Do(ctx, pool, f)
	}
	return err
}
