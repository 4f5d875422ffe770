package arena

import (
	"testing"
	"unsafe"
)

func TestReleasedBlocksComeBackZeroed(t *testing.T) {
	a, err := New(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	x := a.Alloc(100)
	b := unsafe.Slice((*byte)(a.At(x)), 128)
	for i := range b {
		b[i] = 1
	}
	a.Release(x, 100)
	if y := a.Alloc(128); y != x {
		t.Errorf("block %d, not the released %d", y, x)
	}
	for i, v := range b {
		if v != 0 {
			t.Fatalf("byte %d is %d", i, v)
		}
	}
}

func TestAFullArenaSaysSo(t *testing.T) {
	a, err := New(4096)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	n := 0
	for a.Alloc(Line) != 0 {
		n++
	}
	if n != 4096/Line-1 { // place 0 means none
		t.Errorf("%d lines", n)
	}
}
