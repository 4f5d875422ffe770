package oracle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/history"
)

// Trial is one corruption and what came of it.
type Trial struct {
	Corruption string   `json:"corruption"`
	Want       string   `json:"want"`  // the invariant that is meant to find it
	Found      []string `json:"found"` // those that did
	Caught     bool     `json:"caught"`
	Skipped    string   `json:"skipped,omitempty"` // why it could not be tried: nothing here to corrupt
}

// errDirty says that what is not clean cannot show what a corruption does.
var errDirty = errors.New("the platform is not clean as it is: there is nothing to compare a corruption with")

// SelfTest proves the oracle on the data at hand: it shows it one corruption after the other and tells which invariants
// notice. The stores stay as they are: databases are changed in transactions that are rolled back, and Kafka's records, the
// sandbox's books and a history on their way in. Target.Postgres must be a superuser's, and some corruptions lock a table
// for the second that a look takes: nobody should be waiting for the platform meanwhile.
func SelfTest(ctx context.Context, t Target, progress func(string)) ([]Trial, error) {
	if t.Wait <= 0 {
		t.Wait = defaultWait
	}
	if progress == nil {
		progress = func(string) {}
	}
	adm, err := brokers(t.Kafka)
	if err != nil {
		return nil, err
	}
	defer adm.Close()
	dir, err := os.MkdirTemp("", "waybill-verify-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := settle(ctx, t, adm, time.Now(), func(format string, args ...any) { progress(fmt.Sprintf(format, args...)) }); err != nil {
		return nil, err
	}
	v, err := victims(ctx, t)
	if err != nil {
		return nil, err
	}
	conns := map[string]*pgx.Conn{}
	defer func() {
		for _, conn := range conns {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for _, name := range databaseNames {
		if conns[name], err = connect(ctx, t.Postgres, name, false); err != nil {
			return nil, err
		}
	}
	look := func(s *spoiler) (Report, error) {
		t.History = filepath.Join(dir, "history.jsonl")
		if err := v.write(t.History, s.histories()); err != nil {
			return Report{}, err
		}
		c := newCheck(t, adm, func(string, ...any) {})
		c.spoil, c.lent = s, conns
		return c.run(ctx)
	}
	r, err := look(nil)
	if err == nil && !r.Clean {
		for _, f := range r.Findings {
			for _, x := range f.Violations {
				return nil, fmt.Errorf("%w (%s, %s: %s)", errDirty, f.Name, x.Order, x.Detail)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	var trials []Trial
	for i, x := range corruptions {
		progress(fmt.Sprintf("%d of %d: %s", i+1, len(corruptions), x.what))
		trial := Trial{Corruption: x.what, Want: x.want}
		s, err := x.spoil(v)
		var r Report
		if err == nil {
			r, err = look(s)
		}
		switch {
		case errors.Is(err, errNoVictim):
			trial.Skipped = err.Error()
		case err != nil:
			return trials, fmt.Errorf("%s: %w", x.what, err)
		}
		for _, f := range r.Findings {
			if f.Violated > 0 {
				trial.Found = append(trial.Found, f.Name)
			}
		}
		trial.Caught = slices.Contains(trial.Found, x.want)
		trials = append(trials, trial)
	}
	return trials, nil
}

// victim names what is corrupted: orders that went different ways.
type victim struct {
	completed, other string // with items and e-mail, paid and delivered
	refunded         string // captured and given back
	attention        string // with an open ticket for its shipment
	orders           []orderRow
}

func victims(ctx context.Context, t Target) (*victim, error) {
	conn, err := connect(ctx, t.Postgres, orderDB, true)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, ordersSQL)
	if err != nil {
		return nil, fmt.Errorf("read database %s: %w", orderDB, err)
	}
	v := &victim{}
	if v.orders, err = pgx.CollectRows(rows, pgx.RowToStructByPos[orderRow]); err != nil {
		return nil, fmt.Errorf("read database %s: %w", orderDB, err)
	}
	for _, o := range v.orders {
		switch {
		case o.Status == "completed" && len(o.Products) > 0 && o.Email != "" && o.Key == nil && o.Shipment == 1:
			v.completed, v.other = o.ID, v.completed
		case o.Status == "cancelled" && o.Refund > 0 && o.Goods == "":
			v.refunded = o.ID
		case o.Status == "attention" && o.Reason == "shipping_failed":
			v.attention = o.ID
		}
	}
	return v, nil
}

// write makes the history of a load process that was told of every order.
func (v *victim) write(path string, more []history.Op) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	w, err := history.NewWriter(path)
	if err != nil {
		return err
	}
	for _, o := range v.orders {
		at := o.CreatedAt
		err = errors.Join(err, w.Append(history.Op{Op: history.Create, ID: o.ID, Sent: o.asks().Hash(), Invoke: at, Done: at, Type: history.OK, Status: 202}))
	}
	for _, op := range more {
		err = errors.Join(err, w.Append(op))
	}
	return errors.Join(err, w.Close())
}
