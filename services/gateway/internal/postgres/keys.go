package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/gateway/internal/login"
)

// keysLock serialises replicas that look for keys; the number is arbitrary and this database's own.
const keysLock = 0x6b657973

// Keys brings the signing keys up to date, and lists them, newest last: where there is none one is made that signs at once; where the
// newest is older than life, one that signs after lead, when every verifier has seen it. Keys that were superseded longer than keep ago are
// deleted.
func (s *Store) Keys(ctx context.Context, create func() (kid, private string, err error), life, lead, keep time.Duration) ([]login.StoredKey, error) {
	var keys []login.StoredKey
	err := pg.Do(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		keys = nil
		var stale bool
		u.Read(`SELECT pg_advisory_xact_lock($1)`, keysLock)
		u.Read(`SELECT coalesce(max(created_at) < now() - $1::interval, false) FROM signing_keys`, life).QueryRow(func(row pgx.Row) error {
			return row.Scan(&stale)
		})
		list := func() {
			u.Read(`SELECT kid, private, active_at <= now() FROM signing_keys ORDER BY active_at, kid`).Query(func(rows pgx.Rows) error {
				var err error
				keys, err = pgx.CollectRows(rows, pgx.RowToStructByPos[login.StoredKey])
				return err
			})
		}
		list()
		if err := u.Fetch(ctx); err != nil {
			return err
		}
		u.Write(`DELETE FROM signing_keys k WHERE EXISTS
			(SELECT FROM signing_keys newer WHERE newer.active_at > k.active_at AND newer.active_at < now() - $1::interval)`, keep)
		if stale || len(keys) == 0 {
			kid, private, err := create()
			if err != nil {
				return err
			}
			if len(keys) == 0 {
				lead = 0
			}
			u.Write(`INSERT INTO signing_keys (kid, private, active_at) VALUES ($1, $2, now() + $3)`, kid, private, lead)
		}
		if err := u.Flush(ctx); err != nil {
			return err
		}
		list()
		return u.Fetch(ctx)
	})
	if err != nil {
		return nil, fmt.Errorf("load signing keys: %w", err)
	}
	return keys, nil
}
