package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/h2"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/httpapi"
	"github.com/ringside-cache/ringside/sidecar/local/httpserver"
	"github.com/ringside-cache/ringside/sidecar/local/respserver"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
)

// Server serves applications. Each of its Serve methods may be called for several listeners.
type Server struct {
	backend *api.Backend
	watches *watch.Engine

	http, unixHTTP       *httpserver.Server
	grpc, unixGRPC       callServer
	redis, unixRedis     *respserver.Server
	otlpHTTP             *httpserver.Server // nil without Config.OTLP
	otlpGRPC             *h2.Server
	routed               *httpserver.Server // HTTP/1.1 of the routed listener
	routedCalls          callServer         // HTTP/2 of the routed listener
	health, routedHealth *health.Server

	base     context.Context // parent of every HTTP request
	endBase  context.CancelFunc
	draining context.Context // ends when Shutdown begins
	drain    context.CancelFunc
	quiet    context.Context // ends when Shutdown closes the connections without a request
	endQuiet context.CancelFunc

	mu        sync.Mutex // guards the fields below
	stopped   bool
	listeners []*listen.Listener

	handshakes listen.HandshakeStats // of routed clients; package mtls counts them by reason
	loops      sync.WaitGroup        // running Serve methods; Add only under mu while !stopped
}

// New returns a Server of datasets that does not serve anything yet.
func New(config Config, datasets api.Datasets) *Server {
	s := &Server{health: health.NewServer(), routedHealth: health.NewServer()}
	s.base, s.endBase = context.WithCancel(context.Background())
	s.draining, s.drain = context.WithCancel(context.Background())
	s.quiet, s.endQuiet = context.WithCancel(context.Background())
	s.backend = api.NewBackend(s.draining, config, datasets)
	s.watches = watch.NewEngine(s.backend)
	stats := s.backend.Stats()
	s.http = httpserver.New(s.base, s.newHandler(httpapi.Options{Stats: &stats.HTTP}), caller.Of)
	s.unixHTTP = httpserver.New(s.base, s.newHandler(httpapi.Options{Stats: &stats.Unix, AnyHost: true}), caller.Of)
	s.grpc, s.unixGRPC = s.newGRPC(&stats.GRPC), s.newGRPC(&stats.Unix)
	s.redis = respserver.New(s.base, s.backend, s.watches, &stats.Redis)
	s.unixRedis = respserver.New(s.base, s.backend, s.watches, &stats.Unix)
	s.newRouted(&stats.Routed)
	s.newOTLP(&stats.OTLP)
	s.SetServing(false)
	return s
}

func (s *Server) newHandler(o httpapi.Options) *httpapi.Handler {
	return httpapi.New(s.backend, s.watches, o)
}

// Stats returns the live counters.
func (s *Server) Stats() *Stats { return s.backend.Stats() }

// Config returns the configuration with its defaults filled in: the limits that belong to Stats.
func (s *Server) Config() Config { return *s.backend.Config() }

// SetServing sets the status that grpc.health.v1 reports for the sidecar and for each service of each listener. It is
// NOT_SERVING at first.
func (s *Server) SetServing(serving bool) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		status = healthpb.HealthCheckResponse_SERVING
	}
	setStatus(s.health, s.grpc.grpc, status)
	setStatus(s.routedHealth, s.routedCalls.grpc, status)
}

func setStatus(h *health.Server, g *grpc.Server, status healthpb.HealthCheckResponse_ServingStatus) {
	h.SetServingStatus("", status)
	for name := range g.GetServiceInfo() {
		h.SetServingStatus(name, status)
	}
}

// ServeHTTP serves HTTP on ln until Shutdown, which makes it return nil, or until ln fails. It closes ln.
func (s *Server) ServeHTTP(ln net.Listener) error {
	return s.serve(s.bounded(ln, &s.Stats().HTTP, listen.HTTP1Bytes, tooManyConnections(), true),
		func(b *listen.Listener) error { return s.http.Serve(b) })
}

// ServeGRPC serves gRPC on ln until Shutdown, which makes it return nil, or until ln fails. It closes ln.
func (s *Server) ServeGRPC(ln net.Listener) error {
	return s.serve(s.bounded(ln, &s.Stats().GRPC, listen.HTTP2Bytes, nil, s.grpc.h2 != nil),
		func(b *listen.Listener) error { return s.grpc.serve(b) })
}

// ServeRedis serves the Redis protocol on ln until Shutdown, which makes it return nil, or until ln fails. It closes ln.
func (s *Server) ServeRedis(ln net.Listener) error {
	return s.serve(s.bounded(ln, &s.Stats().Redis, listen.HTTP1Bytes, tooManyRedisConnections, true),
		func(b *listen.Listener) error { return s.redis.Serve(b) })
}

// ServeOTLP serves Config.OTLP, over gRPC and HTTP/1.1, on ln until Shutdown, which makes it return nil, or until ln fails. It closes
// ln.
func (s *Server) ServeOTLP(ln net.Listener) error {
	return s.serve(s.bounded(ln, &s.Stats().OTLP, listen.HTTP2Bytes, nil, true), func(b *listen.Listener) error {
		return listen.Demux(s.quiet, b, s.http2(), s.otlpGRPC.Serve, s.otlpHTTP.Serve)
	})
}

// ServeUnix serves HTTP, gRPC and, with Config.Redis, the Redis protocol on ln, which ListenUnix returned, until Shutdown,
// which makes it return nil, or until ln fails. It closes ln.
func (s *Server) ServeUnix(ln net.Listener) error {
	others := s.unixHTTP.Serve
	if s.backend.Config().Redis {
		others = func(ln net.Listener) error { // programs send commands as arrays, and no request of HTTP begins so
			rule := listen.Rule{Prefix: "*", Timeout: s.backend.Config().ReadTimeout}
			return listen.Demux(s.quiet, ln, rule, s.unixRedis.Serve, s.unixHTTP.Serve)
		}
	}
	return s.serve(s.bounded(ln, &s.Stats().Unix, listen.HTTP2Bytes, nil, s.unixGRPC.h2 != nil), func(b *listen.Listener) error {
		return listen.Demux(s.quiet, b, s.http2(), s.unixGRPC.serve, others)
	})
}

// http2 selects the connections that speak HTTP/2.
func (s *Server) http2() listen.Rule {
	return listen.Rule{Prefix: listen.HTTP2Preface, Timeout: s.backend.Config().ReadTimeout}
}

// ServeRouted serves clients that route by the ring themselves, such as Envoy or a gRPC client with the feed of package
// xds: HTTP/1.1, HTTP/2 and gRPC on one listener, with TLS unless handshake is nil: that authenticates a client and returns a
// *tls.Conn. A key that this member does not own is read as for an application, with one peer fetch. It returns nil after
// Shutdown, or an error if ln fails. It closes ln.
func (s *Server) ServeRouted(ln net.Listener, handshake func(net.Conn) (net.Conn, error)) error {
	bounded := listen.New(ln, listen.Config{ // the peer listener has taken the bytes of its connections
		MaxConns: s.backend.Config().MaxRoutedConns, Stats: &s.Stats().Routed.Conns, KeepIdle: keepIdle})
	return s.serve(bounded, func(b *listen.Listener) error {
		if handshake == nil {
			return listen.Demux(s.quiet, b, s.http2(), s.routedCalls.h2.Serve, s.routed.Serve)
		}
		secure := listen.Handshaken(b, &s.handshakes, handshake)
		return errors.Join(s.serveSecure(secure), secure.Close())
	})
}

// keepIdle is how long a connection of a client's pool is not closed for a new connection.
const keepIdle = time.Second

// bounded limits the connections of ln. waits: their servers tell whether they wait for their client (listen.Place), as grpc-go
// does not; then a new connection can take the place of one that waits.
func (s *Server) bounded(ln net.Listener, stats *Protocol, connBytes int64, refusal []byte, waits bool) *listen.Listener {
	c := s.backend.Config()
	return listen.New(ln, listen.Config{
		MaxConns: c.MaxConns, Stats: &stats.Conns, Refusal: refusal, KeepIdle: keepIdle, Waits: waits, //guard:running-call-of-grpc-go-loses-its-connection
		Bytes: c.Budget.Account(budget.Connections, c.ConnShare), ConnBytes: connBytes,
	})
}

// tooManyRedisConnections is the reply to a connection of the Redis protocol over the limit, as Redis has it.
var tooManyRedisConnections = []byte("-ERR max number of clients reached\r\n")

// tooManyConnections is the response to an HTTP connection over the limit. Nothing reads a request, so that it is written
// by hand.
func tooManyConnections() []byte {
	refusal := &apierror.Error{Type: apierror.TooManyConnections, RetryAfter: time.Second,
		Detail: "the listener has reached its connection limit; keep connections open and reuse them"}
	body := refusal.JSON()
	return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: %s\r\nContent-Length: %d\r\n"+
		"Retry-After: 1\r\nConnection: close\r\n\r\n%s", apierror.ContentType, len(body), body)
}

func (s *Server) serve(b *listen.Listener, loop func(*listen.Listener) error) error {
	if !s.add(b) {
		return b.Close()
	}
	defer s.loops.Done()
	err := errors.Join(loop(b), closeAgain(b))
	if err == nil || s.draining.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve on %s: %w", b.Addr(), err)
}

// closeAgain closes b, which its server may have closed before.
func closeAgain(b *listen.Listener) error {
	if err := b.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (s *Server) add(b *listen.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.listeners = append(s.listeners, b)
	s.loops.Add(1)
	return true
}

// Shutdown stops accepting, lets running requests end until ctx is done, and then closes what is left; it returns the
// error of ctx in that case. After it no Serve method is running, nor will be.
func (s *Server) Shutdown(ctx context.Context) error {
	s.SetServing(false)
	s.watches.Stop()
	listeners := s.stop()
	s.drain()
	for _, b := range listeners {
		_ = b.Close() // it refuses connections from now on, even if it returns an error
	}
	s.awaitSent(ctx)
	var servers sync.WaitGroup
	for _, h := range []*httpserver.Server{s.http, s.unixHTTP, s.routed} {
		servers.Go(func() { _ = h.Shutdown(ctx) }) // its error is that of ctx
	}
	for _, r := range []*respserver.Server{s.redis, s.unixRedis} {
		servers.Go(func() { _ = r.Shutdown(ctx) }) // its error is that of ctx
	}
	if s.otlpHTTP != nil {
		servers.Go(func() { _ = s.otlpHTTP.Shutdown(ctx) }) // its error is that of ctx
		servers.Go(func() { _ = s.otlpGRPC.Shutdown(ctx) })
	}
	for _, c := range []callServer{s.grpc, s.unixGRPC, s.routedCalls} {
		servers.Go(func() { c.stop(ctx) })
	}
	cut := context.AfterFunc(ctx, func() { closeConns(listeners) })
	servers.Wait()
	s.watches.Wait() // they end by themselves, except one that is blocked in a write
	cut()
	s.endBase()
	closeConns(listeners)
	s.loops.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("stop the local listeners: requests were cut off: %w", err)
	}
	return nil
}

// sentTimeout is how long a request may take from a client to this process.
const sentTimeout = 50 * time.Millisecond

// awaitSent waits until the requests that clients have sent before they could know of the stop are here: a connection that is
// closed instead fails them. Their responses ask the clients to close.
func (s *Server) awaitSent(ctx context.Context) {
	defer s.endQuiet()
	ctx, cancel := context.WithTimeout(ctx, sentTimeout)
	defer cancel()
	_ = task.Every(ctx, time.Millisecond, func() {
		stats, open := s.Stats(), int64(0)
		for _, p := range []*Protocol{&stats.HTTP, &stats.GRPC, &stats.Redis, &stats.OTLP, &stats.Unix, &stats.Routed} {
			open += p.Conns.Open.Load()
		}
		if open == 0 {
			cancel()
		}
	})
}

func closeConns(listeners []*listen.Listener) {
	for _, b := range listeners {
		b.CloseConns()
	}
}

func (s *Server) stop() []*listen.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	return s.listeners
}
