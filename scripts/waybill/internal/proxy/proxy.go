package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// dialWithin is less than any caller's patience for a connection (the gateway's 2 s).
const dialWithin = time.Second

// Proxy listens for one caller and connects it to one of the callees.
type Proxy struct {
	// Name of the edge.
	Name string
	// Addr is where it listens.
	Addr string

	wrap func(callee net.Conn) net.Conn

	mu       sync.Mutex
	toxics   map[string]Toxic
	callees  []string
	next     int
	listener net.Listener
	links    map[*link]context.CancelFunc
	state    atomic.Pointer[condition]

	ctx  context.Context
	stop context.CancelFunc
	done sync.WaitGroup
}

// Option changes what Listen makes.
type Option func(*Proxy)

// Listen opens a proxy on an address of its own.
func Listen(name, addr string, callees []string, options ...Option) (*Proxy, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("proxy of %s: %w", name, err)
	}
	p := &Proxy{
		Name: name, Addr: l.Addr().String(), wrap: func(c net.Conn) net.Conn { return c },
		toxics: map[string]Toxic{}, callees: slices.Clone(callees), listener: l, links: map[*link]context.CancelFunc{},
	}
	for _, o := range options {
		o(p)
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.state.Store(&condition{since: time.Now(), changed: make(chan struct{})})
	p.done.Go(func() { p.accept(l) })
	return p, nil
}

func (p *Proxy) condition() *condition { return p.state.Load() }

// Apply adds a toxic under an id, in the place of one that has it already.
func (p *Proxy) Apply(id string, t Toxic) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.toxics[id] = t
	return p.change()
}

// Remove takes a toxic away.
func (p *Proxy) Remove(id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.toxics, id)
	return p.change()
}

// Heal takes all toxics away.
func (p *Proxy) Heal() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.toxics)
	return p.change()
}

// change puts what toxics says in force.
func (p *Proxy) change() error {
	c := &condition{since: time.Now(), requests: mix(p.toxics, Requests), responses: mix(p.toxics, Responses), changed: make(chan struct{})}
	old := p.state.Swap(c)
	close(old.changed)
	switch {
	case c.requests.Down && p.listener != nil:
		_ = p.listener.Close()
		p.listener = nil
		for _, end := range p.links {
			end()
		}
	case !c.requests.Down && p.listener == nil && p.ctx.Err() == nil:
		return p.listen()
	}
	return nil
}

// listen opens the listener again. Its port is given to nobody by chance where it lies below
// the kernel's range for outgoing connections; connections that were just reset may hold it
// for a moment.
func (p *Proxy) listen() error {
	for deadline := time.Now().Add(2 * time.Second); ; {
		l, err := net.Listen("tcp", p.Addr)
		if err == nil {
			p.listener = l
			p.done.Go(func() { p.accept(l) })
			return nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(deadline) {
			return fmt.Errorf("proxy of %s: %w", p.Name, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (p *Proxy) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) || p.ctx.Err() != nil {
			return
		}
		if err != nil { // no descriptors, say
			time.Sleep(10 * time.Millisecond)
			continue
		}
		p.done.Go(func() { p.serve(c) })
	}
}

func (p *Proxy) serve(caller net.Conn) {
	// In a black hole the first packet is lost, too: the callee hears of it later, if at all.
	for c := p.condition(); c.requests.Blackhole || c.responses.Blackhole; c = p.condition() {
		select {
		case <-c.changed:
		case <-p.ctx.Done():
			reset(caller)
			return
		}
	}
	callee, err := p.dial()
	if err != nil {
		reset(caller)
		return
	}
	l := &link{edge: p, caller: caller, callee: p.wrap(callee)}
	ctx, end := context.WithCancel(p.ctx)
	defer end()
	p.mu.Lock()
	if p.listener == nil {
		end()
	}
	p.links[l] = end
	p.mu.Unlock()
	l.run(ctx)
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// dial tries the callees in turn, each connection beginning with the next.
func (p *Proxy) dial() (net.Conn, error) {
	p.mu.Lock()
	first := p.next
	p.next++
	callees := p.callees
	p.mu.Unlock()
	var errs []error
	for i := range callees {
		c, err := net.DialTimeout("tcp", callees[(first+i)%len(callees)], dialWithin)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// Connections counts those that are open.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Close ends the proxy and all its connections.
func (p *Proxy) Close() {
	p.stop()
	p.mu.Lock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	p.mu.Unlock()
	p.done.Wait()
}
