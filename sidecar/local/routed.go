package local

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/h2"
	"github.com/ringside-cache/ringside/sidecar/internal/headerlimit"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/grpcapi"
	"github.com/ringside-cache/ringside/sidecar/local/httpapi"
	"github.com/ringside-cache/ringside/sidecar/local/httpserver"
)

// newRouted makes the servers for clients that route by the ring. Their listener has HTTP/1.1, which net/http reads, and
// HTTP/2 with gRPC and HTTP side by side, which h2 reads.
func (s *Server) newRouted(stats *Protocol) {
	g := grpcapi.NewServer(s.backend, s.watches, stats, true)
	healthpb.RegisterHealthServer(g, s.routedHealth)
	handler := s.identified(httpserver.NewRouted(s.newHandler(httpapi.Options{Stats: stats, AnyHost: true, Routed: true}), g))
	limits := s.backend.Config()
	config := s.h2Config()
	config.Handler, config.Fast = handler, grpcapi.NewFast(s.backend, stats)
	config.IdleTimeout, config.ConnContext = limits.IdleTimeout, s.withRoutedCaller
	config.Problem = func(status int, detail string) (string, []byte) { return routedProblem(stats, status, detail) }
	s.routedCalls = callServer{g, h2.New(config)}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	s.routed = &http.Server{
		Handler: handler, Protocols: protocols,
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){
			"h2": func(_ *http.Server, c *tls.Conn, _ http.Handler) { s.routedCalls.h2.ServeConn(c) },
		},
		ConnContext:       withAccepted,
		ConnState:         listen.ConnState,
		ReadHeaderTimeout: limits.ReadTimeout,
		IdleTimeout:       limits.IdleTimeout,
		MaxHeaderBytes:    max(limits.MaxHeaderBytes, headerlimit.ParsedBytes), // the handler has the limit
		BaseContext:       func(net.Listener) context.Context { return s.base },
		ErrorLog:          log.New(io.Discard, "", 0), // it has a line for every client that disconnects
	}
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

// withRoutedCaller adds who is at the other end of a connection that speaks HTTP/2.
func (s *Server) withRoutedCaller(ctx context.Context, c net.Conn) context.Context {
	identify := s.backend.Config().RoutedCaller
	if identify == nil {
		return caller.With(ctx, caller.Of(c))
	}
	if secure, ok := c.(*tls.Conn); ok {
		state := secure.ConnectionState()
		return caller.With(ctx, identify(&state, c.RemoteAddr())) //guard:fast-path-does-not-know-routed-caller
	}
	return caller.With(ctx, identify(nil, c.RemoteAddr()))
}

type acceptedKey struct{}

// withAccepted adds when a connection was accepted, and who is at its other end as far as it shows that without TLS.
func withAccepted(ctx context.Context, c net.Conn) context.Context {
	return caller.With(context.WithValue(listen.WithPlace(ctx, c), acceptedKey{}, time.Now()), caller.Of(c))
}

// identified puts the caller into the context of each request, and limits the life of connections with TLS: first each response
// asks the client to reconnect (Connection: close), then running requests end. On HTTP/2, h2 does this.
func (s *Server) identified(next http.Handler) http.Handler {
	identify := s.backend.Config().RoutedCaller
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if identify != nil {
			ctx = caller.With(ctx, identify(r.TLS, remote(r)))
		}
		if accepted, ok := ctx.Value(acceptedKey{}).(time.Time); ok && r.TLS != nil {
			life := listen.LifeOf(accepted, r.TLS)
			if !time.Now().Before(life.Drain) { //guard:routed-connection-outlives-certificate
				w.Header().Set("Connection", "close")
			}
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, life.End) //guard:routed-stream-outlives-certificate
			defer cancel()
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// remote returns the address of the client; nil if it is not TCP.
func remote(r *http.Request) net.Addr {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return nil
	}
	return net.TCPAddrFromAddrPort(addr)
}
