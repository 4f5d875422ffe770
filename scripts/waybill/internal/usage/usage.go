// Package usage reads from /proc what processes take: proportional memory, processor
// time, children. Elsewhere than on Linux it knows nothing and says so.
package usage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrUnknown says that this system does not tell.
var ErrUnknown = errors.New("not known on this system")

// tick is the unit of /proc/<pid>/stat: USER_HZ, 100 on every Linux that Go runs on.
const tick = time.Second / 100

// PSS is a process's proportional share of memory in bytes: what it has alone plus
// its part of what it shares. Only these can be added up.
func PSS(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, ErrUnknown
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, ErrUnknown
}

type stat struct {
	parent int
	cpu    time.Duration // own
	reaped time.Duration // of children that ended and were waited for
	start  int64
}

func read(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, ErrUnknown
	}
	// The name, in brackets, may hold spaces and brackets.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return stat{}, ErrUnknown
	}
	f := strings.Fields(string(b[i+1:]))
	if len(f) < 20 {
		return stat{}, ErrUnknown
	}
	n := func(i int) int64 { v, _ := strconv.ParseInt(f[i], 10, 64); return v }
	// f[0] is field 3 of proc(5): 4 ppid, 14 utime, 15 stime, 16 cutime, 17 cstime, 22 starttime.
	return stat{parent: int(n(1)), cpu: time.Duration(n(11)+n(12)) * tick, reaped: time.Duration(n(13)+n(14)) * tick, start: n(19)}, nil
}

// Tree is a process and all its descendants, the process first.
func Tree(pid int) []int {
	children := map[int][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		child, _ := strconv.Atoi(filepath.Base(dir))
		if s, err := read(child); err == nil {
			children[s.parent] = append(children[s.parent], child)
		}
	}
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree
}

// Of adds up a process and, with tree, its descendants: PostgreSQL is a process per
// connection. Processor time includes descendants that have ended since.
func Of(pid int, tree bool) (pss int64, cpu time.Duration, err error) {
	pids := []int{pid}
	if tree {
		pids = Tree(pid)
	}
	for i, p := range pids {
		m, perr := PSS(p)
		s, serr := read(p)
		if i == 0 && serr != nil {
			return 0, 0, ErrUnknown
		}
		if perr == nil {
			pss += m
		} else if i == 0 {
			err = perr
		}
		cpu += s.cpu
		if tree {
			cpu += s.reaped
		}
	}
	return pss, cpu, err
}

// Alive tells whether a process exists and, where start is known, is still the same.
func Alive(pid int) bool {
	p, err := os.FindProcess(pid)
	return err == nil && pid > 0 && alive(p)
}

// Program is the file that a process runs, empty where that cannot be told.
func Program(pid int) string {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	// A program that was rebuilt since is shown with this mark.
	return strings.TrimSuffix(path, " (deleted)")
}

// Listener finds who listens on a TCP port of loopback or of all addresses, by the
// socket's inode: (0, "") where it cannot be told.
func Listener(port int) (pid int, name string) {
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, _ := os.ReadFile(table)
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			const listen = "0A"
			if len(f) > 9 && f[3] == listen && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	if len(inodes) == 0 {
		return 0, ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err == nil && inodes[link] {
			pid, _ = strconv.Atoi(strings.Split(fd, "/")[2])
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			return pid, strings.TrimSpace(string(comm))
		}
	}
	return 0, ""
}

// CPU is the processor time alone: reading memory walks page tables, which would show
// in a measurement that is just beginning.
func CPU(pid int, tree bool) time.Duration {
	pids := []int{pid}
	if tree {
		pids = Tree(pid)
	}
	var cpu time.Duration
	for _, p := range pids {
		if s, err := read(p); err == nil {
			cpu += s.cpu
			if tree {
				cpu += s.reaped
			}
		}
	}
	return cpu
}

// Self is the processor time of this process, everywhere.
func Self() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
