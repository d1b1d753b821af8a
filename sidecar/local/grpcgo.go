package local

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"

	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/local/grpcapi"
)

// grpcGoBuffers is the size of each of the two buffers of a connection of grpc-go.
const grpcGoBuffers = 4 << 10

// newGRPCGo returns a server whose connections grpc-go reads, with the limits that it has.
func (s *Server) newGRPCGo(stats *Protocol) callServer {
	c := s.backend.Config()
	g := grpcapi.NewServer(s.backend, s.watches, stats, false,
		grpc.Creds(plainText{insecure.NewCredentials()}),
		grpc.ChainUnaryInterceptor(identifyCall), grpc.ChainStreamInterceptor(identifyStream),
		grpc.MaxConcurrentStreams(uint32(c.MaxStreams)),
		grpc.MaxHeaderListSize(uint32(c.MaxHeaderBytes)),
		grpc.ConnectionTimeout(c.ReadTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: c.IdleTimeout, Timeout: c.WriteTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: c.WriteTimeout, PermitWithoutStream: true}),
		grpc.ReadBufferSize(grpcGoBuffers), grpc.WriteBufferSize(grpcGoBuffers),
	)
	healthpb.RegisterHealthServer(g, s.health)
	reflection.Register(g)
	return callServer{grpc: g}
}

// plainText is plain text that shows who is at the other end of a connection.
type plainText struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (p plainText) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, callerInfo{caller: caller.Of(c)}, nil
}

// callerInfo is the caller of a connection.
type callerInfo struct {
	credentials.CommonAuthInfo
	caller caller.Caller
}

// AuthType implements credentials.AuthInfo.
func (callerInfo) AuthType() string { return "insecure" }

// identify adds the caller of the connection to the context of a call.
func identify(ctx context.Context) context.Context {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(callerInfo); ok { //guard:call-through-grpc-go-has-no-caller
			return caller.With(ctx, info.caller)
		}
	}
	return ctx
}

func identifyCall(ctx context.Context, q any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	return next(identify(ctx), q)
}

func identifyStream(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return next(service, identified{stream, identify(stream.Context())})
}

// identified is a stream whose context has its caller.
type identified struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s identified) Context() context.Context { return s.ctx }
