package h2

import (
	"context"

	"google.golang.org/grpc"
)

// GRPCOptions returns options of a grpc.Server whose ServeHTTP is Config.Handler. With them it reads the next message of a
// stream only when its handler asks for it, instead of all that arrive; and a handler counts until it returns, although
// ServeHTTP returns earlier when the client is gone.
func GRPCOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(countCall), grpc.ChainStreamInterceptor(paceStream)}
}

func countCall(ctx context.Context, q any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	defer streamOf(ctx).enter().leave()
	return handler(ctx, q)
}

func paceStream(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	s := streamOf(stream.Context())
	defer s.enter().leave()
	return handler(service, paced{stream, s})
}

// paced tells the stream which messages its handler has asked for.
type paced struct {
	grpc.ServerStream
	stream *stream
}

// RecvMsg implements grpc.ServerStream.
func (p paced) RecvMsg(m any) error {
	if p.stream != nil {
		p.stream.nextMessage()
	}
	return p.ServerStream.RecvMsg(m)
}

// streamOf returns the stream of a request; nil if another server reads its connection.
func streamOf(ctx context.Context) *stream {
	s, _ := ctx.Value(streamKey{}).(*stream)
	return s
}

// enter and leave enclose what a grpc.Server runs for a request. Called without mu.
func (s *stream) enter() *stream {
	if s != nil {
		s.conn.mu.Lock()
		defer s.conn.mu.Unlock()
		s.count()
	}
	return s
}

func (s *stream) leave() {
	if s != nil {
		s.conn.mu.Lock()
		defer s.conn.mu.Unlock()
		s.uncount()
	}
}
