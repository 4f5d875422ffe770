package postgres

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/problem"
)

const (
	// patience is how long a request waits for a database that is away: the time of a restart or of a fail-over's first half.
	patience   = 2 * time.Second
	firstPause = 25 * time.Millisecond
)

// Patiently runs f again with exponential backoff while the database is away, for 2 s in all. After that the error says
// that the service is unavailable. f must be repeatable: a commit whose answer was lost may have happened.
func Patiently(ctx context.Context, f func(ctx context.Context) error) error {
	deadline := time.Now().Add(patience)
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	for pause := firstPause; ; pause *= 2 {
		err := f(ctx)
		if err == nil || !pg.Retryable(err) {
			return err
		}
		wait := pause/2 + rand.N(pause)
		if time.Now().Add(wait).After(deadline) {
			return problem.Unavailable().Because(err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return problem.Unavailable().Because(err)
		}
	}
}
