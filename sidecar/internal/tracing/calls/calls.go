// Package calls traces the gRPC calls that a grpc.Server handles.
package calls

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
)

// Options returns the options of a grpc.Server whose unary calls are traced: none if t is nil, so that calls cost nothing then.
// Streams last for hours and have no span.
func Options(t *tracing.Tracer) []grpc.ServerOption {
	if t == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(
		func(ctx context.Context, q any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			ctx, span := Begin(ctx, t, metadataOf(ctx), info.FullMethod, time.Now())
			answer, err := next(ctx, q)
			End(span, status.Code(err))
			return answer, err
		})}
}

// Begin starts the span of a call, as tracing.Request does.
func Begin[H tracing.Header](ctx context.Context, t *tracing.Tracer, h H, method string, began time.Time) (context.Context, *tracing.Span) {
	ctx, span := tracing.Request(ctx, t, h, tracing.Server, strings.TrimPrefix(method, "/"), began)
	span.Set("rpc.system", "grpc")
	return ctx, span
}

// End ends the span of a call.
func End(span *tracing.Span, code codes.Code) {
	if span == nil {
		return
	}
	span.SetInt("rpc.grpc.status_code", int(code))
	switch code { // those that are failures of a server (OpenTelemetry, Semantic Conventions for gRPC)
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		span.Fail(code.String())
	}
	span.End()
}

// fields is the metadata of a call.
type fields metadata.MD

func metadataOf(ctx context.Context) fields {
	md, _ := metadata.FromIncomingContext(ctx)
	return fields(md)
}

// Joined implements tracing.Header.
func (f fields) Joined(name string) string { return strings.Join(f[name], ",") }
