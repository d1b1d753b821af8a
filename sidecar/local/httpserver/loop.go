package httpserver

import (
	"errors"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/internal/ready"
	"github.com/ringside-cache/ringside/sidecar/local/httpapi"
)

// waitInLoop leaves a connection whose requests are hits to the loop. It reports whether the loop has it.
func (c *conn) waitInLoop() bool {
	if !c.loop.Likely(c.server.loops) || c.in.Buffered() > 0 || c.out != nil || !c.life.limits.End.IsZero() {
		return false
	}
	if c.loop.Enter(c.server.loops, c.net, c, c.rest) {
		return true
	}
	c.deadline.read, c.deadline.write = time.Time{}, time.Time{}
	return false
}

// rest prepares the connection for the wait.
func (c *conn) rest() error {
	c.begun, c.deadline.read = time.Time{}, time.Time{}
	c.place.Wait()
	return c.limitRead()
}

// Ready implements ready.Waiter: it answers what has arrived, if it can do so without waiting.
func (c *conn) Ready() {
	defer func() {
		if p := recover(); p != nil {
			c.server.backend.Panic("while serving a connection", p)
			c.loop.Leave()
			go c.end()
		}
	}()
	c.reads = 0
	for {
		if err := c.in.Await(); errors.Is(err, listen.ErrWouldBlock) {
			return
		} else if err != nil {
			c.leaveAndEnd()
			return
		}
		c.begun = time.Now()
		err := c.in.ReadHead(&c.head)
		if errors.Is(err, listen.ErrWouldBlock) { // the rest of the head has not arrived
			c.resume(c.next)
			return
		}
		if !c.state.CompareAndSwap(waiting, active) {
			c.leaveAndEnd()
			return
		}
		if err != nil || !c.answerFromMemory() {
			c.resume(func() bool { return c.answer(err) })
			return
		}
		if c.in.Buffered() == 0 {
			break
		}
		c.state.Store(waiting)
		if c.reads >= ready.MaxReads { //guard:client-without-a-pause-keeps-the-loop
			c.resume(func() bool { return true })
			return
		}
	}
	if err := c.flush(); err != nil { // or the client does not read: its goroutine waits for it
		c.resume(c.flushed)
		return
	}
	c.state.Store(waiting)
	if c.rest() != nil {
		c.leaveAndEnd()
	}
}

// flushed ends a request of the loop. It reports whether another one may follow.
func (c *conn) flushed() bool {
	defer c.release()
	if c.flush() != nil {
		return false
	}
	c.state.Store(waiting)
	return true
}

// answerFromMemory writes the response to the current request if that needs nothing but memory. It reports whether it has;
// otherwise nothing has happened.
func (c *conn) answerFromMemory() bool {
	s := c.server
	c.content = c.in.Content(&c.head)
	if !c.content.Ended() || !c.head.HTTP11() || !c.mayStay() || !c.hasRoom() {
		return false
	}
	x := s.contexts.Get().(*httpapi.RequestContext)
	defer s.contexts.Put(x)
	defer x.Recycle()
	c.fill(x)
	if !s.handler.FromMemory(c.life.ctx, x) {
		return false
	}
	c.place.Work()
	if err := c.write(&x.Response, true); err != nil {
		panic(err) // hasRoom has made room
	}
	c.release()
	return true
}

// hasRoom makes room for a response of the loop. It reports false if the client has to read first.
func (c *conn) hasRoom() bool {
	return c.out == nil || cap(*c.out)-len(*c.out) >= httpapi.MaxFromMemory+outBytes/4 || c.widen(httpapi.MaxFromMemory) ||
		c.flush() == nil //guard:loop-writes-to-a-client-that-does-not-read
}

// leaveAndEnd ends a connection of the loop, whose client or server has closed it.
func (c *conn) leaveAndEnd() {
	c.loop.Leave()
	c.end()
}

// resume gives the connection a goroutine again, which does first and then serves it as any other.
func (c *conn) resume(first func() bool) {
	c.loop.Resume(func(err error) {
		c.deadline.read, c.deadline.write = time.Time{}, time.Time{}
		c.run(func() bool { return err == nil && first() })
	})
}
