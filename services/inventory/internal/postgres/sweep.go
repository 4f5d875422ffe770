package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/libs/failpoint"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

// ReasonLapsed is why a hold was given up whose time was over.
const ReasonLapsed = "expired"

// ReasonAbandoned is why a pin was given up whose order is dead.
const ReasonAbandoned = "abandoned"

// Rows that somebody else has locked are about to change: they are left to the next sweep. What is selected is what is
// locked, so the state that was seen is the state that is changed.
const lockLapsed = `
SELECT order_id, tenant, state, product_ids, quantities, total, currency, reason, due_at, event_seq
FROM reservations WHERE state = 'HELD' AND due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED`

// ExpireHeld gives up at most limit holds whose time is over by the database's clock, and says how many.
func (s *Store) ExpireHeld(ctx context.Context, limit int) (int, error) {
	expired := 0
	err := pg.Do(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		b := stock.NewBook(s.terms)
		var due []stock.Reservation
		u.Read(lockLapsed, limit).Query(func(rows pgx.Rows) error {
			var err error
			due, err = scanReservations(rows, b)
			return err
		})
		if err := u.Fetch(ctx); err != nil {
			return fmt.Errorf("lock lapsed holds: %w", err)
		}
		if expired = len(due); expired == 0 {
			return nil
		}
		if err := failpoint.Hit("sweep.after_select"); err != nil {
			return err
		}
		var w wants
		for _, r := range due {
			w.freed = append(w.freed, r.OrderID)
		}
		load(u, b, w)
		if err := u.Fetch(ctx); err != nil {
			return fmt.Errorf("lock products: %w", err)
		}
		for _, r := range due {
			b.Settle(stock.News{Fact: stock.Lapse, OrderID: r.OrderID, Tenant: r.Tenant, Reason: ReasonLapsed})
		}
		s.save(ctx, u, b)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("expire holds: %w", err)
	}
	return expired, nil
}

// Pin is a pinned reservation whose bound is over.
type Pin struct {
	OrderID string
	Tenant  int64
	Due     time.Time
}

// OverduePins lists pins that are older than their bound, oldest first. It locks nothing: the order service is asked
// before anything is done about them.
func (s *Store) OverduePins(ctx context.Context, limit int) ([]Pin, error) {
	rows, err := s.pool.Query(ctx, `
SELECT order_id, tenant, due_at FROM reservations WHERE state = 'PINNED' AND due_at <= now() ORDER BY due_at LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("list overdue pins: %w", err)
	}
	pins, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Pin])
	if err != nil {
		return nil, fmt.Errorf("list overdue pins: %w", err)
	}
	return pins, nil
}

// Unpin releases a pin whose order is dead. It does nothing, and says so, where the reservation has changed since it was
// listed.
func (s *Store) Unpin(ctx context.Context, p Pin) (bool, error) {
	released := false
	err := pg.Do(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		b := stock.NewBook(s.terms)
		orders := []string{p.OrderID}
		load(u, b, wants{orders: orders, freed: orders})
		if err := u.Fetch(ctx); err != nil {
			return fmt.Errorf("lock reservation: %w", err)
		}
		r, ok := b.Reservation(p.OrderID)
		if released = ok && r.State == stock.Pinned && r.Due.Equal(p.Due); !released {
			return nil
		}
		b.Settle(stock.News{Fact: stock.Abandoned, OrderID: p.OrderID, Tenant: p.Tenant, Reason: ReasonAbandoned})
		s.save(ctx, u, b)
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("unpin order %s: %w", p.OrderID, err)
	}
	return released, nil
}

// KeepPin gives a pin whose order lives, or could not be asked about, another bound.
func (s *Store) KeepPin(ctx context.Context, p Pin) error {
	_, err := s.pool.Exec(ctx, `UPDATE reservations SET due_at = now() + $3 WHERE order_id = $1 AND state = 'PINNED' AND due_at = $2`,
		p.OrderID, p.Due, s.terms.Pin)
	if err != nil {
		return fmt.Errorf("keep pin of order %s: %w", p.OrderID, err)
	}
	return nil
}
