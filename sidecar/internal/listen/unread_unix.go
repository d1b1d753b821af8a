//go:build unix

package listen

import (
	"net"
	"syscall"
)

// unread reports whether bytes of the client have arrived that nobody has read. A server that closes such a connection as idle loses
// a request: the kernel answers it with a reset.
func unread(c net.Conn) bool {
	raw, ok := As[syscall.Conn](c)
	if !ok {
		return false
	}
	socket, err := raw.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = socket.Control(func(fd uintptr) {
		n, _, _ = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err == nil && n > 0
}
