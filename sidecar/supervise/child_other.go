//go:build !linux

package supervise

import "syscall"

// childAttributes returns none: this system does not end a child with its parent.
func childAttributes() *syscall.SysProcAttr { return nil }
