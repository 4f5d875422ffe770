package aggregate

import (
	"sync"
	"unsafe"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/arena"
)

// slot is an entry of the table from hashes to keys: 16 bits of the hash, the series, and the key; 0 is none. In eight bytes,
// the table of 100,000 series is 4 MiB.
type slot uint64

// mostSlots is what a slot can number.
const mostSlots = 1 << 24

func makeSlot(hash uint64, series, key uint32) slot {
	return slot(hash>>48<<48 | uint64(series)<<24 | uint64(key))
}

func (e slot) key() uint32    { return uint32(e) & (mostSlots - 1) }
func (e slot) series() uint32 { return uint32(e>>24) & (mostSlots - 1) }
func (e slot) tag() uint16    { return uint16(e >> 48) }

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

// link is what is known of a key beside its bytes.
type link struct{ home, next uint32 } // the slot that its hash asks for; another key of the series

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
	keys  []key // the first is nobody's, for slots that are empty
	used  int
	// How the keys of a series are found when it is forgotten: the first by series, the others by key.
	first []uint32
	links []link
	spent []uint32 // keys that can be used again
	longs int      // bytes of long keys
	panes [openPanes]*pane
	spare []*pane
	// shapes is the range of counters that a series had in any pane: in the next one it gets them at once.
	shapes []shape
	books  [maxSources]account
	took   *[maxSources]uint64 // accepted, by source
	full   uint64              // spellings that were not kept: each sample of theirs is decoded
	read   uint32              // what touching returned, so that the compiler keeps the reads
	_      [64]byte
}

func newShard(series, spellings int, took *[maxSources]uint64) (*shard, error) {
	size := 1 << 10
	for size < 2*spellings {
		size *= 2
	}
	mem, err := arena.New(1<<20 + 8*size + 12*series + (spellings+1)*(int(sizeOfKey)+8+keyBytes))
	if err != nil {
		return nil, err
	}
	return &shard{
		mem: mem, table: arena.Slice[slot](mem, size), mask: uint32(size - 1), keys: arena.Slice[key](mem, spellings+1), used: 1,
		shapes: arena.Slice[shape](mem, series), first: arena.Slice[uint32](mem, series), links: arena.Slice[link](mem, spellings+1), took: took,
	}, nil
}

// keyBytes is the room for long keys, for each spelling on average.
const keyBytes = 320

const sizeOfKey = unsafe.Sizeof(key{})

// find looks for a key of one or two parts. Where there is none, at is the slot for it.
func (s *shard) find(h, head uint64, x, y unsafe.Pointer, nx, ny int) (series uint32, at uint32, ok bool) {
	for i := uint32(h) & s.mask; ; i = (i + 1) & s.mask {
		e := s.table[i]
		if e == 0 {
			return 0, i, false
		}
		if e.tag() != uint16(h>>48) {
			continue
		}
		if k := &s.keys[e.key()]; k.head == head {
			if p := k.at(s.mem); different(p, x, nx)|different(unsafe.Add(p, nx), y, ny) == 0 {
				return e.series(), i, true
			}
		}
	}
}

// keep makes a key known, if there is room.
func (s *shard) keep(at uint32, h, head uint64, series uint32, parts ...[]byte) {
	n := int(head & 0xffff)
	number := uint32(s.used)
	if last := len(s.spent) - 1; last >= 0 {
		number = s.spent[last]
	} else if s.used == len(s.keys) {
		s.full++
		return
	}
	k := &s.keys[number]
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
	s.links[number] = link{uint32(h) & s.mask, s.first[series]}
	s.first[series] = number
	s.table[at] = makeSlot(h, series, number)
	if int(number) == s.used {
		s.used++
	} else {
		s.spent = s.spent[:len(s.spent)-1]
	}
}

// drop makes all keys of a series unknown.
func (s *shard) drop(series uint32) {
	for number := s.first[series]; number != 0; number = s.links[number].next {
		i := s.links[number].home
		for s.table[i].key() != number {
			i = (i + 1) & s.mask
		}
		// What follows moves up, so that nobody stops looking at a hole.
		for j := i; ; {
			j = (j + 1) & s.mask
			e := s.table[j]
			if e == 0 {
				break
			}
			if home := s.links[e.key()].home; (j-home)&s.mask >= (j-i)&s.mask {
				s.table[i], i = e, j
			}
		}
		s.table[i] = 0
		k := &s.keys[number]
		if n := int(k.head & 0xffff); n > len(k.bytes) {
			s.mem.Release(*(*uint32)(unsafe.Pointer(&k.bytes)), n)
			s.longs -= n
		}
		*k = key{}
		s.spent = append(s.spent, number)
	}
	s.first[series] = 0
}
