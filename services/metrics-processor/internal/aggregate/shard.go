package aggregate

import (
	"sync"
	"unsafe"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/arena"
)

// slot is an entry of the table from hashes to keys.
type slot struct{ tag, key, series, _ uint32 }

// key is the bytes of one spelling of a series, in one cache line. Long ones are elsewhere in the arena.
type key struct {
	head  uint64 // length, format, and what else tells keys apart: see head()
	bytes [56]byte
}

func (k *key) at(a *arena.Arena) unsafe.Pointer {
	if k.head&0xffff > uint64(len(k.bytes)) {
		return a.At(*(*uint32)(unsafe.Pointer(&k.bytes)))
	}
	return unsafe.Pointer(&k.bytes)
}

// longest bounds the bytes that name a series.
const longest = 16 << 10

// head is unique to the length, the format and a number: the length of the first part of two, or the number of a Vec.
func head(length int, format uint8, more int) uint64 {
	return uint64(length) | uint64(format)<<16 | uint64(more)<<32
}

// openPanes is how many panes can be open at once: the current, those that wait for late samples, one for clocks that are
// ahead, and one that is being closed.
const openPanes = 4

type account struct {
	aggregated uint64
	dropped    [reasons]uint64
}

// shard is a part of the state. Everything in it is its lock's.
type shard struct {
	mu    sync.Mutex
	mem   *arena.Arena
	table []slot
	mask  uint32
	keys  []key
	used  int
	longs int // bytes of long keys
	panes [openPanes]*pane
	spare []*pane
	books [maxSources]account
	took  *[maxSources]uint64 // accepted, by source
	full  uint64              // spellings that were not kept: each sample of theirs is decoded
	read  uint32              // what touching returned, so that the compiler keeps the reads
	_     [64]byte
}

func newShard(spellings int, took *[maxSources]uint64) (*shard, error) {
	size := 1 << 10
	for size < 2*spellings {
		size *= 2
	}
	mem, err := arena.New(1<<20 + size*int(unsafe.Sizeof(slot{})) + spellings*(int(unsafe.Sizeof(key{}))+keyBytes))
	if err != nil {
		return nil, err
	}
	return &shard{
		mem: mem, table: arena.Slice[slot](mem, size), mask: uint32(size - 1), keys: arena.Slice[key](mem, spellings), took: took,
	}, nil
}

// keyBytes is the room for long keys, for each spelling on average.
const keyBytes = 320

const sizeOfKey = unsafe.Sizeof(key{})

// find looks for a key of one or two parts. Where there is none, at is the slot for it.
func (s *shard) find(h, head uint64, x, y unsafe.Pointer, nx, ny int) (series uint32, at uint32, ok bool) {
	tag := uint32(h >> 32)
	for i := uint32(h) & s.mask; ; i = (i + 1) & s.mask {
		e := &s.table[i]
		if e.key == 0 {
			return 0, i, false
		}
		if e.tag != tag {
			continue
		}
		if k := &s.keys[e.key-1]; k.head == head {
			if p := k.at(s.mem); different(p, x, nx)|different(unsafe.Add(p, nx), y, ny) == 0 {
				return e.series, i, true
			}
		}
	}
}

// keep makes a key known, if there is room.
func (s *shard) keep(at uint32, h, head uint64, series uint32, parts ...[]byte) {
	n := int(head & 0xffff)
	if s.used == len(s.keys) {
		s.full++
		return
	}
	k := &s.keys[s.used]
	p := unsafe.Pointer(&k.bytes)
	if n > len(k.bytes) {
		place := s.mem.Alloc(n)
		if place == 0 {
			s.full++
			return
		}
		*(*uint32)(p) = place
		p = s.mem.At(place)
		s.longs += n
	}
	b := unsafe.Slice((*byte)(p), n)
	for _, part := range parts {
		b = b[copy(b, part):]
	}
	k.head = head
	s.used++
	s.table[at] = slot{tag: uint32(h >> 32), key: uint32(s.used), series: series}
}
