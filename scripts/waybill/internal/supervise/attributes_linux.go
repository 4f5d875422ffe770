package supervise

import "syscall"

// attributes put a child into a process group of its own, because Ctrl-C is for us to
// pass on in order, and have the kernel stop it when we are gone without a word.
func attributes(quit syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: quit}
}
