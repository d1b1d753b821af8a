// Package listen has what all listeners of a sidecar share.
//
// New turns a net.Listener into one that bounds its open connections, counts them, and keeps accepting after temporary
// failures. Every listener of the process is wrapped by New, with a limit from the configuration, in the Serve method of
// the package that serves it.
//
//	l := listen.New(ln, listen.Config{
//		MaxConns: n, Bytes: b.Account(budget.Connections, part), ConnBytes: listen.HTTP1Bytes,
//		Stats: &s.stats.HTTP.Conns, Refusal: tooManyConnections()})
//	err := server.Serve(l)  // a connection over the limit gets Refusal and is closed
//	l.CloseConns()          // after the drain: cut off what is left
//
// Demux divides the connections of one listener between two servers by their first bytes. A part of its connections can
// get a lower limit: call New again on the listener that a server is given.
package listen

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
)

// What an open connection takes for its whole life: buffers, goroutines, and the kernel's socket. Measured with 1000
// connections after one small request each, and rounded up.
const (
	HTTP1Bytes = 24 << 10 // measured: 22 KiB, and 2 KiB of the kernel
	HTTP2Bytes = 28 << 10 // measured: 25 KiB, and 2 KiB of the kernel
	// TLSBytes is what TLS adds; a handshake that has not ended takes no less.
	TLSBytes = 28 << 10
)

// Stats counts the connections of a listener, or of several that share it. The counters are live.
type Stats struct {
	Open         atomic.Int64 // connections that are open now
	Refused      atomic.Int64 // connections closed immediately because of Config.MaxConns or Config.Bytes
	Evicted      atomic.Int64 // connections closed while they waited for their client, because a new one needed the place
	AcceptErrors atomic.Int64 // failed accepts that were retried, for example for lack of file descriptors
}

// Config bounds a Listener.
type Config struct {
	// MaxConns is the number of connections that may be open at once; at least 1. It counts those of this listener, even
	// where several share their Stats.
	MaxConns int
	// Bytes is where each connection takes ConnBytes from; nil means no limit.
	Bytes     *budget.Account
	ConnBytes int64
	// KeepIdle is how long a connection that has had a request may wait for the next one although a new connection needs its
	// place; see Place.
	KeepIdle time.Duration
	// Waits is set for servers that call the methods of Place: a connection waits for its client from the start.
	Waits bool
	// Refusal is sent to a connection over the limit before it is closed. It is at most a few hundred bytes, which fit
	// into the send buffer of a new socket. May be nil.
	Refusal []byte
	// Stats gets the counts; nil means that the Listener has its own.
	Stats *Stats
}

// Listener is a net.Listener that closes connections over its limit. A listener that stopped accepting instead would
// leave clients waiting in the kernel's queue, which they cannot tell from a process that hangs.
type Listener struct {
	net.Listener
	config Config
	ctx    context.Context // ends when the listener is closed
	end    context.CancelFunc

	mu     sync.Mutex // guards the fields below
	conns  map[*conn]struct{}
	closed bool // by CloseConns
}

// Serve calls serve in a goroutine of its own for each connection of ln, until Accept fails, and returns that error.
func Serve(ln net.Listener, serve func(net.Conn)) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go serve(c)
	}
}

// New returns ln with the bounds of c.
func New(ln net.Listener, c Config) *Listener {
	c.MaxConns = max(c.MaxConns, 1)
	if c.Stats == nil {
		c.Stats = new(Stats)
	}
	l := &Listener{Listener: ln, config: c, conns: map[*conn]struct{}{}}
	l.ctx, l.end = context.WithCancel(context.Background())
	return l
}

// Stats returns the live counters.
func (l *Listener) Stats() *Stats { return l.config.Stats }

// MaxConns returns the limit of open connections.
func (l *Listener) MaxConns() int { return l.config.MaxConns }

// Accept implements net.Listener. It retries after temporary errors and returns only those that are permanent.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.accept()
		if err != nil {
			return nil, err
		}
		if c, ok := l.admit(accepted); ok {
			return c, nil
		}
		if l.CloseLongestWaiting() { //guard:idle-connections-keep-others-out
			if c, ok := l.admit(accepted); ok {
				return c, nil
			}
		}
		l.refuse(accepted)
	}
}

func (l *Listener) admit(accepted net.Conn) (net.Conn, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.conns) >= l.config.MaxConns { //guard:listener-has-no-connection-limit
		return nil, false
	}
	if !l.config.Bytes.Take(l.config.ConnBytes) { //guard:connections-take-no-memory
		return nil, false
	}
	boundBuffers(accepted)
	c := &conn{Conn: accepted, listener: l, place: Place{outside: PlaceOf(accepted)}}
	if l.config.Waits {
		c.place.Wait()
	}
	l.conns[c] = struct{}{}
	l.config.Stats.Open.Add(1)
	return c, true
}

// CloseLongestWaiting closes the connection that has waited longest for its client; see Place. It reports whether there was
// one.
func (l *Listener) CloseLongestWaiting() bool {
	return l.evict(func(int32, time.Duration) bool { return true })
}

// CloseLongestStalled closes the connection whose client has been slow for longest in the middle of a request, and for longer
// than a client that behaves well, if there is one.
func (l *Listener) CloseLongestStalled() {
	l.evict(func(why int32, waited time.Duration) bool { return why == stalled && waited >= promptness })
}

func (l *Listener) evict(only func(why int32, waited time.Duration) bool) bool {
	l.mu.Lock()
	c := longestWaiting(l.conns, time.Now(), l.config.KeepIdle, only)
	l.mu.Unlock()
	if c == nil {
		return false
	}
	l.config.Stats.Evicted.Add(1)
	_ = c.Close() // the server that reads from it cleans up
	return true
}

// kernelBuffer bounds each of the two buffers of the kernel for a connection, which count as memory of the container: a
// client that does not read makes the kernel hold up to 4 MiB otherwise, and one that sends what nobody reads 32 MiB. Linux
// doubles it. Values of 1 MiB are sent as fast as without it (2 GB/s on loopback); with 32 KiB they take a thousand times
// longer, because less than two segments of loopback fit.
const kernelBuffer = 96 << 10

// boundBuffers applies to TCP; the buffers of a unix socket do not grow.
func boundBuffers(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(kernelBuffer) // fails only if the connection has ended
		_ = tcp.SetReadBuffer(kernelBuffer)
	}
}

// refuse closes a connection over a limit. The deadline is for connections without a send buffer, such as net.Pipe.
func (l *Listener) refuse(c net.Conn) {
	l.config.Stats.Refused.Add(1)
	if l.config.Refusal != nil && c.SetWriteDeadline(time.Now().Add(100*time.Millisecond)) == nil {
		_, _ = c.Write(l.config.Refusal) // it is closed next, whether the client reads or not
	}
	_ = c.Close()
}

// Close implements net.Listener. Open connections stay open.
func (l *Listener) Close() error {
	l.end()
	return l.Listener.Close()
}

// CloseConns closes every open connection, and refuses new ones from now on.
func (l *Listener) CloseConns() {
	l.mu.Lock()
	l.closed = true
	open := make([]*conn, 0, len(l.conns))
	for c := range l.conns {
		open = append(open, c)
	}
	l.mu.Unlock()
	for _, c := range open {
		_ = c.Close() // the server that reads from it cleans up
	}
}

func (l *Listener) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.conns[c]; ok {
		delete(l.conns, c)
		l.config.Bytes.Return(l.config.ConnBytes + c.more)
		l.config.Stats.Open.Add(-1)
	}
}

// ErrWouldBlock is the error of a Socket on which nothing can be read, or no more be written, without waiting.
var ErrWouldBlock = errors.New("listen: the socket is not ready")

// conn is a connection that its listener counts.
type conn struct {
	net.Conn // Detach and Attach replace it, for the goroutine that serves it; others need mu
	mu       sync.Mutex
	closed   atomic.Bool
	listener *Listener
	more     int64 // taken by Prepay; the listener's mu guards it
	place    Place
}

// Prepay takes n more bytes until the connection is closed, or none and returns false: for a server whose connections hold more
// than ConnBytes. As a new connection does, it takes the place of one that waits for its client. A listener of connections
// that another one has accepted leaves it to that.
func (c *conn) Prepay(n int64) bool {
	if outside := connOf(c.NetConn()); outside != nil {
		return outside.Prepay(n)
	}
	for {
		taken, open := c.prepay(n)
		if taken || !open || !c.listener.CloseLongestWaiting() { //guard:idle-connections-keep-prepaid-ones-out
			return taken
		}
	}
}

func (c *conn) prepay(n int64) (taken, open bool) {
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, open := l.conns[c]; !open || !l.config.Bytes.Take(n) {
		return false, open
	}
	c.more += n
	return true, true
}

// NetConn returns the accepted connection; see caller.Of.
func (c *conn) NetConn() net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn
}

// CloseWrite closes the sending half, where the connection has halves. net/http calls it, too.
func (c *conn) CloseWrite() error {
	if half, ok := c.NetConn().(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.closed.Store(true) // before it looks for the socket: Detach looks for it afterwards
	c.listener.remove(c)
	return c.NetConn().Close()
}

// Bounds of the wait after a failed accept.
const firstWait, longestWait = 5 * time.Millisecond, time.Second

// accept accepts the next connection, of any number. It retries after temporary errors until the listener is closed.
func (l *Listener) accept() (net.Conn, error) {
	wait := backoff.Backoff{First: firstWait, Longest: longestWait}
	for {
		c, err := l.Listener.Accept()
		if err == nil || !isTemporary(err) { //guard:temporary-accept-error-ends-listener
			return c, err
		}
		l.config.Stats.AcceptErrors.Add(1)
		wait.Wait(l.ctx)
	}
}

func isTemporary(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() ||
		errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) ||
		errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ECONNABORTED)
}

// As returns the first that is a T among a connection and those that it wraps: a wrapper has the method NetConn.
func As[T any](c net.Conn) (found T, ok bool) {
	for {
		if found, ok := c.(T); ok {
			return found, true
		}
		wrapper, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return found, false
		}
		c = wrapper.NetConn()
	}
}
