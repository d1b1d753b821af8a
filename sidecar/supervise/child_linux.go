package supervise

import "syscall"

// childAttributes makes the kernel end the child when the supervisor dies: nothing else would hold its sockets, and a supervisor
// that is started again could not bind them.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
