//go:build !linux

package listen

import "net"

// Socket exists only on Linux.
type Socket struct{ net.Conn }

// Detach reports false: connections remain with the runtime.
func Detach(net.Conn) (*Socket, bool) { return nil, false }

// Attach is never called.
func Attach(net.Conn, *Socket) error { return net.ErrClosed }

// Release is never called.
func (s *Socket) Release() {}
