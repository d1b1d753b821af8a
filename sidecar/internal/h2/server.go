// Package h2 is an HTTP/2 server (RFC 9113) whose connections cannot make the process hold more memory than they have paid
// for. It passes requests to an http.Handler, such as a grpc.Server, and lets a Fast answer those that need no waiting.
//
// DESIGN.md says what a connection may hold and what happens to a request that would need more.
package h2

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/header"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// Config describes a Server. Every field except Handler may be zero.
type Config struct {
	// Handler answers the requests that Fast does not, each in a goroutine of its own. A grpc.Server needs GRPCOptions.
	Handler http.Handler
	// Fast may be nil.
	Fast Fast
	// Budget limits the bytes that requests hold; nil means no limit.
	Budget *budget.Budget
	// MaxStreams is how many requests of a connection may run at once; 256 by default. A request whose client has reset it
	// runs until its handler has returned.
	MaxStreams uint32
	// MaxHeaderBytes limits the header list of a request, counted as in RFC 9113, 6.5.2; 16 KiB by default. A larger header
	// fails its request only, up to headerlimit.ParsedBytes.
	MaxHeaderBytes int
	// MaxBody returns the size of the largest message (gRPC) or body of a request to a path; nil means 1 MiB + 8 KiB.
	MaxBody func(path string) int64
	// MessageTimeout is the time for the arrival of the connection preface, of each message of a gRPC call, and of the body of
	// another request; 5 s by default.
	MessageTimeout time.Duration
	// WriteTimeout is how long a client may accept nothing of a response, or nothing at all; 10 s by default. Then its
	// stream, or its connection, is closed.
	WriteTimeout time.Duration
	// IdleTimeout closes a connection without requests; zero means never.
	IdleTimeout time.Duration
	// MaxAge closes a connection after about that time; zero means never. Running requests get MaxAgeGrace to end.
	MaxAge, MaxAgeGrace time.Duration
	// PingInterval is how long a client may be silent before it is asked for a sign of life, which it has PingTimeout to give;
	// 1 min and 10 s by default.
	PingInterval, PingTimeout time.Duration
	// ConnContext derives the context of a connection's requests; may be nil.
	ConnContext func(context.Context, net.Conn) context.Context
	// Problem returns the body of a response to a request that is not gRPC and that the server refuses; may be nil.
	Problem func(status int, detail string) (contentType string, body []byte)
	// Defect is called with the value of a panic of Handler or Fast; may be nil.
	Defect func(recovered any)
}

// Fast answers complete unary gRPC requests in the goroutine that reads the connection. It must not block.
type Fast interface {
	// Match reports whether Append may answer this path; it is called once per HEADERS, before the message arrives.
	Match(path string) bool
	// Append appends the response message (without the 5-byte prefix) to dst: at most limit bytes. ok is false for everything
	// that is not an immediate answer; then the request goes to Handler as if Fast did not exist.
	Append(ctx context.Context, call Call, message, dst []byte, limit int) (response []byte, ok bool)
}

// Call is what a Fast may know of a request. It is valid until Append returns.
type Call struct {
	Path string
	head *header.Head
}

// Joined returns the value of a field, whose name has lower-case letters; several are joined with commas. It is empty if there is
// none.
func (c Call) Joined(name string) string {
	if c.head == nil {
		return ""
	}
	return c.head.Joined(name)
}

func (c Config) withDefaults() Config {
	c.MaxStreams = cmp.Or(c.MaxStreams, 256)
	c.MaxHeaderBytes = cmp.Or(c.MaxHeaderBytes, 16<<10)
	c.MessageTimeout = cmp.Or(c.MessageTimeout, 5*time.Second)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 10*time.Second)
	c.MaxAgeGrace = cmp.Or(c.MaxAgeGrace, 30*time.Second)
	c.PingInterval, c.PingTimeout = cmp.Or(c.PingInterval, time.Minute), cmp.Or(c.PingTimeout, 10*time.Second)
	if c.MaxBody == nil {
		c.MaxBody = func(string) int64 { return 1<<20 + 8<<10 }
	}
	if c.ConnContext == nil {
		c.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { return ctx }
	}
	if c.Problem == nil {
		c.Problem = func(int, string) (string, []byte) { return "", nil }
	}
	if c.Defect == nil {
		c.Defect = func(any) {}
	}
	return c
}

// ErrSlowClient is the cause (Cause) of the end of a request whose client accepted nothing for Config.WriteTimeout. A
// handler of a grpc.Server may not learn it otherwise: Send returns before its message is sent.
var ErrSlowClient = errors.New("the client accepted nothing for too long")

// Stats are live counters of a Server.
type Stats struct {
	Fast            atomic.Int64 // requests that Fast answered
	Handled         atomic.Int64 // requests that were passed to Handler
	Refused         atomic.Int64 // requests that were refused because the budget was used up
	TooLarge        atomic.Int64 // requests whose header or message was too large
	MessageTimeouts atomic.Int64 // requests that did not arrive in time
	WriteTimeouts   atomic.Int64 // streams and connections whose client accepted nothing for too long
	Failed          atomic.Int64 // connections that were closed because of an error of the client
	Floods          atomic.Int64 // those of them that sent too many frames of no use
}

// Server serves HTTP/2 connections.
type Server struct {
	config Config
	stats  Stats

	mu       sync.Mutex // guards the fields below
	conns    map[*conn]struct{}
	draining bool
	running  sync.WaitGroup // connections; Add only under mu while !draining
	handlers sync.WaitGroup // Add only while their connection runs
}

// New returns a Server.
func New(c Config) *Server {
	return &Server{config: c.withDefaults(), conns: map[*conn]struct{}{}}
}

// Stats returns the live counters.
func (s *Server) Stats() *Stats { return &s.stats }

// Serve serves the connections of ln until Accept fails, and returns that error.
func (s *Server) Serve(ln net.Listener) error { return listen.Serve(ln, s.ServeConn) }

// ServeConn serves a connection, on which a TLS handshake is complete, until it ends. It closes it.
func (s *Server) ServeConn(nc net.Conn) {
	c := s.newConn(nc)
	c.place.at = listen.PlaceOf(nc)
	if !prepay(nc) || !s.add(c) {
		c.cancel(nil)
		_ = nc.Close() // there is no memory for it, or the server has been stopped
		return
	}
	defer s.remove(c)
	c.serve()
}

func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.conns[c] = struct{}{}
	s.running.Add(1)
	return true
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.running.Done()
}

func (s *Server) stop() (open []*conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for c := range s.conns {
		open = append(open, c)
	}
	return open
}

// Shutdown asks clients to reconnect elsewhere and lets running requests end until ctx is done. Then it closes what is left,
// and returns the error of ctx without waiting for handlers. The caller stops accepting before.
func (s *Server) Shutdown(ctx context.Context) error {
	open := s.stop()
	for _, c := range open {
		c.drain()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.running.Wait()
		s.handlers.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.Close()
		return ctx.Err()
	}
}

// Close closes all connections. It does not wait for handlers.
func (s *Server) Close() {
	for _, c := range s.stop() {
		c.abort(errStopped)
	}
	s.running.Wait()
}
