// Package load places many orders through the gateway and measures how they get on.
//
// Completion is seen on the topic of the order service, with one consumer for all
// orders: that costs the platform one more reader, where a stream or a poll per order
// would cost more than the order itself. A measured latency therefore ends when the
// event of the end has arrived here, some milliseconds after the order's commit.
package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/libs/event"
	orderv1 "github.com/waybill-dev/waybill/proto/gen/waybill/order/v1"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/client"
)

// Options say what to place.
type Options struct {
	Client *client.Client
	// Stock is the account that creates the products.
	Stock   *client.Client
	Brokers []string

	Products int
	// InFlight bounds the orders between POST and end: the closed loop's size.
	InFlight int
	// Connections bounds the POSTs at once.
	Connections int
	// Rate, where set, places that many orders a second whether or not earlier ones
	// have ended (up to InFlight); latency then counts from the intended moment.
	Rate float64
	// Declined is the share, in percent, of orders that the provider declines.
	Declined         float64
	Warmup, Duration time.Duration
	// Mark is called when the measured time begins and when it ends.
	Mark func(begin bool)
	// Progress is told once a second.
	Progress func(ended int, perSecond float64)
}

// Result is what was measured.
type Result struct {
	Ended     int            `json:"ended"` // within the measured time
	Seconds   float64        `json:"seconds"`
	PerSecond float64        `json:"orders_per_second"`
	ByStatus  map[string]int `json:"by_status"`
	Refused   map[string]int `json:"refused"` // answers to POST other than 202
	P50       float64        `json:"p50_ms"`
	P90       float64        `json:"p90_ms"`
	P99       float64        `json:"p99_ms"`
	Max       float64        `json:"max_ms"`
	PostP50   float64        `json:"post_p50_ms"`
	PostP99   float64        `json:"post_p99_ms"`
	Open      int            `json:"open"` // not ended when the time to drain was over
	DrainedIn float64        `json:"drained_in_seconds"`
}

// drainWithin is how long orders may take to end after the last was placed.
const drainWithin = 30 * time.Second

// Price of every product of a benchmark; two different ones make an order.
const (
	amount = "20.00"
)

// stockPerProduct is more than any run takes.
const stockPerProduct = 1_000_000

func productID(i int) string { return fmt.Sprintf("bench-%05d", i) }

// Prepare creates the products where they are missing or running out.
func Prepare(ctx context.Context, o Options) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range o.Products {
		g.Go(func() error {
			id := productID(i)
			p, err := o.Stock.Product(ctx, id)
			var problem *client.Problem
			switch {
			case errors.As(err, &problem) && problem.Status == http.StatusNotFound:
				err = o.Stock.Do(ctx, http.MethodPut, "/products/"+id, map[string]any{"name": "Benchmark " + strconv.Itoa(i), "price": 10.00, "currency": "EUR"}, nil)
			case err == nil && p.Available > stockPerProduct/2:
				return nil
			}
			if err != nil {
				return fmt.Errorf("create product %s: %w", id, err)
			}
			err = o.Stock.Once(ctx, http.MethodPost, "/inventory/restock", id+"-"+strconv.FormatInt(time.Now().UnixNano(), 36), map[string]any{"product_id": id, "quantity": stockPerProduct, "reason": "benchmark"}, nil)
			if err != nil {
				return fmt.Errorf("restock product %s: %w", id, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// run is the state of a measurement.
type run struct {
	o      Options
	prefix string
	slots  chan struct{} // a token per order in flight

	mu       sync.Mutex
	open     map[string]begun
	begin    time.Time // of the measured time; zero before
	over     bool
	latency  []float64
	post     []float64
	byStatus map[string]int
	refused  map[string]int
	ended    int
	total    atomic.Int64
}

type begun struct {
	at       time.Time
	measured bool
}

// Run places orders for Warmup and Duration, then waits for those that are under way.
func Run(ctx context.Context, o Options) (Result, error) {
	r := &run{
		o: o, prefix: "bench-" + strconv.FormatInt(time.Now().UnixNano(), 36) + "-",
		slots: make(chan struct{}, o.InFlight), open: map[string]begun{},
		byStatus: map[string]int{}, refused: map[string]int{},
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watching, err := r.watch(ctx, cancel)
	if err != nil {
		return Result{}, err
	}
	defer watching.Wait()
	defer cancel(nil)

	placing, stop := context.WithCancel(ctx)
	defer stop()
	var posts sync.WaitGroup
	orders := make(chan order)
	for range o.Connections {
		posts.Go(func() { r.place(ctx, orders) })
	}
	posts.Go(func() { defer close(orders); r.schedule(placing, orders) })

	if err := sleep(ctx, o.Warmup); err != nil {
		return Result{}, err
	}
	o.Mark(true)
	r.mu.Lock()
	r.begin = time.Now()
	r.mu.Unlock()
	if err := r.measure(ctx); err != nil {
		return Result{}, err
	}
	r.mu.Lock()
	r.over = true
	seconds := time.Since(r.begin).Seconds()
	r.mu.Unlock()
	o.Mark(false)
	stop()
	posts.Wait()
	drained := r.drain(ctx)
	return r.result(seconds, drained), ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// measure lets the measured time pass and reports once a second.
func (r *run) measure(ctx context.Context) error {
	last := r.total.Load()
	for left := r.o.Duration; left > 0; left -= time.Second {
		if err := sleep(ctx, min(left, time.Second)); err != nil {
			return err
		}
		now := r.total.Load()
		if r.o.Progress != nil {
			r.o.Progress(int(now), float64(now-last))
		}
		last = now
	}
	return nil
}

type order struct {
	id string
	at time.Time // when it should be placed
}

// schedule hands out orders: in the closed loop one for each that has ended, at a rate
// one per tick of the clock.
func (r *run) schedule(ctx context.Context, out chan<- order) {
	start := time.Now()
	for n := 0; ; n++ {
		at := time.Now()
		if r.o.Rate > 0 {
			at = start.Add(time.Duration(float64(n) / r.o.Rate * float64(time.Second)))
			if sleep(ctx, time.Until(at)) != nil {
				return
			}
		}
		select {
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		if r.o.Rate == 0 {
			at = time.Now()
		}
		select {
		case out <- order{r.prefix + strconv.Itoa(n), at}:
		case <-ctx.Done():
			<-r.slots // nobody places this one
			return
		}
	}
}

func (r *run) place(ctx context.Context, orders <-chan order) {
	address := &client.Address{Name: "B. Ench", Line1: "1 Main St", City: "Berlin", PostalCode: "10115", Country: "DE"}
	for o := range orders {
		first := rand.IntN(r.o.Products)
		second := (first + 1 + rand.IntN(r.o.Products-1)) % r.o.Products
		method := "card"
		if rand.Float64()*100 < r.o.Declined {
			method = "card_declined"
		}
		r.mu.Lock()
		r.open[o.id] = begun{o.at, !r.begin.IsZero() && !r.over}
		r.mu.Unlock()
		sent := time.Now()
		_, err := r.o.Client.Place(ctx, client.NewOrder{
			OrderID: o.id, Amount: amount, Currency: "EUR", PaymentMethod: method, Email: "bench@example.com", Address: address,
			Items: []client.Item{{ProductID: productID(first), Quantity: 1}, {ProductID: productID(second), Quantity: 1}},
		})
		took := time.Since(sent)
		if err == nil {
			r.mu.Lock()
			if !r.begin.IsZero() && !r.over {
				r.post = append(r.post, took.Seconds()*1000)
			}
			r.mu.Unlock()
			continue
		}
		if ctx.Err() != nil {
			return
		}
		why := "no answer"
		var p *client.Problem
		if errors.As(err, &p) {
			why = fmt.Sprintf("%d %s", p.Status, p.Slug())
		}
		r.mu.Lock()
		r.refused[why]++
		_, open := r.open[o.id]
		delete(r.open, o.id)
		r.mu.Unlock()
		if open {
			<-r.slots
		}
		// What refuses now will do so in a millisecond, too.
		_ = sleep(ctx, 50*time.Millisecond)
	}
}

// ends are the events after which an order does nothing by itself.
var ends = map[string]string{
	string(event.OrderCompleted): "completed", string(event.OrderCancelled): "cancelled",
	string(event.OrderFailed): "failed", string(event.OrderAttention): "attention",
}

// watch consumes the topic of the order service from its end.
func (r *run) watch(ctx context.Context, cancel context.CancelCauseFunc) (*sync.WaitGroup, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.o.Brokers...), kgo.ConsumeTopics(event.Orders),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.FetchMaxWait(200*time.Millisecond))
	if err != nil {
		return nil, err
	}
	// The end is looked up with the first poll: what is placed before that would be
	// missed.
	first, stop := context.WithTimeout(ctx, 500*time.Millisecond)
	cl.PollFetches(first)
	stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cl.Close()
		for ctx.Err() == nil {
			fetches := cl.PollFetches(ctx)
			if err := fetches.Err0(); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("read the topic %s: %w", event.Orders, err))
				return
			}
			now := time.Now()
			fetches.EachRecord(func(rec *kgo.Record) { r.see(rec, now) })
		}
	})
	return &wg, nil
}

func (r *run) see(rec *kgo.Record, now time.Time) {
	for _, h := range rec.Headers {
		if h.Key != "ce_type" {
			continue
		}
		status, end := ends[string(h.Value)]
		if !end {
			return
		}
		r.mu.Lock()
		o, known := r.open[string(rec.Key)]
		if known {
			delete(r.open, string(rec.Key))
			r.total.Add(1)
			if !r.begin.IsZero() && !r.over {
				r.ended++
				r.byStatus[strings.TrimSpace(status+" "+reason(string(h.Value), rec.Value))]++
			}
			if o.measured {
				r.latency = append(r.latency, now.Sub(o.at).Seconds()*1000)
			}
		}
		r.mu.Unlock()
		if known {
			<-r.slots
		}
		return
	}
}

// reason is why an order did not complete: nobody can work on "37 failed".
func reason(typ string, value []byte) string {
	var m interface {
		proto.Message
		GetReason() string
	}
	switch event.Type(typ) {
	case event.OrderCancelled:
		m = &orderv1.OrderCancelled{}
	case event.OrderFailed:
		m = &orderv1.OrderFailed{}
	case event.OrderAttention:
		m = &orderv1.OrderAttention{}
	default:
		return ""
	}
	if err := proto.Unmarshal(value, m); err != nil {
		return err.Error()
	}
	return m.GetReason()
}

func (r *run) drain(ctx context.Context) time.Duration {
	begin := time.Now()
	for time.Since(begin) < drainWithin && len(r.slots) > 0 {
		if sleep(ctx, 10*time.Millisecond) != nil {
			break
		}
	}
	return time.Since(begin)
}

func (r *run) result(seconds float64, drained time.Duration) Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(r.latency)
	slices.Sort(r.post)
	return Result{
		Ended: r.ended, Seconds: seconds, PerSecond: float64(r.ended) / seconds,
		ByStatus: maps.Clone(r.byStatus), Refused: maps.Clone(r.refused),
		P50: Quantile(r.latency, 0.5), P90: Quantile(r.latency, 0.9), P99: Quantile(r.latency, 0.99), Max: Quantile(r.latency, 1),
		PostP50: Quantile(r.post, 0.5), PostP99: Quantile(r.post, 0.99),
		Open: len(r.open), DrainedIn: drained.Seconds(),
	}
}

// Quantile of sorted values, by nearest rank; 0 where there are none.
func Quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := int(q*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
