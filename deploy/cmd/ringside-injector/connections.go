package main

import (
	"context"
	"net"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// connections is a listener that bounds its open connections. When all are in use, a new one takes the place of the oldest
// one of the address that has the most, so that one client cannot keep the API server or the kubelet out, however many
// connections it opens and however slowly it uses them. If that is the address of the new one, connections that have
// completed a request are kept, and the new one may be closed instead.
type connections struct {
	net.Listener
	limit  int
	closed prometheus.Counter // connections closed because of the limit

	mu   sync.Mutex
	open []*conn // guarded by mu, oldest first
}

// conn is an open connection.
type conn struct {
	net.Conn
	from   string // host of the client
	list   *connections
	once   sync.Once
	useful bool // guarded by list.mu: it has completed a request
}

// Accept implements net.Listener.
func (l *connections) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host, _, _ := net.SplitHostPort(accepted.RemoteAddr().String()) // a TCP address has both
		c := &conn{Conn: accepted, from: host, list: l}
		victim := l.admit(c)
		if victim != nil {
			l.closed.Inc()
			_ = victim.Close()
		}
		if victim != c {
			return c, nil
		}
	}
}

// admit adds c to the open connections. It returns the connection to close, which may be c, or nil.
func (l *connections) admit(c *conn) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, c)
	if len(l.open) <= l.limit { //guard:injector-connections-are-unbounded
		return nil
	}
	count := map[string]int{}
	for _, other := range l.open {
		count[other.from]++
	}
	var victim *conn
	for _, other := range l.open {
		switch {
		case victim == nil, count[other.from] > count[victim.from],
			count[other.from] == count[victim.from] && victim.useful && !other.useful: //guard:useful-connections-are-closed-first
			victim = other
		}
	}
	l.open = slices.DeleteFunc(l.open, func(other *conn) bool { return other == victim })
	return victim
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.list.mu.Lock()
		defer c.list.mu.Unlock()
		c.list.open = slices.DeleteFunc(c.list.open, func(other *conn) bool { return other == c })
	})
	return c.Conn.Close()
}

type connKey struct{}

// withConn is an http.Server.ConnContext.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if wrapped, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = wrapped.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

// markUseful records that a connection has completed a request.
func markUseful(ctx context.Context) {
	if c, ok := ctx.Value(connKey{}).(*conn); ok {
		c.list.mu.Lock()
		defer c.list.mu.Unlock()
		c.useful = true
	}
}
