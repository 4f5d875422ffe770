package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/nemesis"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/proxy"
)

// programs are those that run: a stack.Stack.
type programs interface {
	Names() []string
	Pids(name string) []int
	Signal(name string, sig syscall.Signal) ([]int, error)
}

// world is the stack as the nemesis sees it.
type world struct {
	stack   programs
	sandbox string // URL
	fabric  *fabric

	mu     sync.Mutex
	paused map[int]int // by pid, how many pauses hold it
}

var _ nemesis.World = (*world)(nil)

// upWithin is how long the nemesis waits for a process that was just killed to be there again.
const upWithin = 3 * time.Second

// running waits for the processes behind a name.
func (w *world) running(name string) ([]int, error) {
	for deadline := time.Now().Add(upWithin); ; {
		if pids := w.stack.Pids(name); len(pids) > 0 {
			return pids, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s does not run", name)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Kill is kill -9, of PostgreSQL's backends, too.
func (w *world) Kill(process string) (string, error) {
	if _, err := w.running(process); err != nil {
		return "", err
	}
	pids, err := w.stack.Signal(process, syscall.SIGKILL)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("pid %d", pids[0]), nil
}

// Pause is SIGSTOP, and SIGCONT when the last pause of the process is over.
func (w *world) Pause(process string) (func() error, string, error) {
	pids, err := w.running(process)
	if err != nil {
		return nil, "", err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return nil, "", fmt.Errorf("pause %s: %w", process, err)
		}
		w.paused[pid]++
	}
	return func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, pid := range pids {
			if w.paused[pid]--; w.paused[pid] > 0 {
				continue
			}
			delete(w.paused, pid)
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) { // it may have been killed
				return fmt.Errorf("resume %s: %w", process, err)
			}
		}
		return nil
	}, fmt.Sprintf("pid %d", pids[0]), nil
}

// Spoil puts a toxic on an edge.
func (w *world) Spoil(edge, id string, t proxy.Toxic) (func() error, error) {
	p, ok := w.fabric.proxies[edge]
	if !ok {
		return nil, fmt.Errorf("there is no edge %s", edge)
	}
	if err := p.Apply(id, t); err != nil {
		return nil, errors.Join(err, p.Remove(id))
	}
	return func() error { return p.Remove(id) }, nil
}

var outside = &http.Client{Timeout: 2 * time.Second}

// Disturb asks the sandbox, by its own address, until it answers.
func (w *world) Disturb(ctx context.Context, r nemesis.Rule) (func() error, error) {
	base := w.sandbox + "/faults"
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	for {
		id, err := postRule(ctx, base, body)
		if err == nil {
			return func() error { return deleteRule(base + "/" + id) }, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func postRule(ctx context.Context, url string, body []byte) (id string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := outside.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return "", err
	}
	var out struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(b, &out); err != nil || resp.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("the sandbox answers %s %s", resp.Status, b)
	}
	return out.ID, nil
}

// deleteRule takes a rule away. A sandbox that was killed has none, and one that does not
// answer will be killed or come back; heal clears what is left.
func deleteRule(url string) error {
	req, err := http.NewRequest(http.MethodDelete, url, nil)
	if err != nil {
		return err
	}
	if resp, err := outside.Do(req); err == nil {
		resp.Body.Close()
	}
	return nil
}

// Power kills everything at once, parts included.
func (w *world) Power() (string, error) {
	n := 0
	for _, name := range w.stack.Names() {
		if _, err := w.stack.Signal(name, syscall.SIGKILL); err == nil {
			n++
		}
	}
	if n == 0 {
		return "", errors.New("nothing runs")
	}
	return strconv.Itoa(n) + " programs", nil
}

// heal takes away every toxic and every fault of the sandbox.
func (w *world) heal(ctx context.Context) error {
	if err := w.fabric.heal(); err != nil {
		return err
	}
	base := w.sandbox + "/faults"
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodDelete, base, nil)
		if err != nil {
			return err
		}
		resp, err := outside.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusNoContent {
				return nil
			}
			err = fmt.Errorf("the sandbox answers %s", resp.Status)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("clear the sandbox's faults: %w", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
