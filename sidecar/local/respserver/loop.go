package respserver

import (
	"errors"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/internal/ready"
)

// waitInLoop leaves a connection whose commands are hits to the loop. It reports whether the loop has it.
func (c *conn) waitInLoop() bool {
	if !c.loop.Likely(c.server.loops) || c.tracking != nil || c.transaction != nil || c.in.Partial() {
		return false
	}
	c.writeBy = time.Time{} // the socket has another one next
	return c.loop.Enter(c.server.loops, c.net, c, c.rest)
}

// rest prepares the connection for the wait.
func (c *conn) rest() error {
	if c.in.Release() {
		c.buffer.Close()
	}
	c.place.Wait()
	return nil
}

// Ready implements ready.Waiter: it replies to what has arrived, if memory can.
func (c *conn) Ready() {
	defer func() {
		if p := recover(); p != nil { //guard:panic-in-the-redis-loop-ends-process
			c.fail(c.server.backend.Panic("while handling a command", p))
			c.quit = true
			c.resume(c.sent)
		}
	}()
	for range ready.MaxReads { //guard:redis-client-without-a-pause-keeps-the-loop
		if err := c.in.Fill(); errors.Is(err, listen.ErrWouldBlock) {
			break
		} else if err != nil {
			c.leaveAndEnd()
			return
		}
		handled, err := c.handleHits()
		switch {
		case !handled:
			return
		case err == nil && !c.in.Partial():
			c.flushInLoop()
			return
		case err != nil:
			c.resume(c.sent) // it reads the same error
			return
		}
	}
	if c.in.Partial() {
		c.resume(c.sent) // it reads the rest of the command
	}
}

// handleHits replies to the commands that have arrived. It reports false if the connection is not in the loop any more. The error is that of
// a command that could not be read.
func (c *conn) handleHits() (handled bool, err error) {
	hits, began := int64(0), time.Now()
	defer func() {
		if hits > 0 {
			c.server.stats.Duration.ObserveN(time.Since(began)/time.Duration(hits), hits)
		}
	}()
	for {
		ok, err := c.in.Next()
		if err != nil || !ok {
			return true, err
		}
		if c.state.Load() != active && !c.begin() {
			c.leaveAndEnd()
			return false, nil
		}
		if !c.handleInLoop() {
			c.resume(c.handleArrived)
			return false, nil
		}
		hits++
	}
}

// handleInLoop replies to a command, and reports whether it has.
func (c *conn) handleInLoop() bool {
	d := c.server.find(c.in.Arg(0))
	return d != nil && d.accepts(c.in.Len()) && c.handleFromMemory(d, c.in)
}

// flushInLoop sends the replies of the loop, and lets the connection wait for the next command.
func (c *conn) flushInLoop() {
	if c.flush() != nil { // or the client does not read: its goroutine waits for it
		c.resume(c.sent)
		return
	}
	if c.server.backend.Stopping().Err() != nil {
		c.leaveAndEnd()
		return
	}
	c.state.Store(waiting)
	_ = c.rest() // it never fails
}

// sent sends the replies of the loop. It reports whether other commands may follow.
func (c *conn) sent() bool {
	c.mu.lock()
	defer c.mu.unlock()
	if c.flush() != nil || c.quit || c.server.backend.Stopping().Err() != nil {
		return false
	}
	c.state.Store(waiting)
	return true
}

// leaveAndEnd ends a connection of the loop, whose client or server has closed it.
func (c *conn) leaveAndEnd() {
	c.loop.Leave()
	c.end()
}

// resume gives the connection a goroutine again, which does first and then serves it as any other.
func (c *conn) resume(first func() bool) {
	c.loop.Resume(func(err error) {
		c.writeBy = time.Time{}
		c.run(func() bool { return err == nil && first() })
	})
}
