//go:build unix && !linux

package supervise

import "syscall"

// attributes put a child into a process group of its own. Only Linux can stop it when
// we are gone; elsewhere the next "waybill up" does.
func attributes(syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
