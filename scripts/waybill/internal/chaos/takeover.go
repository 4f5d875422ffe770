package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/terminal"
)

// TakeOver is how long nobody did a dead or paused process's work, in seconds, sorted.
type TakeOver struct {
	KilledRelay    []float64 `json:"killed_relay_seconds"`
	PausedRelay    []float64 `json:"paused_relay_seconds"`
	KilledConsumer []float64 `json:"killed_consumer_seconds"`
}

// The promises of the issue, in seconds.
const (
	KilledRelayWithin    = 3
	PausedRelayWithin    = 8
	KilledConsumerWithin = 12
)

const (
	// takeOverWithin is when waiting is given up.
	takeOverWithin = time.Minute
	// pausedFor outlasts the 5 s after which a relay that is not seen loses its lock.
	pausedFor = 15 * time.Second
	// settleFor is between two measurements: a group has rebalanced by then.
	settleFor = 10 * time.Second
	lookEvery = 20 * time.Millisecond
)

// RunTakeOver measures, times over, how long it takes until another process does the work of
// one that was killed or paused, under load.
//
// A relay's ends when an event is published that was written after the kill; a consumer's
// when its group has committed, on every partition, past what was there a moment after the kill.
func RunTakeOver(ctx context.Context, o Options, times int, screen *terminal.Screen) (TakeOver, error) {
	var t TakeOver
	r, err := rig(ctx, o, "takeover", screen)
	if err != nil {
		return t, err
	}
	defer r.down()
	w := r.workload("x")
	if err := w.Prepare(ctx); err != nil {
		return t, fmt.Errorf("prepare the load: %w", err)
	}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	all.Go(func() { _ = w.Run(loading) })
	defer all.Wait()
	defer stop()
	measure := func(what string, into *[]float64, once func(context.Context) (float64, error)) error {
		step := screen.Step(what)
		defer step.Fail()
		for range times {
			pause(ctx, settleFor)
			seconds, err := once(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			*into = append(*into, seconds)
			step.Remark("%.2f s", seconds)
		}
		step.Done("%.2f", *into)
		slices.Sort(*into)
		return nil
	}
	err = errors.Join(
		measure("a killed relay", &t.KilledRelay, func(ctx context.Context) (float64, error) { return r.relayGone(ctx, false) }),
		measure("a paused relay", &t.PausedRelay, func(ctx context.Context) (float64, error) { return r.relayGone(ctx, true) }),
		measure("a killed consumer", &t.KilledConsumer, r.consumerGone),
	)
	return t, err
}

// relayGone kills or pauses the process that relays the order service's events.
func (r *run) relayGone(ctx context.Context, paused bool) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, takeOverWithin)
	defer cancel()
	conn, err := pgx.Connect(ctx, r.stack.Settings.Database("order"))
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var holder string
	if err := conn.QueryRow(ctx, `SELECT holder FROM relays WHERE name = 'outbox'`).Scan(&holder); err != nil {
		return 0, err
	}
	parts := strings.Split(holder, "/") // host/pid/id of the session
	if len(parts) != 3 {
		return 0, fmt.Errorf("the relay is held by %q", holder)
	}
	pid, err := strconv.Atoi(parts[1])
	if err != nil {
		return 0, err
	}
	ours := false
	for replica := range r.o.Replicas {
		name := "order"
		if replica > 0 {
			name = fmt.Sprintf("order-%d", replica+1)
		}
		ours = ours || slices.Contains(r.stack.Pids(name), pid)
	}
	if !ours {
		return 0, fmt.Errorf("the relay is held by process %d, which is none of ours", pid)
	}
	sig := syscall.SIGKILL
	if paused {
		sig = syscall.SIGSTOP
		defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	}
	var at time.Time
	if err := conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&at); err != nil {
		return 0, err
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return 0, err
	}
	begin := time.Now()
	for {
		var taken bool
		if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM relays WHERE name = 'outbox' AND holder <> $1)
			AND EXISTS (SELECT FROM outbox WHERE created_at > $2 AND published_at IS NOT NULL)`, holder, at).Scan(&taken); err != nil {
			return 0, err
		}
		if taken {
			took := time.Since(begin).Seconds()
			if paused {
				pause(ctx, pausedFor-time.Since(begin))
			}
			return took, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("no other relay within %v", takeOverWithin)
		case <-time.After(lookEvery):
		}
	}
}

// consumed is the group and topic whose member is killed.
const consumedBy = "payment-service"

// consumerGone kills one of the payment service's two processes.
func (r *run) consumerGone(ctx context.Context) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, takeOverWithin)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(r.stack.Settings.Parts.Kafka, ",")...))
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	if _, err := r.stack.Signal("payment", syscall.SIGKILL); err != nil {
		return 0, err
	}
	begin := time.Now()
	pause(ctx, time.Second) // records that nobody had before it
	ends, err := admin.ListEndOffsets(ctx, event.Orders)
	if err != nil {
		return 0, err
	}
	for {
		committed, err := admin.FetchOffsets(ctx, consumedBy)
		if err != nil {
			return 0, err
		}
		behind := 0
		ends.Each(func(end kadm.ListedOffset) {
			if at, ok := committed.Lookup(end.Topic, end.Partition); !ok || at.At < end.Offset {
				behind++
			}
		})
		if behind == 0 {
			return time.Since(begin).Seconds(), nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%d partitions had no consumer within %v", behind, takeOverWithin)
		case <-time.After(lookEvery):
		}
	}
}
