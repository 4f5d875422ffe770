package wire

import "encoding/binary"

// The wire types of protobuf.
const (
	wireVarint = 0
	wire64     = 1
	wireBytes  = 2
	wire32     = 5
)

func uvarint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return binary.Uvarint(b)
}

// field reads the first field of a message: its number and wire type, and its value as a number or as bytes.
func field(b []byte) (num uint64, typ byte, v uint64, data, rest []byte, ok bool) {
	tag, k := uvarint(b)
	if k <= 0 {
		return
	}
	b = b[k:]
	num, typ = tag>>3, byte(tag&7)
	switch typ {
	case wireVarint:
		if v, k = uvarint(b); k <= 0 {
			return
		}
		rest = b[k:]
	case wire64:
		if len(b) < 8 {
			return
		}
		v, rest = binary.LittleEndian.Uint64(b), b[8:]
	case wireBytes:
		n, k := uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return
		}
		data, rest = b[k:k+int(n)], b[k+int(n):]
	case wire32:
		if len(b) < 4 {
			return
		}
		v, rest = uint64(binary.LittleEndian.Uint32(b)), b[4:]
	default:
		return
	}
	ok = num > 0
	return
}

// scratch holds bytes that a batch still needs until it is flushed. It never moves what it holds.
type scratch []byte

// scratchSize is the room of a scratch; what names a series takes at most a part of it.
const scratchSize = 64 << 10

// room says whether n more bytes fit.
func (s scratch) room(n int) bool { return len(s)+n <= cap(s) }
