package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// setPrivate makes the memory, the environment and the open files of this process unreadable for other processes of the same
// user, as they may run in another container of the pod: they belong to root in /proc, and no debugger may attach. There
// are no core dumps either. With false, the process is as the kernel has started it.
func setPrivate(private bool) error {
	dumpable := uintptr(1)
	if private {
		dumpable = 0
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, dumpable, 0, 0, 0); err != nil {
		return fmt.Errorf("set the dumpable attribute of the process: %w", err)
	}
	return nil
}
