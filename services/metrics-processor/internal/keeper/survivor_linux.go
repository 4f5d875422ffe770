package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
)

// Survivor maps a file of the instance. Its pages are the kernel's: they outlive a process that is killed, not the machine.
// former is what the file held, for Restore; the mapping lives as long as the process.
func Survivor(dir, instance string) (now, former *aggregate.Survivor, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make directory of accepted counts: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "accepted-"+instance), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open accepted counts: %w", err)
	}
	defer f.Close()
	const size = int(unsafe.Sizeof(aggregate.Survivor{}))
	if err := f.Truncate(int64(size)); err != nil {
		return nil, nil, fmt.Errorf("size accepted counts: %w", err)
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map accepted counts: %w", err)
	}
	now = (*aggregate.Survivor)(unsafe.Pointer(unsafe.SliceData(b)))
	was := *now
	return now, &was, nil
}
