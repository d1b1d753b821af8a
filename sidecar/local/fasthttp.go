package local

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
)

// httpServer lets fasthttp read requests for an entrance and write its answers.
type httpServer struct {
	*fasthttp.Server
	entrance *entrance
	base     context.Context // ends when requests must
	calls    sync.Pool       // of *call
}

func newHTTPServer(base context.Context, e *entrance) *httpServer {
	s := &httpServer{entrance: e, base: base, calls: sync.Pool{New: func() any { return newCall() }}}
	config := e.server.config
	s.Server = &fasthttp.Server{
		Handler:      s.handle,
		ErrorHandler: s.unreadable,
		// It writes the answer, too, against the library's advice: a status alone is no problem document.
		ExpectHandler: s.expect,
		Logger:        discard{},
		// The bound on connections is the listener's. fasthttp would count idle workers into its own.
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

// discard drops what fasthttp logs: every client that goes away. What matters is counted.
type discard struct{}

func (discard) Printf(string, ...any) {}

func (s *httpServer) handle(x *fasthttp.RequestCtx) {
	c := s.calls.Get().(*call)
	h := &x.Request.Header
	protocol := view(h.Protocol())
	c.http11 = protocol == "HTTP/1.1"
	if !c.http11 && protocol != "HTTP/1.0" {
		c.fail(apierror.New(apierror.HTTPVersion, "this listener speaks HTTP/1.1"))
	} else if c.readHeader(h) {
		c.content = x.Request.Body()
		s.entrance.answer(s.base, c)
	}
	if s.entrance.server.draining.Err() != nil {
		x.SetConnectionClose()
	}
	write(x, &c.response)
	if c.watching != nil {
		s.watch(x, c.watching, c.http11)
	}
	c.recycle()
	s.calls.Put(c)
}

// readHeader takes what an answer may depend on, but for the content, or answers that it can not. Of a request with a
// trailer section the header is read again: fasthttp puts the fields of both together, and those of a trailer mean
// nothing here (RFC 9110, 6.5.1).
func (c *call) readHeader(h *fasthttp.RequestHeader) (ok bool) {
	c.method, c.target, c.host = view(h.Method()), view(h.RequestURI()), view(h.Host())
	if len(h.PeekTrailerKeys()) == 0 { //guard:trailer-says-header-must
		c.read(requestHeader{h})
		return true
	}
	fields, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(h.RawHeaders()))).ReadMIMEHeader()
	if err != nil {
		c.fail(apierror.New(apierror.MalformedRequest, "the header of a request with a trailer section is not valid"))
		return false
	}
	c.read(netHeader(fields))
	return true
}

// expect says whether a client that asks first may send its content: 100, or the status of the answer that it has then
// (RFC 9110, 10.1.1).
func (s *httpServer) expect(x *fasthttp.RequestCtx) int {
	h := &x.Request.Header
	if h.ContentLength() > s.MaxRequestBodySize { //guard:asks-first-sends-too-large
		s.unreadable(x, fasthttp.ErrBodyTooLarge)
		return x.Response.StatusCode()
	}
	c := s.calls.Get().(*call)
	defer s.calls.Put(c)
	defer c.recycle()
	c.http11 = true                                    // fasthttp asks for no other version
	if c.readHeader(h) && !s.entrance.refuseEarly(c) { //guard:asks-first-sends-nobody-takes
		return fasthttp.StatusContinue
	}
	write(x, &c.response)
	linger(x.Conn()) // it need not have waited
	return c.status
}

// requestHeader is the header of a request as fasthttp has it.
type requestHeader struct{ *fasthttp.RequestHeader }

func (h requestHeader) joined(name string) string {
	lines := h.PeekAll(name)
	switch {
	case len(lines) == 0:
		return ""
	case len(lines) == 1 && len(lines[0]) == 0:
		return " " //guard:empty-ifmatch-writes-unconditionally
	case len(lines) == 1:
		return view(lines[0])
	}
	all := string(lines[0])
	for _, line := range lines[1:] {
		all += ", " + string(line)
	}
	return all
}

func write(x *fasthttp.RequestCtx, r *response) {
	h := &x.Response.Header
	h.SetStatusCode(r.status)
	if r.contentType != "" {
		h.SetContentType(r.contentType)
	}
	for _, f := range r.fields {
		h.SetCanonical(unsafe.Slice(unsafe.StringData(f.name), len(f.name)), f.value)
	}
	x.Response.SetBodyRaw(r.body)
}

// unreadable answers a request that could not be read. err quotes the request, so it is not repeated. The client may
// still be sending, unless that was what took too long.
func (s *httpServer) unreadable(x *fasthttp.RequestCtx, err error) {
	var r response
	f := s.classify(err)
	r.fail(f)
	write(x, &r)
	if f.Type != apierror.RequestTimeout { //guard:refusal-lost-reset
		linger(x.Conn())
	}
}

func (s *httpServer) classify(err error) *apierror.Error {
	stats := s.entrance.stats
	var tooSmall *fasthttp.ErrSmallBuffer
	var timeout net.Error
	switch {
	case errors.As(err, &tooSmall):
		stats.HeaderRefused.Add(1)
		return apierror.New(apierror.HeaderTooLarge, "request line and headers are larger than this listener takes")
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		stats.BodyRefused.Add(1)
		return apierror.New(apierror.BodyTooLarge, "the body is larger than any value can be; send a batch in parts")
	case errors.As(err, &timeout) && timeout.Timeout():
		stats.ReadTimeouts.Add(1)
		return apierror.New(apierror.RequestTimeout, "the request did not arrive in time; the connection is closed")
	}
	stats.Malformed.Add(1)
	return apierror.New(apierror.MalformedRequest, "the request is not valid HTTP/1.1 (RFC 9112)")
}
