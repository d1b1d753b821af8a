// Package server is the peer listener of a member: it accepts and limits connections from other members. Package service
// answers their calls.
package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // for clients that compress

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/h2"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing/calls"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

// DefaultMaxConns is the default of Config.MaxConns.
const DefaultMaxConns = wire.MaxConns

// Config limits what callers may use. Every field may be zero.
type Config struct {
	// Fast answers calls that need no waiting; may be nil.
	Fast h2.Fast
	// Credentials authenticate members to each other (see package mtls); nil means plain text.
	Credentials credentials.TransportCredentials
	// MaxConns limits the open connections; a connection above it is closed immediately. 10 000 by default.
	MaxConns int
	// MaxStreams limits the running requests on one connection; wire.MaxStreams by default.
	MaxStreams uint32
	// MaxRequestBytes limits one request; by default the size of the largest batch of writes. Methods have their own.
	MaxRequestBytes int
	// Caller returns who is at the other end of a connection: its state is nil for plain text. Each request has the caller in
	// its context. May be nil.
	Caller func(*tls.ConnectionState, net.Addr) caller.Caller
	// Tracer traces the calls; nil: none.
	Tracer *tracing.Tracer
	// Budget limits the bytes that callers make the process use; nil means no limit.
	Budget *budget.Budget
	// ConnShare is the part of the budget's bytes for connections that belongs to this listener.
	ConnShare float64
	// Defect is called with each panic of a handler, stack included. May be nil.
	Defect func(error)
	// Direct serves the connections that do not begin with wire.Preface: those of clients that route by the ring
	// themselves. It gets them as accepted, without TLS, and returns when its listener is closed. When it is nil, they are
	// served like members' connections.
	Direct func(net.Listener) error
}

func (c Config) withDefaults() Config {
	c.MaxConns = cmp.Or(c.MaxConns, DefaultMaxConns)
	c.MaxStreams = cmp.Or(c.MaxStreams, wire.MaxStreams)
	c.MaxRequestBytes = cmp.Or(c.MaxRequestBytes, wire.MaxBatchWriteBytes)
	if c.Credentials == nil {
		c.Credentials = insecure.NewCredentials()
	}
	if c.Defect == nil {
		c.Defect = func(error) {}
	}
	return c
}

// Server is a grpc.Server that limits its callers. Register services before Serve.
type Server struct {
	config Config
	grpc   *grpc.Server
	h2     *h2.Server // reads the connections for grpc
	conns  listen.Stats
	failed listen.HandshakeStats
	ctx    context.Context // canceled when Stop begins
	cancel context.CancelFunc

	mu        sync.Mutex         // guards listeners
	listeners []*listen.Listener // being served
}

var _ grpc.ServiceRegistrar = (*Server)(nil)

// New returns a Server without services.
func New(c Config) *Server {
	c = c.withDefaults()
	s := &Server{config: c}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.grpc = grpc.NewServer(append(append(h2.GRPCOptions(), calls.Options(c.Tracer)...),
		grpc.MaxRecvMsgSize(c.MaxRequestBytes),
		grpc.ForceServerCodecV2(wire.NewCodec()), //guard:requests-are-decoded-without-limits
		grpc.ChainStreamInterceptor(s.recoverStream, s.interceptStream),
		grpc.ChainUnaryInterceptor(s.recoverCall))...)
	s.h2 = s.newH2()
	if s.config.Direct == nil {
		s.config.Direct = s.serveMembers
	}
	return s
}

// connBytes is what a connection takes. A member cannot know yet whether it is one of a member or of a client that routes
// by the ring: both take about the same.
func (c Config) connBytes() int64 {
	if c.Credentials.Info().SecurityProtocol == "tls" {
		return listen.HTTP2Bytes + listen.TLSBytes
	}
	return listen.HTTP2Bytes
}

const (
	// handshakeTimeout limits the time from accept to the end of the HTTP/2 preface.
	handshakeTimeout = 5 * time.Second
	// keepIdle is how long an idle connection of another member is not closed for a new one.
	keepIdle = time.Minute
	// maxConnAge makes callers authenticate again: a revoked identity is out after an hour.
	maxConnAge = time.Hour
	// maxConnGrace is the time that running calls get when their connection reaches maxConnAge.
	maxConnGrace = 30 * time.Second
)

// newH2 returns the HTTP/2 server of the connections, which passes calls to s.grpc.
func (s *Server) newH2() *h2.Server {
	return h2.New(h2.Config{
		Handler:        s.grpc,
		Fast:           s.config.Fast,
		Budget:         s.config.Budget,
		MaxStreams:     s.config.MaxStreams,
		MaxHeaderBytes: wire.MaxHeaderBytes,
		MaxBody:        func(path string) int64 { return int64(min(wire.MaxRequest(path), s.config.MaxRequestBytes)) },
		MessageTimeout: handshakeTimeout,
		IdleTimeout:    3 * wire.IdleTimeout,
		MaxAge:         maxConnAge,
		MaxAgeGrace:    maxConnGrace,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return caller.With(ctx, s.config.callerOf(c))
		},
		Defect: func(p any) { s.config.Defect(fmt.Errorf("panic while serving HTTP/2: %v\n%s", p, debug.Stack())) },
	})
}

// RegisterService implements grpc.ServiceRegistrar.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.grpc.RegisterService(desc, impl)
}

// Serve accepts connections until Stop; then it returns nil. It closes listener.
func (s *Server) Serve(listener net.Listener) error {
	limited := listen.New(listener, listen.Config{
		MaxConns: s.config.MaxConns, Stats: &s.conns, KeepIdle: keepIdle, Waits: true,
		Bytes: s.config.Budget.Account(budget.Connections, s.config.ConnShare), ConnBytes: s.config.connBytes(),
	})
	if !s.add(limited) {
		return limited.Close()
	}
	rule := listen.Rule{Prefix: wire.Preface, Strip: true, Timeout: handshakeTimeout}
	err := listen.Demux(s.ctx, limited, rule, s.serveMembers, s.config.Direct)
	if s.ctx.Err() != nil {
		return nil // Stop was called
	}
	return errors.Join(err, limited.Close())
}

// serveMembers serves connections after their handshake.
func (s *Server) serveMembers(ln net.Listener) error {
	secure := listen.Handshaken(ln, &s.failed, s.config.handshake)
	return errors.Join(s.h2.Serve(secure), secure.Close())
}

// add reports whether the server may serve another listener: it has not been stopped.
func (s *Server) add(listener *listen.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.listeners = append(s.listeners, listener)
	return true
}

// stopAccepting closes the listeners and keeps the accepted connections.
func (s *Server) stopAccepting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel()
	for _, listener := range s.listeners {
		_ = listener.Close() // it accepts no more connections, even when Close fails
	}
}

func (s *Server) closeConns() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, listener := range s.listeners {
		listener.CloseConns()
	}
}

// interceptStream cancels the context of a stream when Stop begins: a Subscribe stream would otherwise never end.
func (s *Server) interceptStream(
	service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	return handler(service, stoppableStream{stream, ctx})
}

type stoppableStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s stoppableStream) Context() context.Context { return s.ctx }

// Stop stops accepting, ends the streams, sends GOAWAY to callers, and waits for the running calls until ctx is done. Then
// it closes the remaining connections.
func (s *Server) Stop(ctx context.Context) {
	s.stopAccepting()
	if s.h2.Shutdown(ctx) != nil {
		s.closeConns() // also those that have not finished their handshake
	}
	s.grpc.Stop() // nobody calls it any more, except handlers that ignore their context
}

// Stats is a snapshot of a Server.
type Stats struct {
	Conns, MaxConns int64 // open connections, and their limit
	// Since the start.
	ConnsRefused int64
	AcceptErrors int64
	// Handshakes that were rejected or cut off, and those that took too long.
	HandshakesFailed, HandshakesTimedOut int64
}

// Stats returns a snapshot.
func (s *Server) Stats() Stats {
	return Stats{
		Conns: s.conns.Open.Load(), MaxConns: int64(s.config.MaxConns), ConnsRefused: s.conns.Refused.Load(),
		AcceptErrors:     s.conns.AcceptErrors.Load(),
		HandshakesFailed: s.failed.Failed.Load(), HandshakesTimedOut: s.failed.TimedOut.Load(),
	}
}
