package oracle

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"
)

// database is one service's database, as it was at one moment.
type database struct {
	name string
	conn *pgx.Conn
	tx   pgx.Tx

	cursors int
}

// Names of the databases that are read. The gateway's and the metrics processor's hold nothing about orders.
const (
	orderDB        = "order"
	paymentDB      = "payment"
	inventoryDB    = "inventory"
	shippingDB     = "shipping"
	notificationDB = "notification"
	analyticsDB    = "analytics"
)

var databaseNames = []string{orderDB, paymentDB, inventoryDB, shippingDB, notificationDB, analyticsDB}

// connect opens a connection to a service's database. Sessions are read-only unless they are to be spoilt.
func connect(ctx context.Context, address, name string, readOnly bool) (*pgx.Conn, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("not a PostgreSQL URL") // the cause may show the password
	}
	u.Path = "/" + name
	config, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, errors.New("not a PostgreSQL URL")
	}
	config.ConnectTimeout = 5 * time.Second
	config.RuntimeParams["application_name"] = "waybill verify"
	config.RuntimeParams["timezone"] = "UTC"
	config.RuntimeParams["jit"] = "off" // dear to compile, and each statement runs once
	if readOnly {
		config.RuntimeParams["default_transaction_read_only"] = "on"
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to database %s: %w", name, err)
	}
	return conn, nil
}

// snapshot opens every database, each in a transaction that sees one moment. Whatever spoil does to one is rolled back.
func (c *check) snapshot(ctx context.Context) (err error) {
	c.db = map[string]*database{}
	for _, name := range databaseNames {
		conn := c.lent[name]
		if conn == nil {
			if conn, err = connect(ctx, c.target.Postgres, name, c.spoil == nil); err != nil {
				return err
			}
		}
		d := &database{name: name, conn: conn}
		c.db[name] = d
		if d.tx, err = conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}); err != nil {
			return fmt.Errorf("read database %s: %w", name, err)
		}
		if err := c.spoil.database(ctx, d); err != nil {
			return fmt.Errorf("spoil database %s: %w", name, err)
		}
		// Consumers that publish nothing have no outbox.
		var publishes bool
		if err := d.tx.QueryRow(ctx, `SELECT to_regclass('outbox') IS NOT NULL, now()`).Scan(&publishes, &c.now); err != nil {
			return fmt.Errorf("read database %s: %w", name, err)
		}
		if !publishes {
			continue
		}
		var last int64
		if err := d.tx.QueryRow(ctx, `SELECT coalesce(max(id), 0) FROM outbox`).Scan(&last); err != nil {
			return fmt.Errorf("read database %s: %w", name, err)
		}
		c.last[name] = last
	}
	return nil
}

// release ends the transactions without a change.
func (c *check) release() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, d := range c.db {
		if d.tx != nil {
			_ = d.tx.Rollback(ctx)
		}
		if c.lent[d.name] == nil {
			_ = d.conn.Close(ctx)
		}
	}
	c.db = nil
}

// page is how many rows a cursor fetches at a time.
const page = 2000

// cursor reads the rows of a query in turn, a page at a time, so that several can be read side by side over one connection.
type cursor[T any] struct {
	db    *database
	name  string
	rows  []T
	ended bool
}

// declare begins a query. T's fields stand in the order of its columns.
func declare[T any](ctx context.Context, d *database, sql string, args ...any) (*cursor[T], error) {
	d.cursors++
	name := fmt.Sprintf("c%d", d.cursors)
	if _, err := d.tx.Exec(ctx, "DECLARE "+name+" NO SCROLL CURSOR FOR "+sql, args...); err != nil {
		return nil, fmt.Errorf("read database %s: %w", d.name, err)
	}
	return &cursor[T]{db: d, name: name}, nil
}

// head is the next row; nil after the last.
func (c *cursor[T]) head(ctx context.Context) (*T, error) {
	if len(c.rows) == 0 && !c.ended {
		rows, err := c.db.tx.Query(ctx, fmt.Sprintf("FETCH FORWARD %d FROM %s", page, c.name))
		if err == nil {
			c.rows, err = pgx.CollectRows(rows, pgx.RowToStructByPos[T])
		}
		if err != nil {
			return nil, fmt.Errorf("read database %s: %w", c.db.name, err)
		}
		if c.ended = len(c.rows) < page; c.ended {
			if _, err := c.db.tx.Exec(ctx, "CLOSE "+c.name); err != nil {
				return nil, fmt.Errorf("read database %s: %w", c.db.name, err)
			}
		}
	}
	if len(c.rows) == 0 {
		return nil, nil
	}
	return &c.rows[0], nil
}

func (c *cursor[T]) skip() { c.rows = c.rows[1:] }

// each reads a query to its end.
func each[T any](ctx context.Context, d *database, f func(*T) error, sql string, args ...any) error {
	c, err := declare[T](ctx, d, sql, args...)
	if err != nil {
		return err
	}
	for {
		row, err := c.head(ctx)
		if err != nil || row == nil {
			return err
		}
		if err := f(row); err != nil {
			return err
		}
		c.skip()
	}
}

// all reads a query whose result is small.
func all[T any](ctx context.Context, d *database, sql string, args ...any) ([]T, error) {
	rows, err := d.tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("read database %s: %w", d.name, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	if err != nil {
		return nil, fmt.Errorf("read database %s: %w", d.name, err)
	}
	return found, nil
}
