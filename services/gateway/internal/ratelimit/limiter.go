package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

const (
	// breakFor is how long Redis is not asked after it did not answer. Then one request asks, while the others go on without.
	breakFor = time.Second
	// A lease is a twentieth of the burst, taken at once and used up here, so that a busy principal costs a Redis call per 20th of its
	// burst and not per request. It lapses after leaseFor: what is hoarded is lost.
	leasePart = 20
	leaseFor  = time.Second
	// maxKeys bounds the memory of what is kept here; the least recently made half goes first.
	maxKeys = 20000
)

// quiet keeps go-redis from writing lines of its own to stderr: that Redis is away is said once, by breakOff.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func init() { redis.SetLogger(quiet{}) }

// NewRedis opens a client whose calls take at most timeout: what a limit may add to a request. It connects when it is first used.
func NewRedis(addr, password string, timeout time.Duration) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: addr, Password: password, DialTimeout: timeout, ReadTimeout: timeout, WriteTimeout: timeout,
		PoolTimeout: timeout, MaxRetries: -1, DialerRetries: 1, PoolSize: 32, ContextTimeoutEnabled: true,
	})
}

// Limiter decides by Redis, and alone while Redis is away.
type Limiter struct {
	redis     redis.UniversalClient
	replicas  int64
	log       *zap.Logger
	now       func() time.Time
	brokenTil atomic.Int64 // unix nanoseconds; 0: Redis answers
	decisions *prometheus.CounterVec

	mu     sync.Mutex
	alone  generations[int64] // TAT by key
	leases generations[lease]
	asking map[string]chan struct{} // closed when the lease of that key is there
}

type lease struct {
	left  int
	until time.Time
	last  Decision
}

// New makes a limiter for a gateway that is one of replicas.
func New(client redis.UniversalClient, replicas int, log *zap.Logger, registry prometheus.Registerer) *Limiter {
	l := &Limiter{redis: client, replicas: int64(max(replicas, 1)), log: log, now: time.Now,
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "waybill_gateway_ratelimit_decisions_total",
			Help: "Decisions by policy, by who made them (redis, lease, alone) and how.",
		}, []string{"policy", "by", "allowed"})}
	registry.MustRegister(l.decisions)
	return l
}

// Take asks the budget of key for one request.
func (l *Limiter) Take(ctx context.Context, p Policy, key string) Decision {
	return l.take(ctx, p, key, 1)
}

// GiveBack returns what Take took.
func (l *Limiter) GiveBack(ctx context.Context, p Policy, key string) { l.take(ctx, p, key, -1) }

func (l *Limiter) take(ctx context.Context, p Policy, key string, cost int64) Decision {
	d, by := Decision{}, "redis"
	var err error
	if l.broken() {
		err = errBroken
	} else if d, err = l.ask(ctx, p, key, cost); err != nil {
		l.breakOff(ctx, err)
	}
	if err != nil {
		d, by = l.decideAlone(p, key, cost), "alone"
	}
	l.count(p, by, d)
	return d
}

// TakeLeased is Take by way of a lease: the budget is as exact, but for what a lease holds (a twentieth of the burst and gateway). A refusal
// is remembered until its Retry, because until then nothing can change it: whoever asks without end costs Redis nothing.
//
// One caller at a time takes a lease of a key, the others wait for it: a lease each would take twenty times what it gives.
func (l *Limiter) TakeLeased(ctx context.Context, p Policy, key string) Decision {
	id := p.Name + ":" + key
	for {
		d, leased, asked := l.fromLease(id)
		if leased {
			l.count(p, "lease", d)
			return d
		}
		if asked == nil {
			break
		}
		select {
		case <-asked:
		case <-ctx.Done():
			return Decision{} // nobody waits for it
		}
	}
	defer l.asked(id)
	now, part := l.now(), max(p.Burst/leasePart, 1)
	d := l.take(ctx, p, key, int64(part))
	if !d.Allowed && part > 1 {
		part = 1
		d = l.take(ctx, p, key, 1) // the last ones go one by one
	}
	held := lease{left: part - 1, until: now.Add(leaseFor), last: d}
	if !d.Allowed {
		held = lease{until: now.Add(d.Retry), last: d}
	}
	l.mu.Lock()
	l.leases.put(id, held)
	l.mu.Unlock()
	d.Remaining += held.left
	return d
}

// fromLease decides by the lease, if there is one. Otherwise the caller is the one to ask for it, or gets who to wait for.
func (l *Limiter) fromLease(id string) (d Decision, leased bool, asked <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held, _ := l.leases.get(id)
	wait := held.until.Sub(l.now())
	d = held.last
	switch {
	case wait > 0 && !d.Allowed:
		d.Reset -= d.Retry - wait
		d.Retry = wait
		return d, true, nil
	case wait > 0 && held.left > 0:
		held.left--
		l.leases.put(id, held)
		d.Remaining += held.left
		return d, true, nil
	}
	if other, ok := l.asking[id]; ok {
		return d, false, other
	}
	if l.asking == nil {
		l.asking = map[string]chan struct{}{}
	}
	l.asking[id] = make(chan struct{})
	return d, false, nil
}

func (l *Limiter) asked(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.asking[id])
	delete(l.asking, id)
}

var errBroken = errors.New("redis was away a moment ago")

// broken says whether to decide without Redis. When its time is up, one caller is told to try.
func (l *Limiter) broken() bool {
	til, now := l.brokenTil.Load(), l.now()
	switch {
	case til == 0:
		return false
	case now.UnixNano() < til:
		return true
	}
	return !l.brokenTil.CompareAndSwap(til, now.Add(breakFor).UnixNano())
}

func (l *Limiter) breakOff(ctx context.Context, err error) {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return // the client has gone, which says nothing about Redis
	}
	l.brokenTil.Store(l.now().Add(breakFor).UnixNano())
	l.log.Warn("redis is away, limits are decided here", zap.Error(err))
}

func (l *Limiter) ask(ctx context.Context, p Policy, key string, cost int64) (Decision, error) {
	interval := p.Interval.Microseconds()
	v, err := script.Run(ctx, l.redis, []string{"limit:" + p.Name + ":" + key}, interval, p.Burst, cost).Slice()
	if err != nil {
		return Decision{}, err
	}
	if len(v) != 3 {
		return Decision{}, fmt.Errorf("limit script answers %d values", len(v))
	}
	allowed, _ := v[0].(int64)
	tat, err1 := parse(v[1])
	now, err2 := parse(v[2])
	if err := errors.Join(err1, err2); err != nil {
		return Decision{}, err
	}
	d := Decision{Allowed: allowed == 1, Reset: micros(tat - now), Remaining: remaining(tat, now, interval, int64(p.Burst))}
	if !d.Allowed {
		d.Retry = micros(tat + cost*interval - int64(p.Burst)*interval - now)
	}
	l.brokenTil.Store(0)
	return d, nil
}

func parse(v any) (int64, error) {
	s, _ := v.(string)
	return strconv.ParseInt(s, 10, 64)
}

// decideAlone is the share of this gateway.
func (l *Limiter) decideAlone(p Policy, key string, cost int64) Decision {
	share := l.replicas
	if p.Strict {
		share *= 2
	}
	interval, burst := p.Interval.Microseconds()*share, max(int64(p.Burst)/share, 1)
	cost = min(cost, burst)
	id := p.Name + ":" + key
	l.mu.Lock()
	defer l.mu.Unlock()
	tat, _ := l.alone.get(id)
	next, d := decide(tat, l.now().UnixMicro(), interval, burst, cost)
	l.alone.put(id, next)
	return d
}

func (l *Limiter) count(p Policy, by string, d Decision) {
	l.decisions.WithLabelValues(p.Name, by, strconv.FormatBool(d.Allowed)).Inc()
}

// generations is a bounded map: when the young one is full, the old one is dropped. Dropping a budget makes it whole, which an attacker
// with 10,000 addresses could have had anyhow.
type generations[V any] struct{ young, old map[string]V }

func (g *generations[V]) get(key string) (V, bool) {
	v, ok := g.young[key]
	if !ok {
		v, ok = g.old[key]
	}
	return v, ok
}

func (g *generations[V]) put(key string, v V) {
	if g.young == nil || len(g.young) >= maxKeys/2 {
		if _, ok := g.young[key]; !ok {
			g.old, g.young = g.young, map[string]V{}
		}
	}
	g.young[key] = v
}
