// Package client makes gRPC calls over one HTTP/2 connection (RFC 9113) at a time. The requests of many callers leave with one
// write, and a call costs a fraction of one of grpc-go. What a server sends is limited by what its callers have asked for.
//
// It implements grpc.ClientConnInterface for unary and server-streaming calls without metadata.
package client

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
)

// Config describes a Client. Fields without a default are required, except Budget.
type Config struct {
	// Dial connects, handshakes included. A connection without SETTINGS of the server when ctx ends is closed.
	Dial func(ctx context.Context) (net.Conn, error)
	// ConnectTimeout limits an attempt to connect, and the time between two attempts, which begins with FirstBackoff.
	ConnectTimeout, FirstBackoff time.Duration
	// Authority is sent with each request, and Secure decides its scheme.
	Authority string
	Secure    bool
	// Codec encodes and decodes messages.
	Codec encoding.CodecV2
	// MaxHeaderBytes limits the header list of a response, counted as in RFC 9113, 6.5.2.
	MaxHeaderBytes int
	// IdleTimeout closes a connection without calls.
	IdleTimeout time.Duration
	// PingInterval is how long the server of a running call may be silent before it is asked for a sign of life, which it has
	// PingTimeout to give.
	PingInterval, PingTimeout time.Duration
	// Propagate returns the traceparent and the tracestate of a call; empty if it is not traced. May be nil.
	Propagate func(context.Context) (parent, state string)
	// Budget limits the memory of large buffers; nil means no limit.
	Budget *budget.Budget
	// Spawn runs a task in a goroutine whose panics are reported. It reports false if there are no more tasks.
	Spawn func(task func()) bool
}

var (
	errClosed = status.Error(codes.Canceled, "the connection is closing")
)

// Client connects when a call needs it. It is safe for concurrent use.
type Client struct {
	config Config
	ctx    context.Context // canceled by Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu      sync.Mutex    // guards the fields below; locked before that of a conn
	ready   *conn         // accepts calls; nil: none
	dialing chan struct{} // closed when the running attempt to connect ends; nil: none is running
	hurry   func()        // ends the wait before that attempt
	failed  error         // why the last attempt failed; nil if it did not
	retry   time.Time     // when the next one may begin
	wait    backoff.Backoff
	conns   map[*conn]struct{}
	closed  bool
}

// New returns a Client that is not connected.
func New(c Config) *Client {
	ctx, cancel := context.WithCancel(context.Background())
	return &Client{
		config: c, ctx: ctx, cancel: cancel, conns: map[*conn]struct{}{},
		wait: backoff.Backoff{First: c.FirstBackoff, Longest: c.ConnectTimeout},
	}
}

// Connected reports whether there is a connection for calls.
func (c *Client) Connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready != nil
}

// Connect waits for a connection, even after failures to connect.
func (c *Client) Connect(ctx context.Context) error {
	_, err := c.connected(ctx, true)
	return err
}

// connected returns a connection for a call. Callers that do not wait get the error of an attempt, also of the last one as long
// as the next must not begin.
func (c *Client) connected(ctx context.Context, wait bool) (*conn, error) {
	for first := true; ; first = false {
		made, dialing, err := c.look(wait, first)
		if made != nil || err != nil {
			return made, err
		}
		select {
		case <-dialing:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		if made, err = c.dialed(); made != nil || err != nil && !wait {
			return made, err
		}
	}
}

// look returns the connection, or a channel that is closed when the next attempt to connect ends, which it begins. first: the
// caller has not waited yet, so that one that waits need not wait for the end of the backoff.
func (c *Client) look(wait, first bool) (ready *conn, dialing <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, nil, errClosed
	case c.ready != nil:
		return c.ready, nil, nil
	case wait && first && c.dialing != nil:
		c.hurry()
	case c.dialing != nil:
	case wait && first:
		c.dialLocked(0)
	case wait || !time.Now().Before(c.retry):
		c.dialLocked(time.Until(c.retry))
	default:
		return nil, nil, unavailable(c.failed)
	}
	return nil, c.dialing, nil
}

// dialed returns the result of the last attempt.
func (c *Client) dialed() (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return nil, unavailable(c.failed)
	}
	return c.ready, nil
}

func unavailable(err error) error {
	return status.Error(codes.Unavailable, "connect: "+status.Convert(err).Message())
}

// dialLocked begins an attempt to connect after a delay.
func (c *Client) dialLocked(delay time.Duration) {
	ctx, hurry := context.WithTimeout(c.ctx, max(delay, 0))
	done := make(chan struct{})
	c.dialing, c.hurry = done, hurry
	c.tasks.Add(1)
	if !c.config.Spawn(func() {
		defer c.tasks.Done()
		defer hurry()
		<-ctx.Done()
		c.dial(done)
	}) {
		hurry()
		c.tasks.Done()
		c.closed, c.dialing = true, nil
		close(done)
	}
}

// dial makes one attempt.
func (c *Client) dial(done chan struct{}) {
	made, err := c.attempt()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialing, c.failed = nil, err
	if err != nil {
		c.retry = time.Now().Add(c.wait.Next())
	} else if !made.leaving() {
		c.ready = made
		c.wait.Reset()
	}
	close(done)
}

// attempt connects and waits for the SETTINGS of the server: a kernel accepts connections for a process that has stopped.
func (c *Client) attempt() (*conn, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.config.ConnectTimeout)
	defer cancel()
	nc, err := c.config.Dial(ctx)
	if err != nil {
		return nil, err
	}
	made := newConn(c, nc)
	if !c.add(made) {
		_ = nc.Close() // the client was closed meanwhile
		return nil, errClosed
	}
	c.tasks.Add(1)
	if !c.config.Spawn(func() { defer c.tasks.Done(); made.serve() }) {
		c.tasks.Done()
		made.abort(errClosed)
		c.remove(made)
		return nil, errClosed
	}
	select {
	case <-made.settled:
	case <-made.ended:
	case <-ctx.Done():
		made.abort(status.Error(codes.Unavailable, "it sent no HTTP/2 settings in time"))
	}
	return made, made.failure()
}

func (c *Client) add(made *conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.conns[made] = struct{}{}
	return true
}

// retire lets no more calls begin on a connection.
func (c *Client) retire(old *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ready == old {
		c.ready = nil
	}
}

func (c *Client) remove(old *conn) {
	c.retire(old)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, old)
}

// Close ends all calls, and waits for the goroutines of c.
func (c *Client) Close() {
	c.cancel()
	c.mu.Lock()
	c.closed = true
	var open []*conn
	for one := range c.conns {
		open = append(open, one)
	}
	c.mu.Unlock()
	for _, one := range open {
		one.abort(errClosed)
	}
	c.tasks.Wait()
}
