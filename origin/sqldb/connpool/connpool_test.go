package connpool

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
	"testing"
	"time"
)

// servers make connections to the server that is current.
type servers struct {
	mu      sync.Mutex
	current string
	err     error
	open    map[*conn]bool
	// connecting is called before each connection is made.
	connecting func() error
}

type conn struct {
	driver.Conn
	servers *servers
	to      string
}

func newServers() *servers { return &servers{current: "a", open: map[*conn]bool{}} }

func (s *servers) Driver() driver.Driver { return nil }

func (s *servers) Connect(context.Context) (driver.Conn, error) {
	if s.connecting != nil {
		if err := s.connecting(); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	c := &conn{servers: s, to: s.current}
	s.open[c] = true
	return c, nil
}

func (c *conn) Close() error {
	c.servers.mu.Lock()
	defer c.servers.mu.Unlock()
	delete(c.servers.open, c)
	return nil
}

func (s *servers) lead(to string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current, s.err = to, err
}

func (s *servers) target() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current, s.err
}

// connections counts those to a server.
func (s *servers) connections(to string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		if c.to == to {
			n++
		}
	}
	return n
}

func (s *servers) pool() *sql.DB { return sql.OpenDB(s) }

// leadsTo uses a connection of p, and returns where it leads to.
func leadsTo(t *testing.T, p *Pool) (to string) {
	t.Helper()
	err := p.Use(t.Context(), func(c *sql.Conn) error {
		return c.Raw(func(c any) error {
			to = c.(*conn).to
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// Without an identity, only Replace moves the pools. A connection in use is dropped once it is returned.
func TestReplace(t *testing.T) {
	s := newServers()
	g := NewGroup(nil)
	reads, writes := g.Open(s.pool), g.Open(s.pool)
	leadsTo(t, reads)
	leadsTo(t, writes)
	s.lead("b", nil)
	if got := leadsTo(t, reads); got != "a" {
		t.Errorf("the idle connection leads to %s", got)
	}
	err := reads.Use(t.Context(), func(*sql.Conn) error {
		if err := g.Replace(); err != nil {
			t.Error(err)
		}
		if n := s.connections("a"); n != 1 {
			t.Errorf("%d connections to a, want that in use", n)
		}
		if reads.Moved() || reads.Target() != "" {
			t.Error("only the server knows where connections lead to")
		}
		return nil
	})
	if err != nil || s.connections("a") != 0 {
		t.Errorf("%v, %d connections to a remain", err, s.connections("a"))
	}
	for _, p := range []*Pool{reads, writes} {
		if got := leadsTo(t, p); got != "b" {
			t.Errorf("leads to %s", got)
		}
	}
}

// With an identity, the pools move by themselves once no connection is in use: none ever leads to another target than the others.
func TestPoolsFollowTheirTarget(t *testing.T) {
	s := newServers()
	g := NewGroup(s.target)
	reads, writes := g.Open(s.pool), g.Open(s.pool)
	defer closePools(t, reads, writes)
	leadsTo(t, writes)
	moved := make(chan string, 1)
	err := reads.Use(t.Context(), func(*sql.Conn) error {
		if reads.Moved() || reads.Target() != "a" {
			t.Errorf("the target is %q", reads.Target())
		}
		s.lead("b", nil)
		if !reads.Moved() {
			t.Error("the move is not noticed")
		}
		go func() { moved <- leadsTo(t, writes) }()
		select {
		case to := <-moved:
			t.Errorf("a connection leads to %s while another one leads to a", to)
			moved <- to
		case <-time.After(100 * time.Millisecond): // if it waits at all, it waits for this connection
		}
		return nil
	})
	if to := <-moved; err != nil || to != "b" || s.connections("a") != 0 {
		t.Errorf("%v, leads to %s, %d connections to a remain", err, to, s.connections("a"))
	}
}

func closePools(t *testing.T, pools ...*Pool) {
	t.Helper()
	for _, p := range pools {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A target that is missing is an error of each use, until it is there again.
func TestMissingTarget(t *testing.T) {
	s := newServers()
	p := NewGroup(s.target).Open(s.pool)
	leadsTo(t, p)
	missing := errors.New("missing")
	s.lead("", missing)
	unused := func(*sql.Conn) error { t.Error("used"); return nil }
	if err := p.Use(t.Context(), unused); !errors.Is(err, missing) {
		t.Errorf("got %v", err)
	}
	s.lead("c", nil)
	if got := leadsTo(t, p); got != "c" || s.connections("a") != 0 {
		t.Errorf("leads to %s; %d connections to a remain", got, s.connections("a"))
	}
}

func TestErrorsOfUse(t *testing.T) {
	s := newServers()
	g := NewGroup(nil)
	p := g.Open(s.pool)
	wrong := errors.New("wrong")
	if err := p.Use(t.Context(), func(*sql.Conn) error { return wrong }); !errors.Is(err, wrong) {
		t.Errorf("got %v", err)
	}
	closePools(t, p)
	if err := g.Replace(); err != nil { // p is not opened again
		t.Error(err)
	}
	if err := p.Use(t.Context(), func(*sql.Conn) error { return nil }); err == nil || s.connections("a") != 0 {
		t.Errorf("a closed pool has %d connections, and its use returns %v", s.connections("a"), err)
	}
}

// A connection to the previous target that cannot be made is no error: the new pool is used.
func TestConnectWhileReplaced(t *testing.T) {
	s := newServers()
	g := NewGroup(nil)
	p := g.Open(s.pool)
	defer p.Close()
	replaced := false
	s.connecting = func() error {
		if replaced {
			return nil
		}
		replaced = true
		s.lead("b", nil)
		return errors.Join(errors.New("a is down"), g.Replace())
	}
	if got := leadsTo(t, p); got != "b" {
		t.Errorf("leads to %s", got)
	}
}

// No use fails because the pool is replaced meanwhile.
func TestUseWhileReplaced(t *testing.T) {
	s := newServers()
	g := NewGroup(nil)
	p := g.Open(s.pool)
	defer p.Close()
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for range 2000 {
				if err := p.Use(t.Context(), func(*sql.Conn) error { return nil }); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 2000 {
		if err := g.Replace(); err != nil {
			t.Error(err)
		}
	}
	running.Wait()
}
