package simulation

import (
	"fmt"
	"slices"
	"time"

	"github.com/waybill-dev/waybill/libs/event"
	"github.com/waybill-dev/waybill/scripts/simulation/internal/shipment"
)

// shipping is the shipping service.
type shipping struct {
	*node
	rows    map[shipment.Key]shipment.Shipment
	keys    []shipment.Key
	seq     map[string]int64
	due     map[shipment.Key]time.Duration
	parcels map[string]*parcel // the carrier's, by our key
	ledger  []entry
}

// parcel is what the carrier knows.
type parcel struct {
	status shipment.Status
	ends   shipment.Status
}

func (w *World) newShipping() *shipping {
	s := &shipping{rows: map[shipment.Key]shipment.Shipment{}, seq: map[string]int64{}, due: map[shipment.Key]time.Duration{}, parcels: map[string]*parcel{}}
	s.node = w.node("shipping", []string{event.Orders}, s.follow)
	s.node.begin = func() { s.every(50*time.Millisecond, 250*time.Millisecond, s.dispatch) }
	return s
}

// follow is the handler of the group.
func (s *shipping) follow(batch []event.Event) (out []event.Event) {
	for _, e := range batch {
		n := s.w.read(e)
		k := shipment.Key{OrderID: e.Subject, Attempt: int32(n.attempt)}
		switch {
		case e.Type == event.OrderPaymentProcessed && len(n.items) > 0:
			k.Attempt = 1
		case e.Type != event.OrderShippingRequested:
			continue
		}
		if _, known := s.rows[k]; known {
			continue
		}
		s.rows[k] = shipment.Shipment{Key: k, Status: shipment.Requested}
		s.keys = append(s.keys, k)
		s.due[k] = s.w.now
		out = append(out, s.event(event.ShippingRequested, k))
	}
	return out
}

func (s *shipping) event(t event.Type, k shipment.Key) event.Event {
	s.seq[k.OrderID]++
	return s.w.message(t, k.OrderID, s.seq[k.OrderID], note{attempt: int(k.Attempt)})
}

// apply takes in what the carrier says.
func (s *shipping) apply(r shipment.Report) {
	s.tx(func() (out []event.Event) {
		x := s.rows[r.Key]
		if x.Status.Final() || !r.Status.After(x.Status) {
			return nil
		}
		x.Status = r.Status
		s.rows[r.Key] = x
		switch s.due[r.Key] = s.w.now + 5*time.Second; x.Status {
		case shipment.Delivered:
			delete(s.due, r.Key)
			return []event.Event{s.event(event.ShippingCompleted, r.Key)}
		case shipment.Failed:
			delete(s.due, r.Key)
			return []event.Event{s.event(event.ShippingFailed, r.Key)}
		}
		return []event.Event{s.event(event.ShippingProgress, r.Key)}
	})
}

// dispatch calls the carrier for what is due: to accept it, or to ask where it is.
func (s *shipping) dispatch() {
	for _, k := range s.keys {
		if at, waits := s.due[k]; !waits || at > s.w.now {
			continue
		}
		var x shipment.Shipment
		if !s.tx(func() []event.Event {
			x = s.rows[k]
			x.Calls++
			s.rows[k] = x
			s.due[k] = s.w.now + 30*time.Second // the lease
			return nil
		}) {
			return
		}
		key := k.String()
		if s.w.flaws.ShipTwice {
			key = fmt.Sprintf("%s:%d", key, x.Calls)
		}
		ask := func() (any, bool) { return s.find(key) }
		if x.Status == shipment.Requested {
			ask = func() (any, bool) { return s.accept(key, k) }
		}
		heard := false
		s.w.call(s.node, nil, ask, func(answer any) {
			heard = true
			s.apply(shipment.Report{Key: k, Status: answer.(shipment.Status)})
		})
		s.after(5*time.Second, func() {
			if _, waits := s.due[k]; waits && !heard {
				s.due[k] = s.w.now + time.Second
			}
		})
	}
}

// accept is the carrier's.
func (s *shipping) accept(key string, k shipment.Key) (any, bool) {
	if p := s.parcels[key]; p != nil {
		return p.status, true
	}
	plan := s.w.plans[k.OrderID]
	if plan.carrierDown > 0 {
		plan.carrierDown--
		return nil, false
	}
	p := &parcel{shipment.Accepted, shipment.Delivered}
	s.parcels[key] = p
	if int(k.Attempt) <= plan.parcelsLost {
		p.ends = shipment.Failed
		if plan.refused {
			p.status = shipment.Failed
			return p.status, true
		}
	}
	s.ledger = append(s.ledger, entry{id: k.OrderID, kind: "ship"})
	for i, status := range []shipment.Status{shipment.InTransit, p.ends} {
		s.w.after(time.Duration(i+1)*s.w.between(50*time.Millisecond, time.Second), func() {
			if !status.After(p.status) {
				return
			}
			p.status = status
			if status == shipment.Delivered {
				s.ledger = append(s.ledger, entry{id: k.OrderID, kind: "deliver"})
			}
			s.report(k, status)
		})
	}
	return p.status, true
}

func (s *shipping) find(key string) (any, bool) {
	if p := s.parcels[key]; p != nil {
		return p.status, true
	}
	return nil, false
}

// report sends a webhook, or two, or none, and in any order.
func (s *shipping) report(k shipment.Key, status shipment.Status) {
	for range 2 {
		if !s.w.chance(s.w.bad.webhookLost) {
			s.w.after(s.w.between(0, 2*time.Second), func() {
				if s.step() {
					s.apply(shipment.Report{Key: k, Status: status})
				}
			})
		}
		if !s.w.chance(s.w.bad.double) {
			return
		}
	}
}

// shipped lists an order's parcels that the carrier has taken.
func (s *shipping) shipped(id string) (taken, delivered int) {
	for _, e := range s.ledger {
		if e.id == id && e.kind == "ship" {
			taken++
		}
		if e.id == id && e.kind == "deliver" {
			delivered++
		}
	}
	return taken, delivered
}

func (s *shipping) attempts(id string) (n int) {
	for _, k := range s.keys {
		if k.OrderID == id {
			n++
		}
	}
	return n
}

func (s *shipping) open() bool {
	return slices.ContainsFunc(s.keys, func(k shipment.Key) bool { return !s.rows[k].Status.Final() })
}
