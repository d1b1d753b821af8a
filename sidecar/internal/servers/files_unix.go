//go:build unix

package servers

import (
	"math"
	"syscall"
)

// maxFiles returns how many files the process may have open. Go has raised the soft limit to the hard one.
func maxFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt32 // unknown: no limit is derived from it
	}
	return int(min(uint64(limit.Cur), math.MaxInt32))
}
