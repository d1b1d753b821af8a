package local

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// ServeRouted answers clients that route by the ring themselves, such as an Envoy or a gRPC client with the feed of
// package xds: HTTP/1.1, HTTP/2 and gRPC on one listener, with TLS unless config is nil. A key that this member does
// not own is read as an application's would be, with one hop. It returns nil after Shutdown, or an error when ln fails.
// It closes ln.
//
// These connections carry HTTP and gRPC side by side, which fasthttp and grpc's own transport cannot: net/http reads
// them.
func (s *Server) ServeRouted(ln net.Listener, config *tls.Config) error {
	bounded := listen.New(ln, listen.Config{MaxConns: s.config.MaxRoutedConns, Stats: &s.stats.Routed.Conns})
	return s.serve(bounded, func(b *listen.Listener) error {
		if config == nil {
			return s.routed.Serve(b)
		}
		return s.routed.Serve(tls.NewListener(b, config))
	})
}

func (s *Server) newRouted() *http.Server {
	handler := &routedHandler{
		entrance: &entrance{server: s, stats: &s.stats.Routed, hosts: newHosts(s.config.Hosts), anyHost: true,
			routed: true},
		grpc:  s.routedGRPC,
		calls: sync.Pool{New: func() any { return newCall() }},
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: handler, Protocols: protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: s.config.MaxStreams},
		ReadHeaderTimeout: s.config.ReadTimeout,
		IdleTimeout:       s.config.IdleTimeout,
		MaxHeaderBytes:    s.config.MaxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return s.base },
		ErrorLog:          log.New(io.Discard, "", 0), // every client that goes away; what matters is counted
	}
}

// stopRouted lets running requests end until ctx is done. Only then may the gRPC server stop: it cannot tell calls that
// net/http has read to go elsewhere, and panics when it has to.
func (s *Server) stopRouted(ctx context.Context) {
	_ = s.routed.Shutdown(ctx) // its error is ctx's
	s.routedGRPC.Stop()
}

// routedHandler lets net/http read requests for an entrance, and calls for a gRPC server, on the same connections.
type routedHandler struct {
	entrance *entrance
	grpc     http.Handler
	calls    sync.Pool // of *call
}

// ServeHTTP implements http.Handler.
func (h *routedHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		h.grpc.ServeHTTP(w, r)
		return
	}
	c := h.calls.Get().(*call)
	h.read(c, w, r)
	if c.response.status == 0 {
		h.entrance.answer(r.Context(), c)
	}
	writeRouted(w, &c.response)
	c.recycle()
	h.calls.Put(c)
}

// read fills in the request of c, or its response when the body cannot be read.
func (h *routedHandler) read(c *call, w http.ResponseWriter, r *http.Request) {
	config := h.entrance.server.config
	c.method, c.target, c.host, c.http11 = r.Method, r.RequestURI, r.Host, r.ProtoAtLeast(1, 1)
	c.request.read(netHeader(r.Header))
	// Timeouts of the server would end long calls, too. The writer has deadlines on every protocol.
	control, now := http.NewResponseController(w), time.Now()
	_ = control.SetWriteDeadline(now.Add(config.RequestTimeout + config.WriteTimeout))
	if r.ContentLength == 0 { //guard:routed-request-cut-off-time-arrival
		return
	}
	_ = control.SetReadDeadline(now.Add(config.ReadTimeout))
	content, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(config.MaxBodyBytes)))
	if err != nil {
		c.fail(h.unreadable(err))
		return
	}
	// net/http reads on to see whether the client goes, and takes a deadline that passes for that.
	_ = control.SetReadDeadline(time.Time{})
	c.content = content
}

// netHeader is the header of a request as net/http has it.
type netHeader http.Header

func (h netHeader) joined(name string) string {
	lines := http.Header(h).Values(name) // net/http spells some names in its own way, such as Last-Event-Id
	if len(lines) == 1 && lines[0] == "" {
		return " "
	}
	return strings.Join(lines, ", ")
}

func (h *routedHandler) unreadable(err error) *apierror.Error {
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	switch {
	case errors.As(err, &tooLarge):
		h.entrance.stats.BodyRefused.Add(1)
		return apierror.New(apierror.BodyTooLarge, "the body is larger than any value can be; send a batch in parts")
	case errors.As(err, &timeout) && timeout.Timeout():
		h.entrance.stats.ReadTimeouts.Add(1)
		return apierror.New(apierror.RequestTimeout, "the request did not arrive in time; the connection is closed")
	}
	h.entrance.stats.Malformed.Add(1)
	return apierror.New(apierror.MalformedRequest, "the body of the request did not arrive as a whole")
}

func writeRouted(w http.ResponseWriter, r *response) {
	header := w.Header()
	for _, f := range r.fields {
		header[f.name] = []string{string(f.value)}
	}
	header["Content-Type"] = nil // net/http would guess one
	if r.contentType != "" {
		header["Content-Type"] = []string{r.contentType}
	}
	w.WriteHeader(r.status)
	// A client that went away is no failure of ours.
	_, _ = w.Write(r.body)
}
