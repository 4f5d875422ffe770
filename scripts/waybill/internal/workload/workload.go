package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/client"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/history"
)

// Options say how much and where.
type Options struct {
	Gateway string // URL
	History *history.Writer
	// Rate is how many new orders are placed a second. They are half of all that is done.
	Rate float64
	Seed uint64
	// Prefix begins every id.
	Prefix string
	// Stock is what each product begins with.
	Stock int
}

const (
	// patience is what a client waits for an answer.
	patience = 10 * time.Second
	// insist is how often a create without an answer is sent again, with twice the wait of
	// the time before from firstWait on: half a minute in all.
	insist    = 6
	firstWait = 500 * time.Millisecond
	// atOnce bounds the operations under way: an outage of 10 s at 100 a second.
	atOnce = 1000
	// recent orders are what retries, reads and cancellations are about.
	recent = 500
	// restocked is what a merchant brings at once: at 4 restocks per 100 orders about as much as
	// is paid for, so that products run out for a while, and every order with one is refused.
	restocked = 80
)

// shopper is a user.
type shopper struct {
	*client.Client
	tenant int
	name   string
}

func (s *shopper) caller() string { return strconv.Itoa(s.tenant) + "/" + s.name }

// Workload is what runs.
type Workload struct {
	o     Options
	ranks ranks

	customers          []*shopper
	merchant, operator *shopper

	slots chan struct{}
	next  atomic.Int64

	mu      sync.Mutex
	recent  []*placed // known to be accepted, the last ones
	counts  Counts
	latency []float64 // of creates that were answered, in ms
	err     error
}

// Counts is what was done so far.
type Counts struct {
	Orders   int64 `json:"orders"`   // asked for
	Accepted int64 `json:"accepted"` // 202 at last
	Unknown  int64 `json:"unknown"`  // never answered
	Refused  int64 `json:"refused"`
	// Ops by kind and answer, such as "create 202", "create -" for none.
	Ops map[string]int64 `json:"ops"`
	// Replayed answers carried Idempotent-Replayed.
	Replayed int64 `json:"replayed"`
	// Skipped operations found too many others under way.
	Skipped int64 `json:"skipped"`
	Flying  int   `json:"-"`
}

// New makes a workload. Nothing is sent yet.
func New(o Options) *Workload {
	transport := &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second}
	h := &http.Client{Transport: transport, Timeout: patience}
	user := func(tenant int, name string) *shopper {
		return &shopper{Client: &client.Client{Base: o.Gateway, User: name, Password: "password", HTTP: h}, tenant: tenant, name: name}
	}
	w := &Workload{o: o, ranks: newRanks(), slots: make(chan struct{}, atOnce), counts: Counts{Ops: map[string]int64{}}}
	w.customers = []*shopper{user(1, "customer"), user(1, "customer"), user(1, "admin"), user(2, "customer2")}
	w.merchant, w.operator = user(1, "merchant"), user(1, "operator")
	return w
}

// shopper is mostly the customer; one in twenty orders belongs to another tenant.
func (w *Workload) shopper(rnd *rand.Rand) *shopper {
	switch n := rnd.IntN(100); {
	case n < 5:
		return w.customers[3]
	case n < 15:
		return w.customers[2]
	default:
		return w.customers[n%2]
	}
}

// Prepare logs everybody in and fills the shelves. It insists for a minute.
func (w *Workload) Prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, s := range append(slices.Clone(w.customers), w.merchant, w.operator) {
		for {
			_, err := s.Token(ctx)
			if err == nil {
				break
			}
			if !sleep(ctx, time.Second) {
				return fmt.Errorf("log in as %s: %w", s.name, err)
			}
		}
	}
	for i := range products {
		body := raw(map[string]any{"name": "Chaos " + strconv.Itoa(i+1), "price": decimal(price(i)), "currency": "EUR"})
		if op := w.insist(ctx, w.merchant, history.Op{Op: history.Settings, ID: productID(i)}, http.MethodPut, "/products/"+productID(i), body); op.Type != history.OK {
			return fmt.Errorf("make product %s: %d %s", productID(i), op.Status, op.Problem)
		}
		if op := w.restock(ctx, i, w.o.Prefix+"stock-"+strconv.Itoa(i+1), w.o.Stock); op.Type != history.OK {
			return fmt.Errorf("stock product %s: %d %s", productID(i), op.Status, op.Problem)
		}
	}
	return nil
}

func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of plain values
	}
	return b
}

func (w *Workload) restock(ctx context.Context, product int, document string, quantity int) history.Op {
	body := raw(map[string]any{"product_id": productID(product), "quantity": quantity, "reason": "delivery"})
	return w.insist(ctx, w.merchant, history.Op{Op: history.Restock, ID: document, Key: document}, http.MethodPost, "/inventory/restock", body)
}

// Run does everything in its share until ctx ends, and returns when all of it has been
// answered or given up. The error is that of the history.
func (w *Workload) Run(ctx context.Context) error {
	rnd := rand.New(rand.NewPCG(w.o.Seed, 1))
	lasting := context.WithoutCancel(ctx)
	var all sync.WaitGroup
	begin := time.Now()
	for n := 0; ; n++ {
		// Half of the operations are creates, so there are twice as many.
		at := begin.Add(time.Duration(float64(n) / (2 * w.o.Rate) * float64(time.Second)))
		if !sleep(ctx, time.Until(at)) {
			break
		}
		op, own := w.draw(rnd), rand.New(rand.NewPCG(w.o.Seed, uint64(n)+2))
		select {
		case w.slots <- struct{}{}:
		default:
			w.mu.Lock()
			w.counts.Skipped++
			w.mu.Unlock()
			continue
		}
		all.Go(func() {
			defer func() { <-w.slots }()
			op(lasting, own)
		})
	}
	all.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// draw picks an operation by RELIABILITY's mix.
func (w *Workload) draw(rnd *rand.Rand) func(context.Context, *rand.Rand) {
	switch n := rnd.IntN(1000); {
	case n < 500:
		return w.create
	case n < 650:
		return w.again
	case n < 670:
		return w.other
	case n < 770:
		return w.cancel
	case n < 970:
		return w.read
	case n < 990:
		return w.deliver
	default:
		return w.decide
	}
}

// Poisoned is how the ids of orders end that a database may be told to refuse.
const Poisoned = "-poison"

// poisoned is one in so many orders: less than the 20 a minute at which a consumer stops.
const poisoned = 300

func (w *Workload) newID(rnd *rand.Rand) string {
	id := w.o.Prefix + strconv.FormatInt(w.next.Add(1), 10)
	if rnd.IntN(poisoned) == 0 {
		id += Poisoned
	}
	return id
}

// create places a new order; one in twenty shoppers clicks twice.
func (w *Workload) create(ctx context.Context, rnd *rand.Rand) {
	p := w.newOrder(rnd, w.newID(rnd), w.shopper(rnd))
	w.mu.Lock()
	w.counts.Orders++
	w.mu.Unlock()
	var twice sync.WaitGroup
	if rnd.IntN(20) == 0 {
		twice.Go(func() { w.place(ctx, p, p.key, p.body, p.order) })
	}
	begin, wait := time.Now(), firstWait
	for try := 0; ; try++ {
		op := w.place(ctx, p, p.key, p.body, p.order)
		if op.Type != history.Info || try == insist {
			w.mu.Lock()
			switch op.Type {
			case history.OK:
				w.counts.Accepted++
				w.latency = append(w.latency, time.Since(begin).Seconds()*1000)
				if w.recent = append(w.recent, p); len(w.recent) > recent {
					w.recent = w.recent[1:]
				}
			case history.Fail:
				w.counts.Refused++
			default:
				w.counts.Unknown++
			}
			w.mu.Unlock()
			break
		}
		sleep(ctx, wait/2+rand.N(wait))
		wait *= 2
	}
	twice.Wait()
}

// PlaceOnce places a new order and does not insist.
func (w *Workload) PlaceOnce(ctx context.Context) history.Op {
	rnd := rand.New(rand.NewPCG(w.o.Seed, uint64(w.next.Load())))
	p := w.newOrder(rnd, w.newID(rnd), w.shopper(rnd))
	return w.place(ctx, p, p.key, p.body, p.order)
}

// Admin is a client that may do everything.
func (w *Workload) Admin() *client.Client { return w.customers[2].Client }

func (w *Workload) place(ctx context.Context, p *placed, key string, body json.RawMessage, o history.Order) history.Op {
	return w.do(ctx, p.shopper, history.Op{Op: history.Create, ID: p.id, Key: key, Sent: o.Hash()}, http.MethodPost, "/orders", body)
}

// some order that was accepted; nil before there is one.
func (w *Workload) some(rnd *rand.Rand) *placed {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.recent) == 0 {
		return nil
	}
	// The younger, the likelier: half of them are among the last tenth.
	n := len(w.recent)
	if rnd.IntN(2) == 0 {
		n = max(n/10, 1)
	}
	return w.recent[len(w.recent)-1-rnd.IntN(n)]
}

// again sends an order a second time: the same answer must come.
func (w *Workload) again(ctx context.Context, rnd *rand.Rand) {
	if p := w.some(rnd); p != nil {
		w.place(ctx, p, p.key, p.body, p.order)
	}
}

// other sends another order under a key or an id that is taken: 422, or 409.
func (w *Workload) other(ctx context.Context, rnd *rand.Rand) {
	p := w.some(rnd)
	if p == nil {
		return
	}
	body, order := p.otherBody()
	key := p.key
	if rnd.IntN(2) == 0 {
		key = "other-" + strconv.FormatInt(w.next.Add(1), 10)
	}
	w.place(ctx, p, key, body, order)
}

// cancel places an order and thinks better of it within 5 s.
func (w *Workload) cancel(ctx context.Context, rnd *rand.Rand) {
	p := w.some(rnd)
	if p == nil {
		return
	}
	// The youngest, for those of yesterday are paid.
	w.mu.Lock()
	p = w.recent[len(w.recent)-1]
	w.mu.Unlock()
	sleep(ctx, time.Duration(rnd.Int64N(int64(5*time.Second))>>rnd.IntN(8)))
	w.insist(ctx, p.shopper, history.Op{Op: history.Cancel, ID: p.id, Key: "cancel-" + p.id}, http.MethodPost, "/orders/"+p.id+"/cancel", nil)
}

// sessions are readers who must never see an order go back.
const sessions = 16

func (w *Workload) read(ctx context.Context, rnd *rand.Rand) {
	p := w.some(rnd)
	if p == nil {
		return
	}
	w.do(ctx, p.shopper, history.Op{Op: history.Get, ID: p.id, Session: "reader-" + strconv.Itoa(rnd.IntN(sessions))}, http.MethodGet, "/orders/"+p.id, nil)
}

func (w *Workload) deliver(ctx context.Context, rnd *rand.Rand) {
	w.restock(ctx, w.ranks.draw(rnd), w.o.Prefix+"stock-"+strconv.FormatInt(w.next.Add(1), 10), restocked)
}

// insist sends until there is an answer, as a create does.
func (w *Workload) insist(ctx context.Context, s *shopper, op history.Op, method, path string, body json.RawMessage) history.Op {
	wait := firstWait
	for try := 0; ; try++ {
		done := w.do(ctx, s, op, method, path, body)
		if done.Type != history.Info || try == insist {
			return done
		}
		sleep(ctx, wait/2+rand.N(wait))
		wait *= 2
	}
}

// do sends one request and writes down what came of it.
func (w *Workload) do(ctx context.Context, s *shopper, op history.Op, method, path string, body json.RawMessage) history.Op {
	op.Caller = s.caller()
	if op.Sent == "" && body != nil {
		op.Sent = history.BodyHash(body)
	}
	var header http.Header
	if op.Key != "" {
		header = http.Header{"Idempotency-Key": {op.Key}}
	}
	var in any
	if body != nil {
		in = body
	}
	op.Invoke = time.Now()
	resp, err := s.Open(ctx, method, path, header, in)
	var answer []byte
	if err == nil {
		answer, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		resp.Body.Close()
	}
	op.Done = time.Now()
	var refused *client.Problem
	switch {
	case err == nil:
		op.Status, op.BodyHash, op.Replayed = resp.StatusCode, history.BodyHash(answer), resp.Header.Get("Idempotent-Replayed") != ""
		if op.Status >= 400 {
			var p client.Problem
			_ = json.Unmarshal(answer, &p)
			op.Problem = p.Slug()
		} else if op.Op == history.Get {
			var o client.Order
			_ = json.Unmarshal(answer, &o)
			op.Seen = len(o.Timeline)
		}
	case errors.As(err, &refused): // the login, without which nothing was sent
		op.Problem = "login: " + refused.Slug()
	}
	op.Type = history.TypeOf(op.Status)
	if op.Status == http.StatusUnauthorized || op.Status == http.StatusForbidden { // a token that has just run out, twice
		op.Type = history.Info
	}
	w.write(op)
	return op
}

func (w *Workload) write(op history.Op) {
	err := w.o.History.Append(op)
	answer := "-"
	if op.Status != 0 {
		answer = strconv.Itoa(op.Status)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts.Ops[string(op.Op)+" "+answer]++
	if op.Replayed {
		w.counts.Replayed++
	}
	if err != nil && w.err == nil {
		w.err = err
	}
}

// decide is what an operator does: a ticket is closed, or what is parked is tried again.
func (w *Workload) decide(ctx context.Context, rnd *rand.Rand) {
	if rnd.IntN(4) == 0 {
		_, _ = w.Redrive(ctx)
		return
	}
	var list struct {
		Items []client.Order `json:"items"`
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := w.operator.Do(ctx, http.MethodGet, "/orders?status=attention&limit=50", nil, &list); err != nil || len(list.Items) == 0 {
		return
	}
	o := list.Items[rnd.IntN(len(list.Items))]
	decision := map[string]any{"reason": "decided under chaos", "goods": []string{"returned", "lost"}[rnd.IntN(2)]}
	switch n := rnd.IntN(10); {
	case n < 5 && o.Reason == "shipping_failed":
		decision["action"], decision["goods"] = "resend", "returned"
		decision["address"] = client.Address{Name: "C. Haos", Line1: "1 Main St", City: "Berlin", PostalCode: "10115", Country: "DE"}
	case n < 8:
		decision["action"] = "refund"
	default:
		decision["action"] = "write_off"
	}
	if len(o.Items) == 0 {
		delete(decision, "goods")
	}
	w.insist(ctx, w.operator, history.Op{Op: history.Resolve, ID: o.OrderID, Key: fmt.Sprintf("resolve-%s-%d", o.OrderID, w.next.Add(1))},
		http.MethodPost, "/orders/"+o.OrderID+"/resolve", raw(decision))
}

// Consumers are the services that can have interventions.
var Consumers = []string{"order", "payment", "inventory", "shipping", "notification", "analytics"}

// Redrive tries again what is parked, everywhere, and says how much of it was tried. What
// services cannot decide themselves (tickets) is not among it. The error is that of a service
// that could not be asked.
func (w *Workload) Redrive(ctx context.Context) (tried int, err error) {
	var errs []error
	for _, service := range Consumers {
		var list struct {
			Items []struct {
				ID   string `json:"id"`
				Kind string `json:"kind"`
			} `json:"items"`
		}
		if err := w.operator.Do(ctx, http.MethodGet, "/interventions/"+service+"?status=open&limit=100", nil, &list); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, x := range list.Items {
			if x.Kind != "poison" && x.Kind != "gap" && x.Kind != "dead_letter" {
				continue
			}
			tried++
			w.do(ctx, w.operator, history.Op{Op: history.Redrive, ID: x.ID}, http.MethodPost,
				"/interventions/"+service+"/"+url.PathEscape(x.ID)+"/redrive", raw(map[string]any{"force": true, "reason": "redriven under chaos"}))
		}
	}
	return tried, errors.Join(errs...)
}

// Counts is what was done so far.
func (w *Workload) Counts() Counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.counts
	c.Ops = maps.Clone(c.Ops)
	c.Flying = len(w.slots)
	return c
}

// Latency is how long creates took until they were accepted, retries included, sorted, in ms.
func (w *Workload) Latency() []float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := slices.Clone(w.latency)
	slices.Sort(l)
	return l
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
