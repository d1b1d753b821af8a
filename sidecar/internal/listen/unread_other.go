//go:build !unix

package listen

import "net"

// unread is for Unix only; elsewhere a request that arrives during a stop may be lost.
func unread(net.Conn) bool { return false }
