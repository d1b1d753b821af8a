// Package respserver serves the Redis protocol: the commands that read, write and track the keys of datasets. DESIGN.md has the
// decisions; REDIS.md beside API.md is for users.
package respserver

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
)

// Server serves the Redis protocol. A connection has one goroutine, and a second one while it tracks keys. A hit neither
// allocates nor takes a lock that connections share.
type Server struct {
	backend  *api.Backend
	config   *api.Config
	watches  *watch.Engine
	stats    *api.Protocol
	base     context.Context // ends when commands must
	commands map[string]*command
	small    sync.Pool // of *[]byte, for replies
	large    sync.Pool
	lastID   atomic.Int64 // of a connection
	scanning sync.Mutex   // one SCAN at a time lists keys

	mu      sync.Mutex // guards the fields below
	conns   map[*conn]struct{}
	stopped bool
}

// New returns a Server that counts in stats. base is the parent context of all commands.
func New(base context.Context, backend *api.Backend, watches *watch.Engine, stats *api.Protocol) *Server {
	s := &Server{backend: backend, config: backend.Config(), watches: watches, stats: stats, base: base, conns: map[*conn]struct{}{}}
	s.commands = commands()
	s.small.New = func() any { b := make([]byte, 0, smallOut); return &b }
	s.large.New = func() any { b := make([]byte, 0, largeOut); return &b }
	return s
}

// Serve serves the connections of ln until it is closed.
func (s *Server) Serve(ln net.Listener) error { return listen.Serve(ln, s.ServeConn) }

// ServeConn serves a connection until it ends. It closes it.
func (s *Server) ServeConn(c net.Conn) {
	if one := s.newConn(c); s.add(one) {
		one.serve()
	}
}

// add reports whether c may be served, and closes it otherwise.
func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		_ = c.net.Close() // nothing has been read from it
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// How often Shutdown looks whether the commands have ended.
const firstPoll, longestPoll = time.Millisecond, 100 * time.Millisecond

// Shutdown closes connections without a command, and waits for the commands of the others until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	for poll := firstPoll; s.closeWaiting() > 0; poll = min(2*poll, longestPoll) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(poll):
		}
	}
	return nil
}

// closeWaiting closes the connections that wait for a command, and returns how many are left.
func (s *Server) closeWaiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for c := range s.conns {
		if c.state.CompareAndSwap(waiting, closed) { //guard:command-is-cut-off-by-stop
			_ = c.net.Close() // its goroutine removes it
		}
	}
	return len(s.conns)
}
