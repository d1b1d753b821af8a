package listen

import (
	"syscall"
	"unsafe"
)

// The calls below never wait, so that the scheduler of the runtime need not know of them: telling it takes longer than they do.

func rawRead(fd int, p []byte) (int, syscall.Errno) {
	n, _, err := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if err != 0 {
		return 0, err
	}
	return int(n), 0
}

func rawWrite(fd int, p []byte) (int, syscall.Errno) {
	n, _, err := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
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
