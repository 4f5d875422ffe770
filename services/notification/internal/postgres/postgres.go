// Package postgres keeps notices. Each exported method is one unit of work over sets of rows.
package postgres

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/notification/internal/notice"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations are the service's own tables.
var Migrations = func() pg.Migrations {
	root, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err)
	}
	return pg.Migrations{Name: "notification", FS: root}
}()

const (
	// patience is how long a message is tried. Mail servers give up after one to five days (RFC 5321, 4.5.4.1); a message
	// about an order that is older than a day is better told by a person.
	patience = 24 * time.Hour
	// Lease is how long a claimed message belongs to who claimed it. A batch ends after a minute at most.
	Lease = 2 * time.Minute
	// Intervention is the kind of those that are raised about messages which could not be delivered; their subject is the order.
	Intervention = "mail_undelivered"
)

// Store is the service's database.
type Store struct {
	pool *pgxpool.Pool
	wake func()
}

// New makes a store. wake is called when there is something to tell; it must not block.
func New(pool *pgxpool.Pool, wake func()) *Store { return &Store{pool: pool, wake: wake} }

// Consume is the inbox's handler: it writes the notices of a batch, one for each event and channel for ever.
func (s *Store) Consume(_ context.Context, u *pg.Unit, batch []event.Event) error {
	var c columns
	var reversed []string
	for _, e := range batch {
		n, ok, err := notice.From(e)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		c.add(n)
		if slices.Contains(notice.Reversals, string(n.Kind)) {
			reversed = append(reversed, n.OrderID)
		}
	}
	if len(c.ids) == 0 {
		return nil
	}
	u.Write(`INSERT INTO notices (event_id, channel, order_id, tenant, seq, kind, recipient, masked, subject, body, traceparent, give_up_at)
		SELECT n.*, now() + $1::interval FROM unnest($2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::text[],
			$9::text[], $10::text[], $11::text[], $12::text[]) AS n ON CONFLICT DO NOTHING`,
		patience, c.ids, c.channels, c.orders, c.tenants, c.seqs, c.kinds, c.recipients, c.masked, c.subjects, c.texts, c.traces)
	if len(reversed) > 0 {
		// A promise that waits for its next try has become untrue: it is looked at now, or it would hold up what reverses it.
		u.Write(`UPDATE notices SET due_at = now() WHERE order_id = ANY($1) AND status = 'pending' AND NOT in_flight AND due_at > now()
			AND kind = ANY($2)`, reversed, notice.Promises)
	}
	u.AfterCommit(s.wake)
	return nil
}

type columns struct {
	ids                                                                  []uuid.UUID
	channels, orders, kinds, recipients, masked, subjects, texts, traces []string
	tenants, seqs                                                        []int64
}

func (c *columns) add(n notice.Notice) {
	c.ids, c.channels, c.orders = append(c.ids, n.EventID), append(c.channels, n.Channel), append(c.orders, n.OrderID)
	c.tenants, c.seqs, c.kinds = append(c.tenants, n.Tenant), append(c.seqs, n.Seq), append(c.kinds, string(n.Kind))
	c.recipients, c.masked = append(c.recipients, n.Recipient), append(c.masked, n.Masked)
	c.subjects, c.texts, c.traces = append(c.subjects, n.Subject), append(c.texts, n.Text), append(c.traces, n.Traceparent)
}

// Claim takes up to limit messages whose time has come out of the queue for as long as the lease, of each order only the
// first that is not told. Promises among them that have become untrue are superseded, and what they held up is claimed.
func (s *Store) Claim(ctx context.Context, limit int) ([]notice.Notice, error) {
	var claimed []notice.Notice
	err := pg.Do(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		claimed = nil
		for more := true; more && len(claimed) < limit; {
			more = false
			claim(u, limit-len(claimed), func(n notice.Notice) {
				if n.Status == notice.Superseded {
					more = true
				} else {
					claimed = append(claimed, n)
				}
			})
			if err := u.Flush(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("claim due notices: %w", err)
	}
	return claimed, nil
}

// claim queues one statement. It looks at no more rows than it takes, whatever the length of the queue: whether a promise is
// still true is asked of those only.
func claim(u *pg.Unit, limit int, each func(notice.Notice)) {
	u.Write(`WITH due AS (
			SELECT event_id, channel FROM notices n WHERE due_at <= now() AND NOT EXISTS (
				SELECT FROM notices earlier WHERE earlier.order_id = n.order_id AND earlier.channel = n.channel
					AND earlier.seq < n.seq AND earlier.status = 'pending')
			ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED),
		sorted AS MATERIALIZED ( -- or what is untrue is asked once for each column that depends on it
			SELECT n.event_id, n.channel, n.kind = ANY($3) AND EXISTS (
				SELECT FROM notices later WHERE later.order_id = n.order_id AND later.channel = n.channel AND later.seq > n.seq
					AND later.kind = ANY($4)) AS untrue
			FROM due JOIN notices n USING (event_id, channel))
		UPDATE notices n SET in_flight = NOT untrue, tries = tries + (NOT untrue)::int,
			status = CASE WHEN untrue THEN 'superseded' ELSE 'pending' END,
			due_at = CASE WHEN NOT untrue THEN now() + $2::interval END,
			finished_at = CASE WHEN untrue THEN now() END,
			recipient = CASE WHEN untrue THEN '' ELSE n.recipient END
		FROM sorted s WHERE n.event_id = s.event_id AND n.channel = s.channel
		RETURNING n.event_id, n.channel, n.order_id, n.tenant, n.recipient, n.subject, n.body, n.tries, n.traceparent, n.status`,
		limit, Lease, notice.Promises, notice.Reversals).Query(func(rows pgx.Rows) error {
		var n notice.Notice
		_, err := pgx.ForEachRow(rows, []any{&n.EventID, &n.Channel, &n.OrderID, &n.Tenant, &n.Recipient, &n.Subject, &n.Text, &n.Tries,
			&n.Traceparent, &n.Status}, func() error {
			each(n)
			return nil
		})
		return err
	})
}

// Outcome is what came of a try.
type Outcome struct {
	notice.Notice
	// Error is empty where the message was told. It must not hold personal data.
	Error string
	// Permanent says that trying again does not help.
	Permanent bool
	// Again is the pause before the next try.
	Again time.Duration
}

// Settle keeps the outcomes of tries. What failed for good, or for a day, is raised as an intervention.
func (s *Store) Settle(ctx context.Context, outcomes []Outcome, raise func(u *pg.Unit, x inbox.Intervention)) error {
	err := pg.Do(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		var told, tried settled
		for _, o := range outcomes {
			if o.Error == "" {
				told.add(o)
			} else {
				tried.add(o)
			}
		}
		if len(told.ids) > 0 {
			u.Write(`UPDATE notices n SET status = 'sent', in_flight = false, due_at = NULL, finished_at = now(), recipient = '', last_error = ''
				FROM unnest($1::uuid[], $2::text[]) AS o(id, channel) WHERE n.event_id = o.id AND n.channel = o.channel AND n.status = 'pending'`,
				told.ids, told.channels)
		}
		if len(tried.ids) == 0 {
			return nil
		}
		var given []Outcome
		// Where a reversal has come meanwhile there is nothing to wait for: the next claim supersedes it.
		u.Write(`UPDATE notices n SET in_flight = false, last_error = o.error,
				status = CASE WHEN o.permanent OR give_up_at <= now() THEN 'failed' ELSE status END,
				finished_at = CASE WHEN o.permanent OR give_up_at <= now() THEN now() END,
				due_at = CASE WHEN o.permanent OR give_up_at <= now() THEN NULL
					WHEN kind = ANY($6) AND EXISTS (SELECT FROM notices later WHERE later.order_id = n.order_id AND later.channel = n.channel
						AND later.seq > n.seq AND later.kind = ANY($7)) THEN now()
					ELSE now() + o.again END
			FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bool[], $5::interval[]) AS o(id, channel, error, permanent, again)
			WHERE n.event_id = o.id AND n.channel = o.channel AND n.status = 'pending'
			RETURNING n.status, n.order_id, n.tenant, n.kind, n.channel, n.tries, n.last_error, n.traceparent`,
			tried.ids, tried.channels, tried.errors, tried.permanent, tried.again, notice.Promises, notice.Reversals).
			Query(func(rows pgx.Rows) error {
				given = nil
				var o Outcome
				_, err := pgx.ForEachRow(rows, []any{&o.Status, &o.OrderID, &o.Tenant, &o.Kind, &o.Channel, &o.Tries, &o.Error, &o.Traceparent}, func() error {
					if o.Status == notice.Undelivered {
						given = append(given, o)
					}
					return nil
				})
				return err
			})
		if err := u.Flush(ctx); err != nil {
			return err
		}
		for _, o := range given {
			raise(u, inbox.Intervention{
				Kind: Intervention, Subject: o.OrderID, Tenant: o.Tenant, Trace: o.Traceparent,
				Reason: "the customer could not be told: " + o.Error,
				Detail: map[string]any{"kind": o.Kind, "channel": o.Channel, "tries": o.Tries},
			})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("settle %d notices: %w", len(outcomes), err)
	}
	return nil
}

type settled struct {
	ids              []uuid.UUID
	channels, errors []string
	permanent        []bool
	again            []time.Duration
}

func (s *settled) add(o Outcome) {
	s.ids, s.channels, s.errors = append(s.ids, o.EventID), append(s.channels, o.Channel), append(s.errors, o.Error)
	s.permanent, s.again = append(s.permanent, o.Permanent), append(s.again, o.Again)
}

// Redrive is for the inbox: it tries an order's undelivered messages for another day.
func (s *Store) Redrive(_ context.Context, u *pg.Unit, _ uuid.UUID, orderID string) error {
	u.Write(`UPDATE notices SET status = 'pending', tries = 0, due_at = now(), give_up_at = now() + $2::interval, finished_at = NULL
		WHERE order_id = $1 AND status = 'failed'`, orderID, patience)
	u.AfterCommit(s.wake)
	return nil
}

// Find lists an order's notices with a sequence above after, at most limit. Those of another tenant are left out, unless
// tenant is 0.
func (s *Store) Find(ctx context.Context, orderID string, tenant, after int64, limit int) ([]notice.Notice, error) {
	rows, err := s.pool.Query(ctx, `SELECT event_id, channel, order_id, tenant, seq, kind, masked, subject, body, status, tries, created_at, finished_at
		FROM notices WHERE order_id = $1 AND ($2 = 0 OR tenant = $2) AND seq > $3 ORDER BY seq, channel LIMIT $4`, orderID, tenant, after, limit)
	if err != nil {
		return nil, fmt.Errorf("find notices of %s: %w", orderID, err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (n notice.Notice, err error) {
		err = row.Scan(&n.EventID, &n.Channel, &n.OrderID, &n.Tenant, &n.Seq, &n.Kind, &n.Masked, &n.Subject, &n.Text, &n.Status, &n.Tries,
			&n.CreatedAt, &n.FinishedAt)
		return n, err
	})
	if err != nil {
		return nil, fmt.Errorf("find notices of %s: %w", orderID, err)
	}
	return found, nil
}

// Backlog counts what is not told yet and says how long the oldest of it has waited.
func (s *Store) Backlog(ctx context.Context) (waiting int, oldest time.Duration, err error) {
	err = s.pool.QueryRow(ctx, `SELECT count(*), coalesce(now() - min(created_at), '0') FROM notices WHERE due_at IS NOT NULL`).Scan(&waiting, &oldest)
	if err != nil {
		return 0, 0, fmt.Errorf("count waiting notices: %w", err)
	}
	return waiting, oldest, nil
}
