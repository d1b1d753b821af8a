package caller

import (
	"net"
	"syscall"
)

// ofUnix asks the kernel for the process that connected (SO_PEERCRED, unix(7)). What it says is from the time of connect, and
// in the user namespace of this process: an id that has no mapping there is the overflow id, 65534.
func ofUnix(c *net.UnixConn) Caller {
	none := Caller{Kind: Unix, UID: noID, GID: noID}
	raw, err := c.SyscallConn()
	if err != nil {
		return none
	}
	var credentials *syscall.Ucred
	controlErr := raw.Control(func(fd uintptr) {
		credentials, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if controlErr != nil || err != nil { //guard:unknown-process-is-root
		return none
	}
	return Caller{Kind: Unix, UID: credentials.Uid, GID: credentials.Gid, PID: credentials.Pid}
}
