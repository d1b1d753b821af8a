// Package ready waits for the next request on many connections in one goroutine. The runtime polls a socket with a goroutine for
// each connection: to park it, to find that there is nothing to read, and to wake a thread takes a third of a hit. A loop
// takes the sockets of connections that are likely to get nothing but hits, and looks for all of them at once.
//
//	if c.loop.Enter(c.server.loops, c.net, c, c.rest) {
//		return // the goroutine ends; Ready is called for each request
//	}
package ready

import (
	"net"
	"runtime"
	"sync/atomic"

	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// Waiter is a connection that waits in a loop.
type Waiter interface {
	// Ready is called when the socket can be read or has ended. All connections of the loop wait until it returns: it must not wait. It
	// may call Leave and Resume of its Conn.
	Ready()
}

// HitsInARow is how many requests memory must have answered before a loop takes a connection: to take it and to give it back
// is the work of two hits.
const HitsInARow = 4

// MaxReads is how often Ready may read from its connection: 64 KiB of small requests. A client that has sent more by then gets a
// goroutine, because the other connections of the loop wait.
const MaxReads = 16

// Loops are the loops of all servers of a process. Nil has none.
type Loops struct {
	loops []loop
	last  atomic.Uint32 // that has got a connection
}

// NewLoops returns loops for half of the processors: one that always has something to do keeps its processor from looking for
// what else the network brings.
func NewLoops() *Loops { return NewLoopsOf(runtime.GOMAXPROCS(0) / 2) }

// NewLoopsOf returns n loops.
func NewLoopsOf(n int) *Loops { return &Loops{loops: make([]loop, n)} }

// Len returns how many connections wait.
func (l *Loops) Len() (n int) {
	if l == nil {
		return 0
	}
	for i := range l.loops {
		n += l.loops[i].len()
	}
	return n
}

// Conn is what a connection has to do with the loops. The zero value is that of one that the runtime polls. Its methods are for what
// serves the connection at the time: its goroutine, or Ready.
type Conn struct {
	net    net.Conn
	socket *listen.Socket // nil unless a loop has the connection
	loop   *loop
	hits   int // requests in a row that memory has answered
}

// Count counts a request that a goroutine has answered. A hit is one that Ready would have answered.
func (c *Conn) Count(hit bool) {
	if c.hits++; !hit {
		c.hits = 0
	}
}

// Likely reports whether there is a loop, and the next request is likely to be a hit.
func (c *Conn) Likely(loops *Loops) bool {
	return c.hits >= HitsInARow && loops != nil && len(loops.loops) > 0
}

// Enter leaves a connection whose next request is likely to be a hit to a loop, which calls w.Ready from now on. rest prepares
// the connection for the wait; its socket does not wait any more. Enter reports whether the loop has the connection. Otherwise it
// is as before, or ends with its next read.
func (c *Conn) Enter(loops *Loops, nc net.Conn, w Waiter, rest func() error) bool {
	if !c.Likely(loops) {
		return false
	}
	c.hits = 0
	socket, ok := listen.Detach(nc)
	if !ok {
		return false
	}
	c.net, c.socket, c.loop = nc, socket, &loops.loops[int(loops.last.Add(1))%len(loops.loops)]
	if rest() == nil && c.loop.add(socket, w) == nil {
		return true
	}
	_ = c.attach() // if it fails, so does the next read
	return false
}

// Leave takes the connection out of its loop, for example because it ends; then it calls Release.
func (c *Conn) Leave() { c.loop.remove(c.socket) }

// Resume gives the connection to a goroutine again, which runs serve. Its argument is an error if the connection has no
// socket any more.
func (c *Conn) Resume(serve func(error)) {
	c.Leave()
	go func() { serve(c.attach()) }()
}

// attach gives the socket back to the runtime.
func (c *Conn) attach() error {
	err := listen.Attach(c.net, c.socket)
	if err == nil {
		c.socket = nil
	}
	return err
}

// Release follows the close of a connection, in a loop or not.
func (c *Conn) Release() {
	if c.socket != nil {
		c.socket.Release()
	}
}
