package stack

import (
	"fmt"
	"syscall"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/usage"
)

// Pids are the processes behind a name: one, or of PostgreSQL the whole tree. Empty where
// none runs.
func (s *Stack) Pids(name string) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == "postgres" && s.db != nil {
		if server := s.db.current(); server != nil && usage.Alive(server.PID()) {
			return usage.Tree(server.PID())
		}
		return nil
	}
	for _, m := range s.processes {
		if m.Name == name {
			if pid := m.PID(); pid != 0 {
				return []int{pid}
			}
		}
	}
	return nil
}

// Names lists what runs here, PostgreSQL included where it is ours.
func (s *Stack) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	if s.db != nil {
		names = append(names, "postgres")
	}
	for _, m := range s.processes {
		names = append(names, m.Name)
	}
	return names
}

// Restarts counts how often each was started again.
func (s *Stack) Restarts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[string]int{}
	for _, m := range s.processes {
		n[m.Name] = m.Restarts()
	}
	if s.db != nil {
		s.db.mu.Lock()
		n["postgres"] = s.db.restarts
		s.db.mu.Unlock()
	}
	return n
}

// ReadyURLs are where the processes say that they are ready.
func (s *Stack) ReadyURLs() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	urls := map[string]string{}
	for _, m := range s.processes {
		if m.readyURL != "" {
			urls[m.Name] = m.readyURL
		}
	}
	return urls
}

// Signal sends a signal to every process behind a name and returns their pids.
func (s *Stack) Signal(name string, sig syscall.Signal) ([]int, error) {
	pids := s.Pids(name)
	if len(pids) == 0 {
		return nil, fmt.Errorf("%s does not run", name)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && pid == pids[0] {
			return nil, fmt.Errorf("signal %s (pid %d): %w", name, pid, err)
		}
	}
	return pids, nil
}
