// Package httpserver reads HTTP requests for package httpapi and writes its responses: Server over HTTP/1.1, and
// RoutedHandler over HTTP/2, for clients that route by the ring.
package httpserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/http1"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/internal/ready"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/httpapi"
)

// Server serves HTTP/1.1. A connection has one goroutine, or waits in a loop for its next hit; for a hit it neither allocates nor
// parses what no response depends on.
type Server struct {
	handler     *httpapi.Handler
	backend     *api.Backend
	config      *api.Config
	base        context.Context // ends when requests must
	identify    func(net.Conn) caller.Caller
	contexts    sync.Pool // of *httpapi.RequestContext
	buffers     sync.Pool // of *[]byte of outBytes, for responses
	wideBuffers sync.Pool // of *[]byte of wideBytes
	date        atomic.Pointer[date]
	loops       *ready.Loops // for connections whose requests are hits

	conns listen.Conns[*conn]
}

// New returns a Server. base is the parent context of all requests; identify says who is at the other end of a connection.
func New(base context.Context, handler *httpapi.Handler, identify func(net.Conn) caller.Caller) *Server {
	s := &Server{handler: handler, backend: handler.Backend(), base: base, identify: identify}
	s.config, s.contexts = s.backend.Config(), newContexts()
	s.buffers.New = func() any { b := make([]byte, 0, outBytes); return &b }
	s.wideBuffers.New = func() any { b := make([]byte, 0, wideBytes); return &b }
	s.date.Store(new(date))
	s.loops = s.config.Loops
	return s
}

func newContexts() sync.Pool {
	return sync.Pool{New: func() any { return httpapi.NewRequestContext() }}
}

// Serve serves the connections of ln until it is closed.
func (s *Server) Serve(ln net.Listener) error { return listen.Serve(ln, s.ServeConn) }

// ServeConn serves a connection, on which a TLS handshake is complete, until it ends. It closes it.
func (s *Server) ServeConn(c net.Conn) {
	one := s.newConn(c)
	if !s.conns.Add(one) {
		one.life.cancel()
		_ = c.Close() // nothing has been read from it
		return
	}
	one.serve()
}

// Shutdown closes connections without a request, and waits for the requests of the others until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.conns.Shutdown(ctx) }

// date is the value of a Date field (RFC 9110, 5.6.7).
type date struct {
	second int64
	text   string
}

func (s *Server) dateOf(now time.Time) string {
	d := s.date.Load()
	if second := now.Unix(); d.second != second {
		d = &date{second, now.UTC().Format(http.TimeFormat)}
		s.date.Store(d)
	}
	return d.text
}

// readError returns the response to a request that could not be read.
func (s *Server) readError(err error) *apierror.Error {
	return readError(err, s.handler)
}

func readError(err error, h *httpapi.Handler) *apierror.Error {
	var malformed http1.Malformed
	switch stats := h.Stats; {
	case errors.Is(err, http1.ErrHeadTooLarge):
		stats.HeaderRefused.Add(1)
		return headerTooLarge()
	case errors.Is(err, errTooLarge):
		return httpapi.BodyTooLarge(stats)
	case errors.Is(err, http1.ErrNoMemory):
		return h.Backend().Error(kv.ErrNoMemory)
	case isTimeout(err):
		stats.ReadTimeouts.Add(1)
		return apierror.New(apierror.RequestTimeout, "the request did not arrive in time; the connection is closed")
	case errors.As(err, &malformed):
		stats.Malformed.Add(1)
		return apierror.New(apierror.MalformedRequest, fmt.Sprintf("the request is not valid HTTP/1.1 (RFC 9112): %v", malformed))
	}
	h.Stats.Malformed.Add(1)
	return apierror.New(apierror.MalformedRequest, "the request did not arrive completely")
}

func headerTooLarge() *apierror.Error {
	return apierror.New(apierror.HeaderTooLarge, "the request line and the headers exceed the limit of this listener")
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
