package listen

import (
	"context"
	"net"
	"sync"
	"time"
)

// Conns are the connections that a server serves. The zero value is empty.
type Conns[C interface {
	comparable
	NetConn() net.Conn
	// CloseWaiting closes a connection that waits for a request, and does not wait for its end. What serves it removes it.
	CloseWaiting()
}] struct {
	mu      sync.Mutex // guards the fields below
	open    map[C]struct{}
	stopped bool
}

// Add reports whether c may be served: not after Shutdown has begun.
func (s *Conns[C]) Add(c C) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	if s.open == nil {
		s.open = map[C]struct{}{}
	}
	s.open[c] = struct{}{}
	return true
}

// Remove removes a connection that has ended.
func (s *Conns[C]) Remove(c C) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// How often Shutdown looks whether the requests have ended.
const firstPoll, longestPoll = time.Millisecond, 100 * time.Millisecond

// Shutdown closes connections without a request, and waits for the requests of the others until ctx ends.
func (s *Conns[C]) Shutdown(ctx context.Context) error {
	for poll := firstPoll; s.closeWaiting() > 0; poll = min(2*poll, longestPoll) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(poll):
		}
	}
	return nil
}

// closeWaiting returns how many connections are left.
func (s *Conns[C]) closeWaiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for c := range s.open {
		if !unread(c.NetConn()) { //guard:stop-resets-arrived-request
			c.CloseWaiting()
		}
	}
	return len(s.open)
}
