package pg

import (
	"context"
	"errors"
	"io"
	"net"
	"os"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/waybill-dev/waybill/libs/problem"
)

// The classes of SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html) decide who acts on an error:
// the unit itself (conflict), time (Retryable), a person (Permanent).

// conflict says that the unit lost against another one and only has to run again.
func conflict(err error) bool {
	switch state(err) {
	case "40001", "40P01":
		return true
	}
	return false
}

// UniqueViolation says that a row with this key was there already (23505), and names the constraint.
func UniqueViolation(err error) (constraint string, ok bool) {
	var e *pgconn.PgError
	if errors.As(err, &e) && e.Code == "23505" {
		return e.ConstraintName, true
	}
	return "", false
}

// A client hears of a database that is away, or of work that lost against others each time, as 503.
func init() {
	problem.Classify(func(err error) *problem.Problem {
		if Retryable(err) {
			return problem.Unavailable()
		}
		return nil
	})
}

// Retryable says that the same work may succeed later: conflicts, time-outs, and whatever makes the database Unavailable.
func Retryable(err error) bool { return conflict(err) || Unavailable(err) }

// Unavailable says that the database cannot be used now: connection lost or refused (class 08 and the network), out of
// resources (53), shutting down or cancelled by an operator or a time-out (57), lock not available in time (55P03),
// thrown out while idle in a transaction (25P03), read-only standby (25006).
func Unavailable(err error) bool {
	if err == nil {
		return false
	}
	if s := state(err); s != "" {
		switch s[:2] {
		case "08", "53", "57", "58":
			return true
		}
		return s == "55P03" || s == "25P03" || s == "25006"
	}
	var netErr net.Error
	var connect *pgconn.ConnectError
	return errors.As(err, &netErr) || errors.As(err, &connect) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		err.Error() == "conn closed" || pgconn.Timeout(err)
}

// Permanent says that the same work fails each time: the data does not fit (class 22) or breaks a constraint (class 23).
// A unique violation may also be a race that was lost; on its second run the unit sees what it lost to.
func Permanent(err error) bool {
	if s := state(err); s != "" {
		return s[:2] == "22" || s[:2] == "23"
	}
	return false
}

func state(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) && len(e.Code) == 5 {
		return e.Code
	}
	return ""
}
