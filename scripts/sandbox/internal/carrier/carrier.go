// Package carrier is a carrier: it accepts parcels under keys that the caller chooses, moves them in steps, and delivers
// or loses them. What happens is said by the city, see Create.
package carrier

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/waybill-dev/waybill/scripts/sandbox/internal/ledger"
)

// States of a parcel.
const (
	Accepted  = "accepted"
	InTransit = "in_transit"
	Delivered = "delivered"
	Failed    = "failed"
)

// ErrDown is a carrier that cannot be used now. Nothing happened.
var ErrDown = errors.New("the carrier is down")

// ErrRefused is a parcel that the carrier will never take.
var ErrRefused = errors.New("the carrier does not deliver there")

// ErrKeyReused is a key that was used before for another order or attempt.
var ErrKeyReused = errors.New("key used before with other contents")

// delayed is how many requests for the city Delayed are answered ErrDown.
const delayed = 2

// Reasons of a failure.
const (
	reasonRefused = "address_refused"
	reasonLost    = "parcel_lost"
)

// Step is a line of a parcel's history.
type Step struct {
	At     time.Time `json:"at"`
	Status string    `json:"status"`
	Detail string    `json:"detail"`
}

// Parcel is what the carrier says of a parcel.
type Parcel struct {
	Tracking string `json:"tracking"`
	Key      string `json:"key"`
	OrderID  string `json:"order_id"`
	Attempt  int    `json:"attempt"`
	Status   string `json:"status"`
	Reason   string `json:"reason"`
	Steps    []Step `json:"steps,omitempty"`
}

// parcel is what memory keeps, about 200 bytes with its map entry.
type parcel struct {
	order   string
	status  string
	attempt int
	lost    bool
	at      [3]int64 // accepted, in transit, ended: Unix milliseconds
}

type step struct {
	due time.Time
	key string
}

// Carrier is the carrier's books and its vans. It is safe for concurrent use.
type Carrier struct {
	pace   time.Duration
	report func(Parcel)

	mu       sync.Mutex
	ledger   *ledger.Ledger
	parcels  map[string]*parcel
	refused  map[string]*parcel
	attempts map[string]int
	queue    []step // by due: each step takes the same time
	wake     chan struct{}
}

// New makes an empty carrier whose steps take pace. report hears of each step; it must not block.
func New(pace time.Duration, report func(Parcel)) *Carrier {
	return &Carrier{
		pace: pace, report: report,
		parcels: map[string]*parcel{}, refused: map[string]*parcel{}, attempts: map[string]int{},
		wake: make(chan struct{}, 1),
	}
}

// Use sets the ledger that is written from now on, and puts what is under way back on its way.
func (c *Carrier) Use(l *ledger.Ledger) {
	c.ledger = l
	for key, p := range c.parcels {
		if !p.ended() {
			c.plan(key)
		}
	}
}

// Replay applies a fact of the ledger.
func (c *Carrier) Replay(e ledger.Entry) {
	ms := e.At.UnixMilli()
	switch e.Kind {
	case ledger.ShipAttempt:
		c.attempts[e.Key]++
	case ledger.Refuse:
		c.refused[e.Key] = &parcel{order: e.OrderID, attempt: e.Attempt, status: Failed, at: [3]int64{2: ms}}
	case ledger.Ship:
		delete(c.attempts, e.Key)
		c.parcels[e.Key] = &parcel{order: e.OrderID, attempt: e.Attempt, lost: e.Lost, status: Accepted, at: [3]int64{ms}}
	case ledger.Transit:
		p := c.parcels[e.Key]
		p.status, p.at[1] = InTransit, ms
	case ledger.Deliver:
		p := c.parcels[e.Key]
		p.status, p.at[2] = Delivered, ms
	case ledger.ShipFailed:
		p := c.parcels[e.Key]
		p.status, p.at[2] = Failed, ms
	}
}

// Request asks for a parcel to be taken.
type Request struct {
	Key     string
	OrderID string
	Attempt int
	City    string
}

// Create takes the parcel. The city Nowhere is refused for good, Delayed is answered ErrDown twice, a parcel to Lost is
// taken and lost. outcome ("refused", "lost") asks for that whatever the city.
func (c *Carrier) Create(r Request, outcome string) (Parcel, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.find(r.Key); ok {
		if p.order != r.OrderID || p.attempt != r.Attempt {
			return Parcel{}, ErrKeyReused
		}
		if c.refused[r.Key] != nil {
			return Parcel{}, ErrRefused
		}
		return p.answer(r.Key), nil
	}
	now := time.Now().UTC()
	e := ledger.Entry{At: now, Kind: ledger.Ship, Key: r.Key, OrderID: r.OrderID, Attempt: r.Attempt}
	p := &parcel{order: r.OrderID, attempt: r.Attempt, status: Accepted, at: [3]int64{now.UnixMilli()}}
	switch {
	case outcome == "refused", r.City == "Nowhere":
		e.Kind = ledger.Refuse
		if err := c.ledger.Append(e); err != nil {
			return Parcel{}, err
		}
		p.status, p.at = Failed, [3]int64{2: now.UnixMilli()}
		c.refused[r.Key] = p
		return Parcel{}, ErrRefused
	case r.City == "Delayed" && c.attempts[r.Key] < delayed:
		e.Kind = ledger.ShipAttempt
		if err := c.ledger.Append(e); err != nil {
			return Parcel{}, err
		}
		c.attempts[r.Key]++
		return Parcel{}, ErrDown
	case outcome == "lost", r.City == "Lost":
		e.Lost, p.lost = true, true
	}
	if err := c.ledger.Append(e); err != nil {
		return Parcel{}, err
	}
	delete(c.attempts, r.Key)
	c.parcels[r.Key] = p
	c.plan(r.Key)
	return p.answer(r.Key), nil
}

// Find returns the parcel under the key with its history, if the key was ever seen.
func (c *Carrier) Find(key string) (Parcel, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.find(key)
	if !ok {
		return Parcel{}, false
	}
	out := p.answer(key)
	for i, status := range []string{Accepted, InTransit, p.status} {
		if p.at[i] != 0 {
			out.Steps = append(out.Steps, Step{At: time.UnixMilli(p.at[i]).UTC(), Status: status, Detail: detail[status]})
		}
	}
	return out, true
}

var detail = map[string]string{
	Accepted: "parcel accepted", InTransit: "parcel on its way", Delivered: "parcel delivered", Failed: "parcel will not be delivered",
}

func (c *Carrier) find(key string) (*parcel, bool) {
	if p, ok := c.parcels[key]; ok {
		return p, true
	}
	p, ok := c.refused[key]
	return p, ok
}

// plan queues the parcel's next step. The caller holds mu.
func (c *Carrier) plan(key string) {
	c.queue = append(c.queue, step{due: time.Now().Add(c.pace), key: key})
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run moves the parcels until ctx ends.
func (c *Carrier) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-c.wake:
		}
		next, err := c.move()
		if err != nil {
			return err
		}
		timer.Reset(next)
	}
}

// idle is how long the vans rest where nothing waits; a new parcel wakes them.
const idle = time.Hour

// move takes every parcel whose time has come one step further and says when the next is due.
func (c *Carrier) move() (time.Duration, error) {
	c.mu.Lock()
	now := time.Now().UTC()
	var es []ledger.Entry
	var moved []Parcel
	n := 0
	for ; n < len(c.queue) && !c.queue[n].due.After(now); n++ {
		key := c.queue[n].key
		p := c.parcels[key]
		es = append(es, c.advance(key, p, now)...)
		moved = append(moved, p.answer(key))
		if !p.ended() {
			c.plan(key)
		}
	}
	c.queue = c.queue[n:]
	err := c.ledger.Append(es...)
	next := idle
	if len(c.queue) > 0 {
		next = time.Until(c.queue[0].due)
	}
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	for _, p := range moved {
		c.report(p)
	}
	return next, nil
}

// advance moves p one step, or with a pace of nought all the way, and returns the facts.
func (c *Carrier) advance(key string, p *parcel, now time.Time) []ledger.Entry {
	e := ledger.Entry{At: now, Key: key, OrderID: p.order, Attempt: p.attempt}
	var es []ledger.Entry
	if p.status == Accepted {
		p.status, p.at[1] = InTransit, now.UnixMilli()
		e.Kind = ledger.Transit
		es = append(es, e)
		if c.pace > 0 {
			return es
		}
	}
	p.status, p.at[2], e.Kind = Delivered, now.UnixMilli(), ledger.Deliver
	if p.lost {
		p.status, e.Kind, e.Reason = Failed, ledger.ShipFailed, reasonLost
	}
	return append(es, e)
}

func (p *parcel) ended() bool { return p.status == Delivered || p.status == Failed }

func (p *parcel) answer(key string) Parcel {
	out := Parcel{Tracking: tracking(key), Key: key, OrderID: p.order, Attempt: p.attempt, Status: p.status}
	if p.status == Failed {
		out.Reason = reasonRefused
		if p.lost {
			out.Reason = reasonLost
		}
	}
	return out
}

// tracking derives a parcel's number from its key, so that memory and file need not keep it.
func tracking(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "WB" + strings.ToUpper(hex.EncodeToString(sum[:6]))
}
