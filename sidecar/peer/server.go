package peer

import (
	"cmp"
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// DefaultMaxConns is that of ServerConfig.
const DefaultMaxConns = 10_000

// ServerConfig bounds what callers may take. Every field may be left zero.
type ServerConfig struct {
	// Credentials prove who the members are to each other (see TLS); nil means plain text.
	Credentials credentials.TransportCredentials
	// MaxConns bounds the connections that are open at once; one more is closed at once. 10 000 by default.
	MaxConns int
	// MaxStreams bounds the requests under way on one connection; 4160 by default: Config.MaxCalls and room for pings.
	MaxStreams uint32
	// MaxRequestBytes bounds one request; 1 MiB and 8 KiB by default: the largest write. A Service checks each field.
	MaxRequestBytes int
	// Direct serves the connections that do not begin as a member's do: those of clients that route by the ring
	// themselves. It gets them as they were accepted, without TLS, and returns when its listener is closed. Where it is
	// nil, they are answered as members are.
	Direct func(net.Listener) error
}

// hello begins each connection from member to member, before TLS. It is nothing that HTTP or TLS begins with. The members'
// requests, which are many, so get grpc's own transport, while others may mix protocols on a connection as they like.
const hello = "ringside/1\n"

func (c ServerConfig) withDefaults() ServerConfig {
	c.MaxConns = cmp.Or(c.MaxConns, DefaultMaxConns)
	c.MaxStreams = cmp.Or(c.MaxStreams, 4160)
	c.MaxRequestBytes = cmp.Or(c.MaxRequestBytes, maxRequestBytes)
	if c.Credentials == nil {
		c.Credentials = insecure.NewCredentials()
	}
	return c
}

// Server is a grpc.Server that bounds its callers. Services are registered before Serve.
type Server struct {
	config ServerConfig
	grpc   *grpc.Server
	conns  listen.Stats
	ctx    context.Context // ends when Stop begins
	end    context.CancelFunc

	mu        sync.Mutex         // guards listeners
	listeners []*listen.Listener // that are served
}

var _ grpc.ServiceRegistrar = (*Server)(nil)

// NewServer returns a Server without services.
func NewServer(c ServerConfig) *Server {
	c = c.withDefaults()
	s := &Server{config: c}
	s.ctx, s.end = context.WithCancel(context.Background())
	s.grpc = grpc.NewServer(append(c.options(), grpc.StreamInterceptor(s.untilStop))...)
	if s.config.Direct == nil {
		s.config.Direct = s.grpc.Serve
	}
	return s
}

const (
	// handshakeTimeout bounds the time from accept to the end of the HTTP/2 preface.
	handshakeTimeout = 5 * time.Second
	// maxConnAge makes callers prove anew who they are: an identity that is not trusted any more is out after an hour.
	maxConnAge = time.Hour
	// maxConnGrace is what calls under way get when their connection reaches maxConnAge.
	maxConnGrace = 30 * time.Second
	// maxConnIdle is above the idleTimeout of a Pool, so that the caller closes first.
	maxConnIdle = 15 * time.Minute
)

func (c ServerConfig) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(c.Credentials),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.MaxConcurrentStreams(c.MaxStreams),
		grpc.MaxRecvMsgSize(c.MaxRequestBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ReadBufferSize(bufferBytes),
		grpc.WriteBufferSize(bufferBytes),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle:     maxConnIdle,
			MaxConnectionAge:      maxConnAge,
			MaxConnectionAgeGrace: maxConnGrace,
			Time:                  time.Minute,
			Timeout:               10 * time.Second,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}

// RegisterService implements grpc.ServiceRegistrar.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.grpc.RegisterService(desc, impl)
}

// Serve accepts connections until Stop; then it returns nil. It closes listener.
func (s *Server) Serve(listener net.Listener) error {
	bound := listen.New(listener, listen.Config{MaxConns: s.config.MaxConns, Stats: &s.conns})
	if !s.begin(bound) {
		return bound.Close()
	}
	rule := listen.Rule{Prefix: hello, Strip: true, Timeout: handshakeTimeout}
	err := listen.Demux(s.ctx, bound, rule, s.grpc.Serve, s.config.Direct)
	if s.ctx.Err() != nil {
		return nil // Stop came first
	}
	return errors.Join(err, bound.Close())
}

// begin reports whether the server has not been stopped.
func (s *Server) begin(listener *listen.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.listeners = append(s.listeners, listener)
	return true
}

// stopAccepting leaves the connections that are served alone.
func (s *Server) stopAccepting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
	for _, listener := range s.listeners {
		_ = listener.Close() // it accepts nothing from now on, whatever it says
	}
}

func (s *Server) closeConns() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, listener := range s.listeners {
		listener.CloseConns()
	}
}

// untilStop ends the context of a stream when Stop begins: it has no end of its own that could be waited for.
func (s *Server) untilStop(
	service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	return handler(service, endingStream{stream, ctx})
}

type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s endingStream) Context() context.Context { return s.ctx }

// Stop stops accepting, ends the streams, tells callers to go elsewhere, and waits for the calls under way until ctx is
// done; those that are left are cut off then.
func (s *Server) Stop(ctx context.Context) {
	s.stopAccepting()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.grpc.GracefulStop()
	}()
	select {
	case <-drained:
	case <-ctx.Done():
		// grpc's own Stop would wait for those that never end their handshake; neither waits for a handler that does
		// not heed its context.
		s.closeConns()
		s.grpc.Stop()
	}
}

// ServerStats is a snapshot of a Server.
type ServerStats struct {
	Conns, MaxConns int64 // connections open now, and their bound
	ConnsRefused    int64 // since the start
}

// Stats returns a snapshot.
func (s *Server) Stats() ServerStats {
	return ServerStats{
		Conns: s.conns.Open.Load(), MaxConns: int64(s.config.MaxConns), ConnsRefused: s.conns.Refused.Load(),
	}
}
