package nemesis

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/proxy"
)

// World is what is broken.
type World interface {
	// Kill ends a process with SIGKILL, and says which it was.
	Kill(process string) (detail string, err error)
	// Pause stops a process until resume is called.
	Pause(process string) (resume func() error, detail string, err error)
	// Spoil puts a toxic on an edge until heal is called.
	Spoil(edge, id string, t proxy.Toxic) (heal func() error, err error)
	// Disturb asks the sandbox for a fault until settle is called.
	Disturb(ctx context.Context, r Rule) (settle func() error, err error)
	// Power kills everything at once.
	Power() (detail string, err error)
}

// Entry is a line of the log of a run.
type Entry struct {
	At      time.Time `json:"at"`
	Elapsed float64   `json:"elapsed"` // seconds of the monotonic clock since the load began
	Phase   string    `json:"phase"`   // begin or end
	Action  int       `json:"action"`  // its index in the schedule
	What    string    `json:"what"`
	Kind    Kind      `json:"kind"`
	Target  string    `json:"target,omitempty"`
	Set     string    `json:"set,omitempty"`
	Detail  string    `json:"detail,omitempty"`
	Error   string    `json:"error,omitempty"`
}

// Player plays a schedule.
type Player struct {
	world World
	log   io.Writer

	mu    sync.Mutex
	begin time.Time
	force map[int]Action
	done  map[Kind]int
	kills []time.Time
	err   error
}

// NewPlayer makes one that writes its entries to log, a JSON object a line.
func NewPlayer(world World, log io.Writer) *Player {
	return &Player{world: world, log: log, force: map[int]Action{}, done: map[Kind]int{}}
}

// disturbWithin bounds how long the sandbox is asked, for it may have been killed just now.
const disturbWithin = 5 * time.Second

// Play does what the schedule says, and undoes everything before it returns, when the
// schedule has been played or ctx has ended. The error is the first thing that could not be
// undone or logged; what could not be done is in the log and not counted.
func (p *Player) Play(ctx context.Context, s Schedule) error {
	p.mu.Lock()
	p.begin = time.Now()
	begin := p.begin
	p.mu.Unlock()
	end := time.Duration(s.Duration)
	ctx, cancel := context.WithDeadline(ctx, begin.Add(end))
	defer cancel()
	order := make([]int, len(s.Actions))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(s.Actions[a].At, s.Actions[b].At) })
	var under sync.WaitGroup
	for _, i := range order {
		a := s.Actions[i]
		if !sleep(ctx, time.Until(begin.Add(time.Duration(a.At)))) {
			break
		}
		under.Go(func() { p.play(ctx, i, a) })
	}
	sleep(ctx, time.Until(begin.Add(end)))
	under.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *Player) play(ctx context.Context, i int, a Action) {
	undo, detail, err := p.do(ctx, i, a)
	p.note("begin", i, a, detail, err)
	if err != nil {
		return
	}
	now := time.Now()
	p.mu.Lock()
	p.done[a.Kind]++
	if a.Kind == Kill || a.Kind == Power {
		p.kills = append(p.kills, now)
	}
	if undo != nil {
		p.force[i] = a
	}
	p.mu.Unlock()
	if undo == nil {
		return
	}
	sleep(ctx, time.Duration(a.For))
	err = undo()
	p.mu.Lock()
	delete(p.force, i)
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("undo %s: %w", a, err)
	}
	p.mu.Unlock()
	p.note("end", i, a, "", err)
}

func (p *Player) do(ctx context.Context, i int, a Action) (undo func() error, detail string, err error) {
	switch a.Kind {
	case Kill, Restart:
		detail, err = p.world.Kill(a.Target)
	case Pause:
		undo, detail, err = p.world.Pause(a.Target)
	case Network:
		undo, err = p.world.Spoil(a.Target, fmt.Sprint(i), *a.Toxic)
	case Outside:
		ctx, cancel := context.WithTimeout(ctx, min(disturbWithin, max(time.Duration(a.For), time.Second)))
		defer cancel()
		undo, err = p.world.Disturb(ctx, *a.Rule)
	case Power:
		detail, err = p.world.Power()
	default:
		err = fmt.Errorf("unknown kind %q", a.Kind)
	}
	return undo, detail, err
}

func (p *Player) note(phase string, i int, a Action, detail string, err error) {
	now := time.Now()
	e := Entry{At: now, Phase: phase, Action: i, What: a.String(), Kind: a.Kind, Target: a.Target, Set: a.Set, Detail: detail}
	if err != nil {
		e.Error = err.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e.Elapsed = now.Sub(p.begin).Seconds()
	b, err := json.Marshal(e)
	if err == nil {
		_, err = p.log.Write(append(b, '\n'))
	}
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("write the nemesis's log: %w", err)
	}
}

// InForce lists what is broken now.
func (p *Player) InForce() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, a := range p.force {
		all = append(all, a.String())
	}
	slices.Sort(all)
	return all
}

// Done counts what was done.
func (p *Player) Done() map[Kind]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := map[Kind]int{}
	for k, v := range p.done {
		n[k] = v
	}
	return n
}

// Kills are the moments at which processes were killed.
func (p *Player) Kills() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.kills)
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
