package usage

import (
	"errors"
	"os"
	"syscall"
)

// alive sends signal 0, which is only checked. A process of somebody else's answers
// with EPERM, and lives.
func alive(p *os.Process) bool {
	err := p.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, syscall.EPERM)
}
