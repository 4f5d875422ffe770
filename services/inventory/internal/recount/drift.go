package recount

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
)

// Drift is a product whose row is not what ledger and reservations say.
type Drift struct {
	Tenant       int64  `json:"tenant"`
	Product      string `json:"product_id"`
	OnHand       int64  `json:"on_hand"`
	Ledger       int64  `json:"ledger"` // its sum, should be OnHand
	Reserved     int64  `json:"reserved"`
	Reservations int64  `json:"reservations"` // sum of HELD and PINNED, should be Reserved
}

// Ledger finds drift, and keeps an intervention open for each product that has it.
type Ledger interface {
	Drift(ctx context.Context) ([]Drift, error)
}

// Watch compares again and again. It only reports: what is wrong with a row that transactions and constraints keep is
// wrong with the program or the database, and booking it away would hide that.
type Watch struct {
	ledger   Ledger
	every    time.Duration
	log      *zap.Logger
	products prometheus.Gauge
	runs     *prometheus.CounterVec
}

// NewWatch makes the job.
func NewWatch(l Ledger, every time.Duration, log *zap.Logger, reg prometheus.Registerer) *Watch {
	f := promauto.With(reg)
	return &Watch{ledger: l, every: every, log: log,
		products: f.NewGauge(prometheus.GaugeOpts{
			Name: "waybill_inventory_drift_products", Help: "Products whose row differed from ledger or reservations when last compared.",
		}),
		runs: f.NewCounterVec(prometheus.CounterOpts{
			Name: "waybill_inventory_drift_runs_total", Help: "Comparisons of rows with the ledger, by result.",
		}, []string{"result"}),
	}
}

// Run compares until ctx ends. A comparison that cannot be made is tried again the next time.
func (w *Watch) Run(ctx context.Context) error {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		w.compare(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (w *Watch) compare(ctx context.Context) {
	found, err := w.ledger.Drift(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		w.runs.WithLabelValues("error").Inc()
		w.log.Warn("stock not compared with its ledger", zap.Error(err))
		return
	}
	w.runs.WithLabelValues("compared").Inc()
	w.products.Set(float64(len(found)))
	for _, d := range found {
		w.log.Error("stock differs from its ledger", zap.Int64("tenant", d.Tenant), zap.String("product_id", d.Product),
			zap.Int64("on_hand", d.OnHand), zap.Int64("ledger", d.Ledger), zap.Int64("reserved", d.Reserved), zap.Int64("reservations", d.Reservations))
	}
}
