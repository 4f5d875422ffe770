package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/waybill-dev/waybill/libs/testkit/postgres"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/usage"
)

// Stop asks the stack on a data directory to stop and waits until it has.
func Stop(ctx context.Context, data string) error {
	s, err := Load(data)
	if err != nil {
		return err
	}
	if err := syscall.Kill(s.PID, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop `waybill up` (pid %d): %w", s.PID, err)
	}
	// Three stages of at most stopGrace each, and PostgreSQL's checkpoint.
	ctx, cancel := context.WithTimeout(ctx, 4*stopGrace)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for usage.Alive(s.PID) && locked(data) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("`waybill up` (pid %d) has not stopped: %w", s.PID, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// made lists what a stack writes into its data directory. What else lies there is
// somebody else's.
var made = []string{"apache-kafka", "bin", "kafka", "keys", "logs", "postgres", "sandbox", "secrets.json", "state.json", "lock"}

// Remove deletes what stacks have written into a data directory, and the directory
// itself where nothing else is in it. It refuses one that was not made by Up.
func Remove(data string) error {
	if _, err := os.Stat(data); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if _, err := os.Stat(filepath.Join(data, "lock")); err != nil {
		return fmt.Errorf("%s is no data directory of waybill and is left alone: %w", data, err)
	}
	f, err := lock(data)
	if err != nil {
		return err
	}
	defer f.Close()
	// Where root started it, PostgreSQL's data may lie elsewhere.
	if dir, err := postgres.Place(filepath.Join(data, "postgres")); err == nil {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	for _, name := range made {
		if err := os.RemoveAll(filepath.Join(data, name)); err != nil {
			return err
		}
	}
	_ = os.Remove(data) // unless there is something else in it
	return nil
}
