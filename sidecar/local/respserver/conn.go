package respserver

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/internal/ready"
	"github.com/ringside-cache/ringside/sidecar/internal/resp"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

const (
	// inBytes and smallOut are the buffers that a connection has paid for. What is larger is taken from the budget.
	inBytes, smallOut = 4 << 10, 4 << 10
	// largeOut holds the replies to many commands that have arrived together, so that one write sends them.
	largeOut = 64 << 10
	// maxArgs is a command with MaxBatchKeys pairs of keys and values.
	maxArgs = 1 + 2*api.MaxBatchKeys
	// envelope is what a command may have beside one value: 64 of the longest keys.
	envelope = 64 << 10
)

// States of a connection. Only one that waits for a command may be closed by the server.
const (
	waiting = iota
	active
	closed
)

// conn is one connection. Its goroutine owns all fields but state; while it handles commands it holds mu, which guards
// everything from out on against the goroutine of tracking. While it waits in a loop, all fields are the loop's: it tracks nothing
// then.
type conn struct {
	server *Server
	net    net.Conn
	caller caller.Caller
	place  *listen.Place
	in     *resp.Reader
	buffer budget.Loan // of in, beyond what the connection has paid for
	state  atomic.Int32
	timed  bool // the read deadline is set: a part of a command has arrived
	helper sync.WaitGroup
	loop   ready.Conn

	mu       turn
	out      *[]byte     // replies that have not been sent; nil if there are none
	sending  budget.Loan // of out, if it is large
	loan     budget.Loan // of the values of a command
	deadline *api.Deadline
	writeBy  time.Time // the write deadline that is set
	failed   error     // of a write
	last     time.Time // when the last command ended
	quit     bool      // no further command is handled

	id            int64
	name          string
	version       resp.Version
	authorization string
	transaction   *transaction
	tracking      *tracking
}

// turn is a mutex that is held while a command waits for a load; a goroutine that waits for it is idle, not blocked, which
// tests in a bubble of synctest rely on.
type turn chan struct{}

func (t turn) lock()   { t <- struct{}{} }
func (t turn) unlock() { <-t }

func (s *Server) newConn(c net.Conn) *conn {
	b := s.config.Budget
	one := &conn{
		server: s, net: c, mu: make(turn, 1), caller: caller.Of(c), place: listen.PlaceOf(c), id: s.lastID.Add(1), version: resp.RESP2,
		buffer: b.Loan(budget.Requests), sending: b.Loan(budget.Responses), loan: b.Loan(budget.Responses), deadline: new(api.Deadline),
	}
	one.in = resp.NewReader(c, resp.Limits{
		Args: maxArgs, Bytes: s.config.MaxBodyBytes + envelope, Buffer: inBytes,
		Grow: func(size int64) bool { return one.buffer.Grow(max(0, size-one.buffer.Bytes())) },
	})
	return one
}

// serve handles the commands of the connection until one of the sides ends it, or a loop takes it.
func (c *conn) serve() {
	c.run(func() bool { return c.await() && c.begin() && c.handleArrived() })
}

// run handles the commands after the first ones, which first does. It reports whether others may follow.
func (c *conn) run(first func() bool) {
	waits := false
	defer func() {
		if !waits {
			c.end()
		}
	}()
	for more := first(); more; more = c.await() && c.begin() && c.handleArrived() {
		if waits = c.waitInLoop(); waits {
			return
		}
	}
}

// NetConn implements listen.Conns.
func (c *conn) NetConn() net.Conn { return c.net }

// CloseWaiting implements listen.Conns.
func (c *conn) CloseWaiting() {
	if c.state.CompareAndSwap(waiting, closed) { //guard:command-is-cut-off-by-stop
		_ = c.net.Close()
	}
}

func (c *conn) end() {
	c.mu.lock()
	c.untrack()
	c.discard()
	_ = c.flush() // fails only if the client has gone
	c.mu.unlock()
	_ = c.net.Close()
	c.loop.Release()
	c.helper.Wait()
	c.buffer.Close()
	c.server.conns.Remove(c)
}

// await waits until a command has arrived. It reports whether one has.
func (c *conn) await() bool {
	for {
		ok, err := c.in.Next()
		if ok {
			return true
		}
		if err == nil {
			err = c.fill()
		}
		if err != nil {
			c.refuse(err)
			return false
		}
	}
}

// fill reads what arrives next. A command has a time for its arrival; the wait for one has none, because clients keep
// connections open, and one that only waits loses its place to a new one (listen.Place).
func (c *conn) fill() error {
	if c.in.Release() {
		c.buffer.Close()
	}
	var by time.Time
	if c.in.Partial() {
		if c.timed {
			return c.in.Fill()
		}
		c.place.Stall()
		by = time.Now().Add(c.server.config.ReadTimeout) //guard:slow-command-keeps-its-connection
	} else {
		c.place.Wait()
	}
	if c.timed || !by.IsZero() {
		c.timed = !by.IsZero()
		if err := c.net.SetReadDeadline(by); err != nil {
			return err
		}
	}
	return c.in.Fill()
}

// begin begins to handle commands. It reports false if the server has ended the connection.
func (c *conn) begin() bool {
	if !c.state.CompareAndSwap(waiting, active) {
		return false
	}
	c.place.Work()
	return true
}

// handleArrived handles the commands that have arrived, and sends their replies. It reports whether others may follow.
func (c *conn) handleArrived() (more bool) {
	c.mu.lock()
	defer c.mu.unlock()
	defer c.recovered()
	c.last = time.Now()
	ok, err := true, error(nil)
	for ok && !c.quit && c.failed == nil {
		c.handle(c.in)
		c.count()
		ok, err = c.in.Next()
	}
	if err != nil {
		c.refuseLocked(err)
	}
	if c.flush() != nil || c.quit || err != nil || c.server.backend.Stopping().Err() != nil {
		return false
	}
	if c.timed { // the next command has a time of its own
		c.timed = c.net.SetReadDeadline(time.Time{}) != nil
	}
	c.state.Store(waiting)
	return true
}

func (c *conn) recovered() {
	if p := recover(); p != nil { //guard:panic-in-a-command-ends-process
		c.fail(c.server.backend.Panic("while handling a command", p))
		c.quit = true
		_ = c.flush()
	}
}

// count observes the time of a command: until the last one has ended, it had to wait.
func (c *conn) count() {
	now := time.Now()
	c.server.stats.Duration.Observe(now.Sub(c.last))
	c.last = now
}

// refuse replies to a command that could not be read.
func (c *conn) refuse(err error) {
	c.mu.lock()
	defer c.mu.unlock()
	c.refuseLocked(err)
}

func (c *conn) refuseLocked(err error) {
	stats := c.server.stats
	var malformed resp.Malformed
	var timeout net.Error
	switch {
	case errors.As(err, &malformed):
		stats.Malformed.Add(1)
		c.err("Protocol error: " + malformed.Error())
	case errors.Is(err, resp.ErrTooLarge):
		stats.BodyRefused.Add(1)
		c.err("Protocol error: the command exceeds the limit of this listener")
	case errors.Is(err, resp.ErrNoMemory):
		c.fail(c.server.backend.Error(kv.ErrNoMemory))
	case errors.As(err, &timeout) && timeout.Timeout():
		stats.ReadTimeouts.Add(1)
		c.err("Protocol error: the command did not arrive in time")
	case errors.Is(err, io.EOF) && c.in.Partial():
		stats.Malformed.Add(1)
	}
}

// flush sends the replies that have been written. After an error the connection is of no use.
func (c *conn) flush() error {
	if c.out == nil {
		return c.failed
	}
	out := c.out
	n, err := c.writeNow(*out)
	if errors.Is(err, listen.ErrWouldBlock) { // the goroutine of the connection writes the rest
		*out = append((*out)[:0], (*out)[n:]...)
		return err
	}
	c.out = nil
	*out = (*out)[:0]
	if cap(*out) == largeOut {
		c.server.large.Put(out)
		c.sending.Close() //guard:replies-keep-their-bytes
	} else {
		c.server.small.Put(out)
	}
	return err
}

// send writes to the connection.
func (c *conn) send(b []byte) error {
	_, err := c.writeNow(b)
	return err
}

// writeNow writes to the connection. A client that does not read is disconnected.
func (c *conn) writeNow(b []byte) (n int, err error) {
	if c.failed != nil {
		return 0, c.failed
	}
	if len(b) > smallOut { // less fits into the kernel's buffer, unless the client has not read for long
		c.place.Stall()
		defer c.place.Work()
	}
	if by := listen.Soon(c.writeBy, c.server.config.WriteTimeout); !by.Equal(c.writeBy) {
		c.writeBy = by
		if c.failed = c.net.SetWriteDeadline(by); c.failed != nil {
			return 0, c.failed
		}
	}
	if n, err = c.net.Write(b); !errors.Is(err, listen.ErrWouldBlock) {
		c.failed = err
	}
	return n, err
}

// hasRoom makes room for n bytes, at most smallOut, in out. It reports false if the client has to read first, or is gone.
func (c *conn) hasRoom(n int) bool {
	if c.out != nil && cap(*c.out)-len(*c.out) < n && !c.enlarge() && c.flush() != nil { //guard:redis-loop-writes-to-a-client-that-does-not-read
		return false
	}
	c.reserve(0)
	return true
}

// reserve makes room for n bytes, at most smallOut, in out.
func (c *conn) reserve(n int) {
	if c.out != nil && cap(*c.out)-len(*c.out) < n && !c.enlarge() {
		_ = c.flush()
	}
	if c.out == nil {
		c.out = c.server.small.Get().(*[]byte)
	}
}

// enlarge exchanges out for a large buffer, if it is not one and there is memory for it.
func (c *conn) enlarge() bool {
	if cap(*c.out) == largeOut || !c.sending.Grow(largeOut) {
		return false
	}
	large := c.server.large.Get().(*[]byte)
	*large = append(*large, *c.out...)
	*c.out = (*c.out)[:0]
	c.server.small.Put(c.out)
	c.out = large
	return true
}

// maxInfo is the size of a status, an error, or what precedes a value.
const maxInfo = 1 << 10

func (c *conn) simple(s string) {
	c.reserve(maxInfo)
	*c.out = resp.AppendSimple(*c.out, s)
}

func (c *conn) integer(n int64) {
	c.reserve(maxInfo)
	*c.out = resp.AppendInt(*c.out, n)
}

func (c *conn) null() {
	c.reserve(maxInfo)
	*c.out = c.version.AppendNull(*c.out)
}

func (c *conn) array(n int) {
	c.reserve(maxInfo)
	*c.out = resp.AppendArray(*c.out, n)
}

func (c *conn) pairs(n int) {
	c.reserve(maxInfo)
	*c.out = c.version.AppendMap(*c.out, n)
}

func (c *conn) text(s string) { c.value([]byte(s)) }

// err replies with an error that has no code of its own.
func (c *conn) err(text string) { c.failWith("ERR", text) }

func (c *conn) failWith(prefix, text string) {
	c.reserve(maxInfo)
	*c.out = resp.AppendError(*c.out, prefix, text[:min(len(text), maxInfo/2)])
}

// fail replies with an error of the APIs.
func (c *conn) fail(e *apierror.Error) {
	c.failWith(prefixOf(e.Type), textOf(e))
}

// value replies with a value. A large one is sent from where it lies.
func (c *conn) value(v []byte) { c.put(v, int64(len(v))) }

// held is value where c.loan has the bytes of the value already.
func (c *conn) held(v []byte) { c.put(v, 0) }

// put replies with a value for which it takes some bytes while a large one is being sent.
func (c *conn) put(v []byte, bytes int64) {
	const frame = 32
	if len(v)+frame <= smallOut || c.out != nil && cap(*c.out)-len(*c.out) >= len(v)+frame {
		c.reserve(len(v) + frame)
		*c.out = append(append(resp.AppendBulkSize(*c.out, len(v)), v...), "\r\n"...)
		return
	}
	before := c.loan.Bytes()
	if len(v) > api.PrepaidResponse && !c.loan.Grow(bytes) { //guard:large-value-without-budget
		c.fail(c.server.backend.Error(kv.ErrNoMemory))
		return
	}
	c.reserve(frame)
	*c.out = resp.AppendBulkSize(*c.out, len(v))
	if c.flush() == nil {
		_ = c.send(v)
	}
	c.loan.Shrink(before)
	c.reserve(frame)
	*c.out = append(*c.out, "\r\n"...)
}
