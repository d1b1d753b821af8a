// Package respserver serves the Redis protocol: the commands that read, write and track the keys of datasets. DESIGN.md has the
// decisions; REDIS.md beside API.md is for users.
package respserver

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/internal/ready"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
)

// Server serves the Redis protocol. A connection has one goroutine, and a second one while it tracks keys, or waits in a loop for its
// next hit. A hit neither allocates nor takes a lock that connections share.
type Server struct {
	backend  *api.Backend
	config   *api.Config
	watches  *watch.Engine
	stats    *api.Protocol
	base     context.Context // ends when commands must
	commands map[string]*command
	small    sync.Pool // of *[]byte, for replies
	large    sync.Pool
	loops    *ready.Loops // for connections whose commands are hits
	lastID   atomic.Int64 // of a connection
	scanning sync.Mutex   // one SCAN at a time lists keys

	conns listen.Conns[*conn]
}

// New returns a Server that counts in stats. base is the parent context of all commands.
func New(base context.Context, backend *api.Backend, watches *watch.Engine, stats *api.Protocol) *Server {
	s := &Server{backend: backend, config: backend.Config(), watches: watches, stats: stats, base: base, loops: backend.Config().Loops}
	s.commands = commands()
	s.small.New = func() any { b := make([]byte, 0, smallOut); return &b }
	s.large.New = func() any { b := make([]byte, 0, largeOut); return &b }
	return s
}

// Serve serves the connections of ln until it is closed.
func (s *Server) Serve(ln net.Listener) error { return listen.Serve(ln, s.ServeConn) }

// ServeConn serves a connection until it ends. It closes it.
func (s *Server) ServeConn(c net.Conn) {
	one := s.newConn(c)
	if !s.conns.Add(one) {
		_ = c.Close() // nothing has been read from it
		return
	}
	one.serve()
}

// Shutdown closes connections without a command, and waits for the commands of the others until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.conns.Shutdown(ctx) }
