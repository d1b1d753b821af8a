package local

import (
	"context"
	"net"
	"net/http"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/h2"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/grpcapi"
	"github.com/ringside-cache/ringside/sidecar/local/httpapi"
	"github.com/ringside-cache/ringside/sidecar/local/httpserver"
)

// newRouted makes the servers for clients that route by the ring: of HTTP/1.1, and of HTTP/2 with gRPC and HTTP side by side.
func (s *Server) newRouted(stats *Protocol) {
	g := grpcapi.NewServer(s.backend, s.watches, stats, true)
	healthpb.RegisterHealthServer(g, s.routedHealth)
	handler := s.newHandler(httpapi.Options{Stats: stats, AnyHost: true, Routed: true})
	s.routed = httpserver.New(s.base, handler, s.routedCaller)
	config := s.h2Config()
	config.Handler, config.Fast = httpserver.NewRouted(handler, g), grpcapi.NewFast(s.backend, stats)
	config.IdleTimeout = s.backend.Config().IdleTimeout
	config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return caller.With(ctx, s.routedCaller(c)) }
	config.Problem = func(status int, detail string) (string, []byte) { return routedProblem(stats, status, detail) }
	s.routedCalls = callServer{g, h2.New(config)}
}

// routedProblem returns the body of the response to an HTTP request that h2 refuses, and counts it.
func routedProblem(stats *Protocol, status int, detail string) (contentType string, body []byte) {
	kind := apierror.TypeOf(kv.KindOverloaded)
	switch status {
	case http.StatusRequestHeaderFieldsTooLarge:
		stats.HeaderRefused.Add(1)
		kind = apierror.HeaderTooLarge
	case http.StatusRequestEntityTooLarge:
		stats.BodyRefused.Add(1)
		kind = apierror.BodyTooLarge
	case http.StatusRequestTimeout:
		stats.ReadTimeouts.Add(1)
		kind = apierror.RequestTimeout
	}
	return apierror.ContentType, apierror.New(kind, detail).JSON()
}

// routedCaller returns who is at the other end of a connection of a client that routes by the ring.
func (s *Server) routedCaller(c net.Conn) caller.Caller {
	identify := s.backend.Config().RoutedCaller
	if identify == nil {
		return caller.Of(c)
	}
	return identify(listen.TLSState(c), c.RemoteAddr()) //guard:routed-caller-without-certificate
}

// serveSecure serves the connections of ln, on which a TLS handshake is complete, with the protocol that it has chosen:
// HTTP/1.1 if it has chosen none.
func (s *Server) serveSecure(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		if state := listen.TLSState(c); state != nil && state.NegotiatedProtocol == "h2" {
			go s.routedCalls.h2.ServeConn(c)
		} else {
			go s.routed.ServeConn(c)
		}
	}
}
