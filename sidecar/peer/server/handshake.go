package server

import (
	"crypto/tls"
	"net"

	"google.golang.org/grpc/credentials"

	"github.com/ringside-cache/ringside/sidecar/internal/caller"
)

// secured is a connection with TLS after its handshake.
type secured struct {
	net.Conn
	accepted net.Conn
	state    tls.ConnectionState
}

// NetConn returns the connection that was accepted.
func (s *secured) NetConn() net.Conn { return s.accepted }

// ConnectionState returns what the handshake has verified.
func (s *secured) ConnectionState() tls.ConnectionState { return s.state }

// handshake authenticates a caller.
func (c Config) handshake(accepted net.Conn) (net.Conn, error) {
	conn, info, err := c.Credentials.ServerHandshake(accepted)
	if err != nil {
		return nil, err
	}
	if verified, ok := info.(credentials.TLSInfo); ok {
		return &secured{conn, accepted, verified.State}, nil
	}
	return conn, nil
}

// callerOf returns who is at the other end of a connection.
func (c Config) callerOf(conn net.Conn) caller.Caller {
	if c.Caller == nil {
		return caller.Caller{}
	}
	if s, ok := conn.(*secured); ok {
		return c.Caller(&s.state, s.RemoteAddr())
	}
	return c.Caller(nil, conn.RemoteAddr())
}
