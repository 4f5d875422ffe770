package arena

import "syscall"

// hugePages asks for pages of 2 MiB; a kernel without them only makes things slower.
const hugePages = 14 // MADV_HUGEPAGE

// hugeFrom is the size from which huge pages are asked for: below, a page could be more than what is used.
const hugeFrom = 32 << 20

func reserved(n int) ([]byte, error) {
	mem, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
	if err == nil && n >= hugeFrom {
		_ = syscall.Madvise(mem, hugePages)
	}
	return mem, err
}

func release(mem []byte) { _ = syscall.Munmap(mem) }
