package statsd

import (
	"bytes"
	"net"
	"os"
	"strconv"
	"syscall"
)

// kernelDrops reads the last column of the socket's line in /proc/net/udp. The line is found by the socket's inode.
func kernelDrops(c *net.UDPConn) uint64 {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	var st syscall.Stat_t
	if err := raw.Control(func(fd uintptr) { _ = syscall.Fstat(int(fd), &st) }); err != nil {
		return 0 // closed
	}
	inode := strconv.AppendUint(nil, st.Ino, 10)
	for _, table := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range bytes.Lines(text) {
			if f := bytes.Fields(line); len(f) == 13 && bytes.Equal(f[9], inode) {
				n, _ := strconv.ParseUint(string(f[12]), 10, 64)
				return n
			}
		}
	}
	return 0
}
