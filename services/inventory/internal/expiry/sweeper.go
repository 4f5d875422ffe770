package expiry

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/services/inventory/internal/order"
	"github.com/waybill-dev/waybill/services/inventory/internal/postgres"
)

const (
	// holdBatch frees as many holds in one transaction as a consumer's batch has events.
	holdBatch = 256
	// pinBatch bounds the questions of one sweep; overdue pins are rare.
	pinBatch = 32
)

// Reservations are what the sweeper sweeps.
type Reservations interface {
	ExpireHeld(ctx context.Context, limit int) (int, error)
	OverduePins(ctx context.Context, limit int) ([]postgres.Pin, error)
	Unpin(ctx context.Context, p postgres.Pin) (bool, error)
	KeepPin(ctx context.Context, p postgres.Pin) error
}

// Orders says where an order stands.
type Orders interface {
	Find(ctx context.Context, orderID string) (order.Order, error)
}

// Sweeper is the process. Two replicas may sweep at once.
type Sweeper struct {
	reservations Reservations
	orders       Orders
	every        time.Duration
	log          *zap.Logger
	freed        *prometheus.CounterVec
}

// New makes a sweeper.
func New(r Reservations, o Orders, every time.Duration, log *zap.Logger, reg prometheus.Registerer) *Sweeper {
	return &Sweeper{reservations: r, orders: o, every: every, log: log,
		freed: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "waybill_inventory_swept_total", Help: "Reservations that the sweeper looked at, by what it did.",
		}, []string{"result"}),
	}
}

// Run sweeps until ctx ends. What fails is tried again by the next sweep.
func (s *Sweeper) Run(ctx context.Context) error {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("sweep not finished", zap.Error(err))
		}
	}
}

// Sweep frees everything that is due now.
func (s *Sweeper) Sweep(ctx context.Context) error {
	for {
		n, err := s.reservations.ExpireHeld(ctx, holdBatch)
		s.freed.WithLabelValues("expired").Add(float64(n))
		if err != nil {
			return err
		}
		if n < holdBatch {
			break
		}
	}
	pins, err := s.reservations.OverduePins(ctx, pinBatch)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range pins {
		errs = append(errs, s.ask(ctx, p))
	}
	return errors.Join(errs...)
}

// ask decides one overdue pin.
func (s *Sweeper) ask(ctx context.Context, p postgres.Pin) error {
	o, err := s.orders.Find(ctx, p.OrderID)
	switch {
	case errors.Is(err, order.ErrUnknown):
		s.log.Warn("pinned stock belongs to no order", zap.String("order_id", p.OrderID), zap.Int64("tenant", p.Tenant))
		s.freed.WithLabelValues("orphan").Inc()
		return s.reservations.KeepPin(ctx, p)
	case err != nil:
		s.freed.WithLabelValues("unanswered").Inc()
		return err
	}
	if !o.Dead() {
		s.freed.WithLabelValues("kept").Inc()
		return s.reservations.KeepPin(ctx, p)
	}
	released, err := s.reservations.Unpin(ctx, p)
	if err != nil {
		return err
	}
	if released {
		s.freed.WithLabelValues("unpinned").Inc()
		s.log.Info("pinned stock of a dead order released", zap.String("order_id", p.OrderID), zap.String("status", o.Status))
	}
	return nil
}
