package caller

import (
	"crypto/tls"
	"net"
)

// Of returns who is at the other end of a connection, as far as the connection shows it: the process at the other end of a
// unix socket, this host, or another one. Wrapped connections must have a method NetConn, or a method Caller with the
// result. With TLS the certificate decides, which is not known before the handshake: the caller is unknown here. Call Of once
// per connection.
func Of(c net.Conn) Caller {
	for {
		if known, ok := c.(interface{ Caller() Caller }); ok {
			return known.Caller()
		}
		if _, ok := c.(*tls.Conn); ok {
			return Caller{Kind: Unknown, Addr: c.RemoteAddr().String()}
		}
		wrapped, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = wrapped.NetConn()
	}
	if u, ok := c.(*net.UnixConn); ok {
		return ofUnix(u)
	}
	return OfAddr(c.RemoteAddr())
}

// OfAddr returns who is at the other end of a TCP connection in plain text.
func OfAddr(a net.Addr) Caller {
	if a == nil {
		return Caller{}
	}
	if tcp, ok := a.(*net.TCPAddr); ok && tcp.IP.IsLoopback() {
		return Caller{Kind: Loopback, Addr: a.String()}
	}
	return Caller{Kind: Unknown, Addr: a.String()}
}
