// Package arena gives out memory that the garbage collector neither scans nor moves. A hundred thousand series are tens of
// megabytes of counters without a single pointer; on the heap each collection would still have to walk their headers, and
// small pages would make nearly every access a miss of the address cache.
package arena

import (
	"fmt"
	"unsafe"
)

// Line is the unit of allocation: one cache line, so that no two blocks share one.
const Line = 64

// classes is how many block sizes, in lines, are kept for reuse: up to 16 KiB, the longest key. Larger blocks are not given back.
const classes = 16<<10/Line + 1

// Arena is a reserved range of addresses. The system gives it memory as it is touched, so a generous reserve costs nothing.
// It is not safe for concurrent use.
type Arena struct {
	mem  []byte
	base unsafe.Pointer
	used uintptr
	free [classes]uint32 // heads of lists of returned blocks, linked through their first four bytes
}

// New reserves the given number of bytes.
func New(reserve int) (*Arena, error) {
	mem, err := reserved(reserve)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes: %w", reserve, err)
	}
	return &Arena{mem: mem, base: unsafe.Pointer(unsafe.SliceData(mem)), used: Line}, nil
}

// Alloc returns the place of n zeroed bytes, counted in lines; 0 when the arena is full.
func (a *Arena) Alloc(n int) uint32 {
	lines := (n + Line - 1) / Line
	if lines < classes {
		if at := a.free[lines]; at != 0 {
			p := a.At(at)
			a.free[lines] = *(*uint32)(p)
			clear(unsafe.Slice((*byte)(p), lines*Line))
			return at
		}
	}
	if a.used+uintptr(lines*Line) > uintptr(len(a.mem)) {
		return 0
	}
	at := a.used / Line
	a.used += uintptr(lines * Line)
	return uint32(at)
}

// Release gives back what Alloc(n) returned.
func (a *Arena) Release(at uint32, n int) {
	lines := (n + Line - 1) / Line
	if at == 0 || lines >= classes {
		return
	}
	*(*uint32)(a.At(at)) = a.free[lines]
	a.free[lines] = at
}

// At is the address of a place.
func (a *Arena) At(at uint32) unsafe.Pointer { return unsafe.Add(a.base, uintptr(at)*Line) }

// Bytes is the memory that was ever given out.
func (a *Arena) Bytes() int { return int(a.used) }

// Close returns the addresses. Nothing may be used afterwards.
func (a *Arena) Close() {
	release(a.mem)
	a.mem, a.base = nil, nil
}

// Slice allocates n values of a type without pointers. It panics when the arena is too small: the caller sized it.
func Slice[T any](a *Arena, n int) []T {
	var t T
	at := a.Alloc(n * int(unsafe.Sizeof(t)))
	if at == 0 {
		panic("arena: the reserve is smaller than its tables")
	}
	return unsafe.Slice((*T)(a.At(at)), n)
}
