// Package live follows the timelines of orders for those who watch them. Events of an order may be applied by any replica, so
// the table is what is followed, not this process's own work: one query per 200 ms for all watched orders together, and
// none while nobody watches.
package live

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/services/order/internal/postgres"
)

const (
	// every is how often the table is read. People see no difference below; the database does.
	every = 200 * time.Millisecond
	// backlog is how many entries wait for a slow reader before it is given up: a whole timeline has about a dozen.
	backlog = 256
)

// Timelines reads entries after those that were seen.
type Timelines interface {
	After(ctx context.Context, ids []string, after []int64) ([]postgres.Line, error)
}

// Hub reads for all watchers.
type Hub struct {
	table Timelines
	log   *zap.Logger

	mu       sync.Mutex
	watchers map[*Watcher]struct{}
	perUser  map[string]int
}

// New makes a hub. It reads while Run runs.
func New(t Timelines, log *zap.Logger) *Hub {
	return &Hub{table: t, log: log, watchers: map[*Watcher]struct{}{}, perUser: map[string]int{}}
}

// Watcher is one reader of one timeline.
type Watcher struct {
	order, user string
	after       int64 // only the hub's reader changes it
	lines       chan postgres.Line
}

// Lines are the entries, in order. The channel is closed when the reader was too slow.
func (w *Watcher) Lines() <-chan postgres.Line { return w.lines }

// Watch follows an order's timeline after an entry. It returns nil where the user watches as many as allowed.
func (h *Hub) Watch(order, user string, after int64, allowed int) *Watcher {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.perUser[user] >= allowed {
		return nil
	}
	h.perUser[user]++
	w := &Watcher{order: order, user: user, after: after, lines: make(chan postgres.Line, backlog)}
	h.watchers[w] = struct{}{}
	return w
}

// Leave ends a watch.
func (h *Hub) Leave(w *Watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
	if h.perUser[w.user]--; h.perUser[w.user] <= 0 {
		delete(h.perUser, w.user)
	}
}

// Run reads until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := h.read(ctx); err != nil && ctx.Err() == nil {
			h.log.Warn("timelines not read", zap.Error(err)) // watchers wait, and miss nothing
		}
	}
}

func (h *Hub) read(ctx context.Context) error {
	h.mu.Lock()
	byOrder := make(map[string][]*Watcher, len(h.watchers))
	for w := range h.watchers {
		byOrder[w.order] = append(byOrder[w.order], w)
	}
	h.mu.Unlock()
	if len(byOrder) == 0 {
		return nil
	}
	ids, after := make([]string, 0, len(byOrder)), make([]int64, 0, len(byOrder))
	for id, ws := range byOrder {
		least := ws[0].after
		for _, w := range ws[1:] {
			least = min(least, w.after)
		}
		ids, after = append(ids, id), append(after, least)
	}
	lines, err := h.table.After(ctx, ids, after)
	if err != nil {
		return err
	}
	for _, l := range lines {
		for _, w := range byOrder[l.OrderID] {
			if l.ID <= w.after {
				continue
			}
			select {
			case w.lines <- l:
				w.after = l.ID
			default: // its connection stands still
				h.drop(w)
			}
		}
	}
	return nil
}

// drop closes a slow reader's channel and forgets it; its own Leave settles the rest.
func (h *Hub) drop(w *Watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, there := h.watchers[w]; there {
		delete(h.watchers, w)
		close(w.lines)
	}
	w.after = int64(^uint64(0) >> 1) // nothing more of this read
}
