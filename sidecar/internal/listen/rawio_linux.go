package listen

import (
	"syscall"
	"unsafe"
)

// transfer reads into p or writes it (SYS_READ or SYS_WRITE). The call never waits, so that the scheduler of the runtime need not know of
// it: telling it takes longer than the call.
func transfer(call uintptr, fd int, p []byte) (int, syscall.Errno) {
	n, _, err := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if err != 0 {
		return 0, err
	}
	return int(n), 0
}

// duplicate returns another descriptor of the same file.
func duplicate(fd uintptr) (int, error) {
	n, _, err := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0)
	if err != 0 {
		return -1, err
	}
	return int(n), nil
}
