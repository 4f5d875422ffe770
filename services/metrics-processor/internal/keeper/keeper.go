// Package keeper brings the topics into the aggregator, and the aggregator into the database, so that a record is in the
// windows exactly once whenever the process is killed.
//
// A batch of records is recorded and saved, with the offsets after it, in one transaction; only then is it acknowledged to the
// broker. A process that is killed in between gets the records again and finds in the database that it has them. Between batches
// the windows are saved each second for what is pushed over HTTP and StatsD; of that, what comes after the last save is lost
// with the process, and the counts of accepted samples, which lie in a mapped file, tell how much it was.
package keeper

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/platform"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/postgres"
)

const (
	// every is how often windows are saved and the watermark moves.
	every = time.Second
	// share is the part of the time that saving may take: with many series a snapshot is tens of megabytes.
	share = 4
)

// Keeper is the one writer of the database.
type Keeper struct {
	a        *aggregate.Aggregator
	store    *postgres.Store // nil: windows are in memory only
	recorder *platform.Recorder
	log      *zap.Logger

	mu       sync.Mutex                   // what is recorded and not saved must not be saved without its offsets
	recorded map[postgres.Partition]int64 // the next record to record
	saved    map[postgres.Partition]int64 // what the database says
	last     time.Time
	took     time.Duration
}

// New makes a keeper.
func New(a *aggregate.Aggregator, store *postgres.Store, recorder *platform.Recorder, log *zap.Logger) *Keeper {
	return &Keeper{a: a, store: store, recorder: recorder, log: log, recorded: map[postgres.Partition]int64{}, saved: map[postgres.Partition]int64{}}
}

// Consume records and saves a batch. An error means that it must come again; what was recorded is not recorded twice.
func (k *Keeper) Consume(ctx context.Context, batch []stream.Message) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for _, m := range batch {
		p := postgres.Partition{Topic: m.Topic, Number: m.Partition}
		if next, ok := k.recorded[p]; !ok || m.Offset != next {
			if err := k.catchUp(ctx, p, m.Offset); err != nil {
				return err
			}
		}
		if m.Offset < k.recorded[p] {
			continue
		}
		k.recorder.Record(m, now)
		k.recorded[p] = m.Offset + 1
	}
	return k.save(ctx)
}

// catchUp asks the database where a partition goes on: this process has just begun, or another had the partition meanwhile.
func (k *Keeper) catchUp(ctx context.Context, p postgres.Partition, offset int64) error {
	if k.store == nil {
		if _, ok := k.recorded[p]; !ok {
			k.recorded[p] = offset
		}
		return nil
	}
	next, ok, err := k.store.Next(ctx, p)
	if err != nil {
		return err
	}
	if !ok {
		next = min(offset, 0)
	}
	if known, recorded := k.recorded[p]; !recorded || next > known {
		k.recorded[p] = next
	}
	k.saved[p] = next
	return nil
}

func (k *Keeper) save(ctx context.Context) error {
	if k.store == nil {
		return nil
	}
	moves := map[postgres.Partition]postgres.Move{}
	for p, next := range k.recorded {
		if next != k.saved[p] {
			moves[p] = postgres.Move{From: k.saved[p], To: next}
		}
	}
	began := time.Now()
	if err := k.store.Save(ctx, k.a, moves); err != nil {
		return err
	}
	for p, m := range moves {
		k.saved[p] = m.To
	}
	k.last, k.took = time.Now(), time.Since(began)
	return nil
}

// Run moves the watermark and saves, each second, until ctx ends; then it saves once more.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			k.a.Advance()
			k.mu.Lock()
			due := time.Since(k.last) >= max(every-every/10, share*k.took)
			if due {
				if err := k.save(ctx); err != nil && ctx.Err() == nil {
					k.log.Warn("windows not saved", zap.Error(err))
				}
			}
			k.mu.Unlock()
		case <-ctx.Done():
			k.mu.Lock()
			defer k.mu.Unlock()
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := k.save(ctx); err != nil {
				return fmt.Errorf("save windows at the end: %w", err)
			}
			return nil
		}
	}
}

// Healthy is an error while windows cannot be saved.
func (k *Keeper) Healthy(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.store != nil && !k.last.IsZero() && time.Since(k.last) > 10*every+share*k.took {
		return fmt.Errorf("windows were last saved %v ago", time.Since(k.last).Round(time.Second))
	}
	return nil
}
