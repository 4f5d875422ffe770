package chaos

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/plan"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/workload"
)

// poison has the shipping service's database refuse the shipments of some orders, which the
// load marks by their ids: one statement fails, keyed on the test's own data, as Boulder does
// it. The event cannot be handled, its key is parked, and others flow on.
func poison(ctx context.Context, s plan.Settings) error {
	return execute(ctx, s.Database("shipping"), `
		CREATE OR REPLACE FUNCTION chaos_poison() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			RAISE EXCEPTION 'poisoned by chaos' USING ERRCODE = 'check_violation';
		END $$;
		CREATE OR REPLACE TRIGGER chaos_poison BEFORE INSERT ON shipments FOR EACH ROW
			WHEN (NEW.order_id LIKE '%`+workload.Poisoned+`') EXECUTE FUNCTION chaos_poison()`)
}

// cure takes the reason away and tries everything again that was parked, until nothing is.
func cure(ctx context.Context, s plan.Settings, w *workload.Workload) (redriven int, err error) {
	if err := execute(ctx, s.Database("shipping"), `DROP TRIGGER IF EXISTS chaos_poison ON shipments; DROP FUNCTION IF EXISTS chaos_poison`); err != nil {
		return 0, err
	}
	for {
		n, err := w.Redrive(ctx)
		redriven += n
		if n == 0 && err == nil {
			return redriven, nil
		}
		select {
		case <-ctx.Done():
			return redriven, fmt.Errorf("redrive what was parked: %w", ctx.Err())
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func execute(ctx context.Context, url, sql string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, sql)
	return err
}
