package server

import (
	"context"
	"fmt"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A panic in a handler must end its call, not the process: another member's message may have caused it.

func (s *Server) recoverCall(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (resp any, err error) {
	defer func() {
		if p := recover(); p != nil { //guard:panic-of-peer-call-ends-process
			resp, err = nil, s.panicked(info.FullMethod, p)
		}
	}()
	return handler(ctx, req)
}

func (s *Server) recoverStream(
	service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(info.FullMethod, p)
		}
	}()
	return handler(service, stream)
}

// panicked reports a panic. The caller, another member, gets no details.
func (s *Server) panicked(method string, p any) error {
	s.config.Defect(fmt.Errorf("panic in %s: %v\n%s", method, p, debug.Stack()))
	return status.Error(codes.Internal, "the member has a defect; see its log")
}
