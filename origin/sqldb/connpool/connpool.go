// Package connpool has pools of connections that are replaced once new connections would lead to another target: to another
// server after a failover, or to another file.
package connpool

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
)

// Group is the pools of one database.
type Group struct {
	identify func() (string, error) // nil: not known without a connection

	inUse sync.RWMutex // held for reading while a connection is in use, if identify is set; guards target
	// target is what the connections lead to. A file must be closed by all connections before it is opened under the same
	// name: SQLite would mix the write-ahead logs of the two files.
	target string

	mu    sync.Mutex // guards pools; taken after inUse
	pools []*Pool
}

// NewGroup returns a Group without pools. Identify returns what identifies the target that new connections would lead to, or
// why there is none; it is called before each use. It is nil if only the server knows.
func NewGroup(identify func() (string, error)) *Group { return &Group{identify: identify} }

// Pool is a sql.DB that is replaced when its target is.
type Pool struct {
	group   *Group
	open    func() *sql.DB
	current atomic.Pointer[sql.DB]
}

// Open returns a new pool of the group. The function open does not connect.
func (g *Group) Open(open func() *sql.DB) *Pool {
	p := &Pool{group: g, open: open}
	p.current.Store(open())
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pools = append(g.pools, p)
	return p
}

// Replace makes all pools of the group drop their connections: idle ones at once, the others when they are returned.
func (g *Group) Replace() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for _, p := range g.pools {
		errs = append(errs, p.current.Swap(p.open()).Close())
	}
	return errors.Join(errs...)
}

// Target identifies what the connections lead to; empty if that is not known. It must be called while one of them is in use.
func (p *Pool) Target() string { return p.group.target }

// Use calls use with a connection, and returns the connection to the pool.
func (p *Pool) Use(ctx context.Context, use func(*sql.Conn) error) error {
	if p.group.identify != nil {
		if err := p.group.enter(); err != nil {
			return err
		}
		defer p.group.inUse.RUnlock()
	}
	conn, err := p.conn(ctx)
	if err != nil {
		return errclass.Keyless(err)
	}
	defer conn.Close() // fails only if use has broken it, and use has reported that
	return use(conn)
}

// Moved reports whether new connections would lead to another target than those in use. It must be called while one of them
// is in use.
func (p *Pool) Moved() bool {
	if p.group.identify == nil {
		return false
	}
	now, err := p.group.identify()
	return err != nil || now != p.group.target //guard:write-to-replaced-file-succeeds
}

// enter leaves inUse held for reading, with pools that lead to the present target.
func (g *Group) enter() error {
	for {
		g.inUse.RLock()
		now, err := g.identify()
		if err == nil && now == g.target {
			return nil
		}
		g.inUse.RUnlock()
		if err != nil {
			return err
		}
		g.moveTo(now)
	}
}

func (g *Group) moveTo(target string) {
	//guard:targets-mixed
	g.inUse.Lock()
	defer g.inUse.Unlock()
	if g.target == target {
		return
	}
	_ = g.Replace() // of connections that are not in use: nothing is lost
	g.target = target
}

// conn retries if the pool is replaced between the load of the pointer and its use.
func (p *Pool) conn(ctx context.Context) (*sql.Conn, error) {
	for {
		db := p.current.Load()
		conn, err := db.Conn(ctx)
		if err == nil || p.current.Load() == db { //guard:use-fails-while-pool-is-replaced
			return conn, err
		}
	}
}

// Close removes the pool from its group and closes it.
func (p *Pool) Close() error {
	g := p.group
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pools = slices.DeleteFunc(g.pools, func(other *Pool) bool { return other == p })
	return p.current.Load().Close()
}
