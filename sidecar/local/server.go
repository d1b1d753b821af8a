package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// Server answers applications. Its Serve methods may be called for several listeners each.
type Server struct {
	config   Config
	datasets Datasets
	stats    Stats

	http, unixHTTP             *httpServer
	routed                     *http.Server
	grpc, unixGRPC, routedGRPC *grpc.Server
	health, routedHealth       *health.Server

	base     context.Context // of every HTTP request
	endBase  context.CancelFunc
	draining context.Context // ends when Shutdown begins
	drain    context.CancelFunc

	mu        sync.Mutex // guards the fields below
	stopped   bool
	listeners []*listen.Listener
	loops     sync.WaitGroup // running Serve methods; Add only under mu while !stopped
	watches   sync.WaitGroup // open watches; Add only under mu while !stopped
}

// New returns a Server of datasets that serves nothing yet.
func New(config Config, datasets Datasets) *Server {
	s := &Server{config: config.withDefaults(), datasets: datasets, health: health.NewServer(),
		routedHealth: health.NewServer()}
	s.base, s.endBase = context.WithCancel(context.Background())
	s.draining, s.drain = context.WithCancel(context.Background())
	s.http = newHTTPServer(s.base, &entrance{server: s, stats: &s.stats.HTTP,
		hosts: newHosts(s.config.Hosts), mount: s.config.CNFMetrics})
	s.unixHTTP = newHTTPServer(s.base, &entrance{server: s, stats: &s.stats.Unix,
		hosts: newHosts(s.config.Hosts), anyHost: true, mount: s.config.CNFMetrics})
	s.grpc, s.unixGRPC = s.newGRPC(&s.stats.GRPC, false), s.newGRPC(&s.stats.Unix, false)
	s.mountOn(s.grpc, &s.stats.GRPC)
	s.mountOn(s.unixGRPC, &s.stats.Unix)
	reflection.Register(s.grpc)
	reflection.Register(s.unixGRPC)
	s.routedGRPC = s.newGRPC(&s.stats.Routed, true)
	s.routed = s.newRouted()
	s.SetServing(false)
	return s
}

// Stats returns the live counters.
func (s *Server) Stats() *Stats { return &s.stats }

// Config returns the configuration with its defaults filled in: the bounds that belong to Stats.
func (s *Server) Config() Config { return s.config }

// SetServing says in grpc.health.v1 whether the sidecar answers reads: as a whole, and each service that a listener has. It
// does not, until told.
func (s *Server) SetServing(serving bool) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		status = healthpb.HealthCheckResponse_SERVING
	}
	tell(s.health, s.grpc, status)
	tell(s.routedHealth, s.routedGRPC, status)
}

func tell(h *health.Server, g *grpc.Server, status healthpb.HealthCheckResponse_ServingStatus) {
	h.SetServingStatus("", status)
	for name := range g.GetServiceInfo() {
		h.SetServingStatus(name, status)
	}
}

// ServeHTTP answers HTTP on ln until Shutdown, which makes it return nil, or until ln fails. It closes ln.
func (s *Server) ServeHTTP(ln net.Listener) error {
	return s.serve(s.bounded(ln, &s.stats.HTTP, tooManyConnections()),
		func(b *listen.Listener) error { return s.http.Serve(lingering{b}) })
}

// ServeGRPC answers gRPC on ln until Shutdown, which makes it return nil, or until ln fails. It closes ln.
func (s *Server) ServeGRPC(ln net.Listener) error {
	return s.serve(s.bounded(ln, &s.stats.GRPC, nil),
		func(b *listen.Listener) error { return s.grpc.Serve(b) })
}

// ServeUnix answers HTTP and gRPC on ln, which ListenUnix made, until Shutdown, which makes it return nil, or until ln
// fails. It closes ln.
func (s *Server) ServeUnix(ln net.Listener) error {
	return s.serve(s.bounded(ln, &s.stats.Unix, nil), s.serveBoth)
}

func (s *Server) bounded(ln net.Listener, p *Protocol, refusal []byte) *listen.Listener {
	return listen.New(ln, listen.Config{MaxConns: s.config.MaxConns, Stats: &p.Conns, Refusal: refusal})
}

func (s *Server) serve(b *listen.Listener, loop func(*listen.Listener) error) error {
	if !s.begin(b) {
		return b.Close()
	}
	defer s.loops.Done()
	err := errors.Join(loop(b), closed(b))
	if err == nil || s.draining.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve on %s: %w", b.Addr(), err)
}

// closed closes b, which its server may have done before.
func closed(b *listen.Listener) error {
	if err := b.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (s *Server) begin(b *listen.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.listeners = append(s.listeners, b)
	s.loops.Add(1)
	return true
}

// serveBoth gives each connection to the server whose protocol it begins with.
func (s *Server) serveBoth(b *listen.Listener) error {
	return listen.Demux(s.draining, b, listen.Rule{Prefix: listen.HTTP2Preface, Timeout: s.config.ReadTimeout},
		s.unixGRPC.Serve, func(ln net.Listener) error { return s.unixHTTP.Serve(lingering{ln}) })
}

// Shutdown stops accepting, lets running requests end until ctx is done, and then cuts off what is left; it returns
// ctx's error in that case. After it no Serve method is running, nor will be.
func (s *Server) Shutdown(ctx context.Context) error {
	s.SetServing(false)
	listeners := s.stop()
	s.drain()
	for _, b := range listeners {
		_ = b.Close() // it refuses connections from now on, whatever it says
	}
	var servers sync.WaitGroup
	for _, h := range []*httpServer{s.http, s.unixHTTP} {
		servers.Go(func() { _ = h.ShutdownWithContext(ctx) }) // its error is ctx's
	}
	for _, g := range []*grpc.Server{s.grpc, s.unixGRPC} {
		servers.Go(func() { stopGRPC(ctx, g) })
	}
	servers.Go(func() { s.stopRouted(ctx) })
	cut := context.AfterFunc(ctx, func() { closeConns(listeners) })
	servers.Wait()
	s.watches.Wait() // they end by themselves, but for one that is in the middle of a write
	cut()
	s.endBase()
	closeConns(listeners)
	s.loops.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("stop the local listeners: requests were cut off: %w", err)
	}
	return nil
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

// stopGRPC lets running calls end until ctx is done. GracefulStop alone can wait for ever.
func stopGRPC(ctx context.Context, g *grpc.Server) {
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	g.GracefulStop()
}
