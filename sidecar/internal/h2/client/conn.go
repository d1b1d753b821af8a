package client

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
)

const (
	restBytes   = 2 << 10  // of the buffer of what arrives, until one is full: most members of a large cluster are seldom asked
	narrowBytes = 4 << 10  // of each other buffer of a connection
	wideBytes   = 32 << 10 // of each buffer while much is read or written
	maxOut      = 64 << 10 // of frames that wait to be written; a larger message waits
	// connWindow is what the server may send on all streams together before its client has read it. Each stream has a window of
	// its own, which limits what is kept.
	connWindow = 1 << 20
)

// conn is a connection. One goroutine reads (serve). Frames are appended to out; a short-lived goroutine writes them without mu,
// so that a caller whose deadline passes never waits for a server that reads nothing.
//
// All methods are called with mu held unless they say otherwise.
type conn struct {
	client  *Client
	nc      net.Conn
	settled chan struct{} // closed at the first SETTINGS of the server
	ended   chan struct{} // closed by fail

	mu         sync.Mutex // guards the fields below
	in         reader
	out, spare []byte
	flushing   bool
	request    requestEncoder
	streams    map[uint32]*stream
	free       []*stream // for new calls
	next       uint32    // id of the next stream
	maxStreams uint32    // of the server
	window     int64     // bytes that the server accepts on all streams
	initial    int64     // window of a new stream
	blocked    []*stream // wait for a window, room in out, or the end of another stream
	goingAway  bool
	err        error // why the connection has ended
	life       life
	loan       budget.Loan
}

func newConn(c *Client, nc net.Conn) *conn {
	made := &conn{
		client: c, nc: nc, settled: make(chan struct{}), ended: make(chan struct{}), streams: map[uint32]*stream{}, next: 1,
		maxStreams: 1<<32 - 1, window: frame.InitialWindow, initial: frame.InitialWindow, loan: c.config.Budget.Loan(budget.Connections),
	}
	made.request.init(c.config.Authority, c.config.Secure)
	made.request.propagate = c.config.Propagate
	made.in.init(made)
	return made
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// serve reads until the connection ends. Called without mu.
func (c *conn) serve() {
	defer c.client.remove(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.loan.Close()
	defer c.fail(status.Error(codes.Internal, "the goroutine of the connection has panicked")) // it has ended otherwise
	c.out = append(c.out, preface...)
	c.out = frame.Append(c.out, 12, frame.Settings, 0, 0)
	c.out = frame.AppendSetting(c.out, frame.SettingEnablePush, 0)
	c.out = frame.AppendSetting(c.out, frame.SettingHeaderList, uint32(c.client.config.MaxHeaderBytes))
	c.out = frame.AppendWindowUpdate(c.out, 0, connWindow-frame.InitialWindow)
	c.life.start(c)
	err := c.in.readAll()
	if why, ok := errors.AsType[frame.Code](err); ok {
		err = status.Errorf(codes.Internal, "the server violates HTTP/2: %v", why)
	} else if _, ok := status.FromError(err); !ok {
		err = status.Errorf(codes.Unavailable, "the connection has ended: %v", err)
	}
	c.fail(err)
}

// abort ends the connection at once. Called without mu.
func (c *conn) abort(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(err)
}

// failure returns why the connection has ended; nil if it has not. Called without mu.
func (c *conn) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// leaving reports whether no more calls may begin. Called without mu.
func (c *conn) leaving() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.goingAway || c.err != nil
}

// fail ends the connection at once.
func (c *conn) fail(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	close(c.ended)
	c.life.stop()
	for _, s := range c.streams {
		s.finish(err)
	}
	c.wakeBlocked()
	_ = c.nc.Close() // what it still had to send is lost
}

// flush makes sure that what is in out will be written.
func (c *conn) flush() {
	if c.flushing || len(c.out) == 0 || c.err != nil {
		return
	}
	c.flushing = true
	c.client.tasks.Add(1) // a reading goroutine or a call of the client is running, so that Close does not wait yet
	go c.write(len(c.streams) > 1)
}

// write writes out until it is empty. together: other callers may be about to append, too. Called without mu.
func (c *conn) write(together bool) {
	defer c.client.tasks.Done()
	if together {
		runtime.Gosched()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > 0 && c.err == nil {
		out := c.out
		c.out, c.spare = c.spare[:0], nil
		c.mu.Unlock()
		_, err := c.nc.Write(out)
		c.mu.Lock()
		if err != nil {
			c.fail(status.Errorf(codes.Unavailable, "write: %v", err))
		}
		if cap(out) <= wideBytes {
			c.spare = out[:0]
		}
		c.wakeBlocked()
	}
	c.flushing = false
	if len(c.streams) == 0 {
		c.trim()
	}
	c.closeUnused()
}

// trim drops large buffers.
func (c *conn) trim() {
	if cap(c.spare) > narrowBytes {
		c.spare = nil
	}
	if !c.flushing && len(c.out) == 0 && cap(c.out) > narrowBytes {
		c.out = nil
	}
}

// wakeBlocked lets the streams that wait try again.
func (c *conn) wakeBlocked() {
	for _, s := range c.blocked {
		s.signal()
	}
	clear(c.blocked)
	c.blocked = c.blocked[:0]
}

// goAway lets no more streams begin, and returns those that the server has not seen to their callers.
func (c *conn) goAway(last uint32) {
	c.goingAway = true
	for id, s := range c.streams {
		if id > last {
			s.unprocessed = true //guard:unprocessed-call-fails
			s.finish(status.Error(codes.Unavailable, "the server is stopping"))
		}
	}
	c.wakeBlocked()
	c.closeUnused()
}

// closeUnused ends a connection without calls that gets no more.
func (c *conn) closeUnused() {
	if c.goingAway && len(c.streams) == 0 && !c.flushing && c.err == nil {
		c.fail(status.Error(codes.Unavailable, "the connection is not used any more"))
	}
}

// life ends a connection that is silent during a call, or not used. One timer looks at both.
type life struct {
	conn   *conn
	timer  *time.Timer
	heard  bool      // anything arrived since the last look
	used   time.Time // at the last look with calls
	calls  bool      // a call began since the last look
	pinged bool
}

func (l *life) start(c *conn) {
	l.conn, l.used = c, time.Now()
	l.timer = time.AfterFunc(min(c.client.config.PingInterval, c.client.config.IdleTimeout), l.look)
}

func (l *life) stop() {
	if l.timer != nil {
		l.timer.Stop()
	}
}

// look is called without mu.
func (l *life) look() {
	c := l.conn
	config := &c.client.config
	c.mu.Lock()
	now, idle := time.Now(), false
	if l.calls || len(c.streams) > 0 {
		l.used = now
	}
	next := min(config.PingInterval, config.IdleTimeout)
	switch {
	case c.err != nil:
	case l.pinged && !l.heard: //guard:silent-server-holds-calls
		c.fail(status.Error(codes.Unavailable, "the server is silent"))
	case len(c.streams) > 0 && !l.heard:
		l.pinged = true
		c.out = append(frame.Append(c.out, 8, frame.Ping, 0, 0), make([]byte, 8)...)
		c.in.narrow = !l.calls // once the acknowledgement is read
		c.flush()
		next = config.PingTimeout
	default:
		l.pinged = false
		idle = now.Sub(l.used) >= config.IdleTimeout
		c.in.narrow = !l.calls
	}
	if !l.calls {
		c.trim()
	}
	l.heard, l.calls = false, false
	if c.err == nil {
		l.timer.Reset(next)
	}
	c.mu.Unlock()
	if idle {
		l.leave()
	}
}

// leave closes an idle connection unless a call begins. Called without mu.
func (l *life) leave() {
	c := l.conn
	c.client.retire(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.goAway(frame.MaxID)
}
