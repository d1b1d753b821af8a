//go:build unix

package sidecar

import (
	"math"
	"syscall"
)

// maxFiles is how many files the process may have open. Go has raised the soft limit to the hard one.
func maxFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt32 // as before anybody asked
	}
	return int(min(uint64(limit.Cur), math.MaxInt32))
}
