package local

import (
	"context"
	"net"
	"strings"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/h2"
	"github.com/ringside-cache/ringside/sidecar/local/grpcapi"
)

// callServer serves gRPC: h2 reads the connections, answers hits, and passes all other calls to grpc.
type callServer struct {
	grpc *grpc.Server
	h2   *h2.Server // nil: grpc reads the connections itself
}

func (s *Server) newGRPC(stats *Protocol) callServer {
	if s.backend.Config().GRPCGo {
		return s.newGRPCGo(stats)
	}
	g := grpcapi.NewServer(s.backend, s.watches, stats, false)
	healthpb.RegisterHealthServer(g, s.health)
	reflection.Register(g)
	config := s.h2Config()
	config.Handler, config.Fast = g, grpcapi.NewFast(s.backend, stats)
	return callServer{g, h2.New(config)}
}

// h2Config has the limits of what clients may do on one connection.
func (s *Server) h2Config() h2.Config {
	c := s.backend.Config()
	return h2.Config{
		Budget:         c.Budget,
		MaxStreams:     uint32(c.MaxStreams),
		MaxHeaderBytes: c.MaxHeaderBytes,
		MaxBody:        func(path string) int64 { return s.maxMessage(path) },
		MessageTimeout: c.ReadTimeout,
		WriteTimeout:   2 * c.WriteTimeout, // a watch of a slow client ends with a status before
		PingInterval:   c.IdleTimeout,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return caller.With(ctx, caller.Of(conn))
		},
		Defect: func(p any) { _ = s.backend.Panic("in a handler of HTTP/2", p) }, // it is counted and logged
	}
}

// maxReflectionBytes limits a message of grpc.reflection, which carries a name.
const maxReflectionBytes = 8 << 10

func (s *Server) maxMessage(path string) int64 {
	if strings.HasPrefix(path, "/grpc.") {
		return maxReflectionBytes // health and reflection
	}
	return int64(grpcapi.MaxMessageBytes(s.backend.Config()))
}

// serve serves the connections of ln.
func (c callServer) serve(ln net.Listener) error {
	if c.h2 == nil {
		return c.grpc.Serve(ln)
	}
	return c.h2.Serve(ln)
}

// stop lets running calls end until ctx is done.
func (c callServer) stop(ctx context.Context) {
	if c.h2 == nil {
		defer context.AfterFunc(ctx, c.grpc.Stop)() // GracefulStop alone can wait forever
		c.grpc.GracefulStop()
		return
	}
	_ = c.h2.Shutdown(ctx) // its error is that of ctx
	c.grpc.Stop()
}
