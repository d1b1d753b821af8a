// Package httpserver reads HTTP requests for package httpapi and writes its responses: with fasthttp for applications on
// the same host (Server), and with net/http for clients that route by the ring (RoutedHandler).
package httpserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"net/textproto"
	"sync"
	"unsafe"

	"github.com/valyala/fasthttp"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/httpapi"
)

// Server serves HTTP/1.1 with fasthttp.
type Server struct {
	fasthttp *fasthttp.Server
	handler  *httpapi.Handler
	backend  *api.Backend
	base     context.Context // ends when requests must
	contexts sync.Pool       // of *httpapi.RequestContext
}

// New returns a Server. base is the parent context of all requests.
func New(base context.Context, handler *httpapi.Handler) *Server {
	s := &Server{handler: handler, backend: handler.Backend(), base: base, contexts: newContexts()}
	config := s.backend.Config()
	s.fasthttp = &fasthttp.Server{
		Handler:      s.handle,
		ErrorHandler: s.unreadable,
		// It also writes the response, against the advice of the library: a status alone is not a problem document.
		ExpectHandler: s.expect,
		Logger:        discard{},
		// The listener bounds the connections. fasthttp would count idle workers, too.
		Concurrency:                  2 * config.MaxConns,
		ReadBufferSize:               config.MaxHeaderBytes,
		MaxRequestBodySize:           config.MaxBodyBytes,
		ReadTimeout:                  config.ReadTimeout,
		WriteTimeout:                 config.WriteTimeout,
		IdleTimeout:                  config.IdleTimeout,
		LazyRequestTime:              true,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		DisablePreParseMultipartForm: true,
	}
	return s
}

func newContexts() sync.Pool {
	return sync.Pool{New: func() any { return httpapi.NewRequestContext() }}
}

// Serve serves the connections of ln until it is closed.
func (s *Server) Serve(ln net.Listener) error { return s.fasthttp.Serve(lingeringListener{ln}) }

// Shutdown waits for running requests until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.fasthttp.ShutdownWithContext(ctx) }

// discard drops the log of fasthttp, which has a line for every client that disconnects. Counters have what matters.
type discard struct{}

func (discard) Printf(string, ...any) {}

func (s *Server) handle(x *fasthttp.RequestCtx) {
	c := s.contexts.Get().(*httpapi.RequestContext)
	h := &x.Request.Header
	protocol := view(h.Protocol())
	c.Caller = callerOf(x.Conn())
	c.HTTP11 = protocol == "HTTP/1.1"
	if !c.HTTP11 && protocol != "HTTP/1.0" {
		c.Fail(apierror.New(apierror.HTTPVersion, "this listener supports HTTP/1.1"))
	} else if readHeader(c, h) {
		c.Content = x.Request.Body()
		s.handler.Handle(s.base, c)
	}
	if s.backend.Stopping().Err() != nil {
		x.SetConnectionClose()
	}
	write(x, &c.Response)
	if c.Watch != nil {
		s.watch(x, c.Watch, c.HTTP11)
	}
	c.Recycle()
	s.contexts.Put(c)
}

// view returns b as a string without a copy: valid as long as b is not modified.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// readHeader reads everything that a response may depend on, except the content, or fails the response. If a request has
// a trailer section, readHeader parses the header again: fasthttp merges the fields of both, and those of a trailer have
// no meaning here (RFC 9110, 6.5.1).
func readHeader(c *httpapi.RequestContext, h *fasthttp.RequestHeader) (ok bool) {
	c.Method, c.Target, c.Host = view(h.Method()), view(h.RequestURI()), view(h.Host())
	if len(h.PeekTrailerKeys()) == 0 { //guard:trailer-taken-for-header
		c.ReadHeader(fastHeader{h})
		return true
	}
	fields, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(h.RawHeaders()))).ReadMIMEHeader()
	if err != nil {
		c.Fail(apierror.New(apierror.MalformedRequest, "the header of a request with a trailer section is not valid"))
		return false
	}
	c.ReadHeader(netHeader(fields))
	return true
}

// expect handles a request with Expect: 100-continue. It returns 100, or the status of the response that the client gets
// instead (RFC 9110, 10.1.1).
func (s *Server) expect(x *fasthttp.RequestCtx) int {
	h := &x.Request.Header
	if h.ContentLength() > s.fasthttp.MaxRequestBodySize { //guard:100-continue-for-too-large-content
		s.unreadable(x, fasthttp.ErrBodyTooLarge)
		return x.Response.StatusCode()
	}
	c := s.contexts.Get().(*httpapi.RequestContext)
	defer s.contexts.Put(c)
	defer c.Recycle()
	c.Caller = callerOf(x.Conn())
	c.HTTP11 = true                                    // fasthttp calls expect for no other version
	if readHeader(c, h) && !s.handler.RefuseEarly(c) { //guard:100-continue-for-refused-request
		return fasthttp.StatusContinue
	}
	write(x, &c.Response)
	closeLingering(x.Conn()) // the client may send the content without waiting
	return c.Status
}

// fastHeader is the header of a request as fasthttp has it.
type fastHeader struct{ *fasthttp.RequestHeader }

// Joined implements httpapi.Header.
func (h fastHeader) Joined(name string) string {
	lines := h.PeekAll(name)
	switch {
	case len(lines) == 0:
		return ""
	case len(lines) == 1 && len(lines[0]) == 0:
		return " " //guard:empty-if-match-writes-unconditionally
	case len(lines) == 1:
		return view(lines[0])
	}
	all := string(lines[0])
	for _, line := range lines[1:] {
		all += ", " + string(line)
	}
	return all
}

func write(x *fasthttp.RequestCtx, r *httpapi.Response) {
	h := &x.Response.Header
	h.SetStatusCode(r.Status)
	if r.ContentType != "" {
		h.SetContentType(r.ContentType)
	}
	for _, f := range r.Fields {
		h.SetCanonical(unsafe.Slice(unsafe.StringData(f.Name), len(f.Name)), f.Value)
	}
	x.Response.SetBodyRaw(r.Body)
}

// unreadable responds to a request that could not be read. err quotes the request and is not shown. The client may still
// be sending, unless it was too slow.
func (s *Server) unreadable(x *fasthttp.RequestCtx, err error) {
	var r httpapi.Response
	e := s.readError(err)
	r.Fail(e)
	write(x, &r)
	if e.Type != apierror.RequestTimeout { //guard:refusal-lost-to-reset
		closeLingering(x.Conn())
	}
}

func headerTooLarge() *apierror.Error {
	return apierror.New(apierror.HeaderTooLarge, "the request line and the headers exceed the limit of this listener")
}

func (s *Server) readError(err error) *apierror.Error {
	var tooSmall *fasthttp.ErrSmallBuffer
	switch stats := s.handler.Stats; {
	case errors.As(err, &tooSmall):
		stats.HeaderRefused.Add(1)
		return headerTooLarge()
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return bodyTooLarge(stats)
	case isTimeout(err):
		return requestTimeout(stats)
	default:
		stats.Malformed.Add(1)
	}
	return apierror.New(apierror.MalformedRequest, "the request is not valid HTTP/1.1 (RFC 9112)")
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func bodyTooLarge(stats *api.Protocol) *apierror.Error {
	stats.BodyRefused.Add(1)
	return apierror.New(apierror.BodyTooLarge, "the body exceeds the size limit of a value; split a batch into several requests")
}

func requestTimeout(stats *api.Protocol) *apierror.Error {
	stats.ReadTimeouts.Add(1)
	return apierror.New(apierror.RequestTimeout, "the request did not arrive in time; the connection is closed")
}
